"""Coverage rests while a training is made that a test only reads, and then goes on as if nothing had been."""

from __future__ import annotations

import sys

import coverage
import pytest

from tests.unmeasured import unmeasured


@unmeasured()
def train_in_vain() -> None:
    assert (coverage.Coverage.current(), sys.gettrace()) == (None, None)
    raise ValueError("in training")


def test_what_measured_before_measures_again_also_where_the_training_raises() -> None:
    outer, inner = coverage.Coverage(data_file=None), coverage.Coverage(data_file=None)
    outer.start()
    inner.start()
    try:
        with pytest.raises(ValueError, match="in training"):
            train_in_vain()
        assert coverage.Coverage.current() is inner
        assert sys.gettrace() is not None
        inner.stop()
        assert coverage.Coverage.current() is outer
    finally:
        inner.stop()
        outer.stop()


def test_a_training_whose_coverage_is_not_measured_returns_what_it_makes() -> None:
    @unmeasured()
    def double(x: int) -> int:
        return 2 * x

    assert [double(1), double(2)] == [2, 4]
