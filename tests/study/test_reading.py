"""The numbers of a run, and whether two sets agree."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from actograph.study.reading import PROCESS_STATUS, Agreement, compared


def test_equal_numbers_agree_and_nan_equals_nan_and_null() -> None:
    assert compared({"a": [0.1, math.nan, math.nan]}, {"a": [0.1, math.nan, None]}) == Agreement(3, 0, 0.0)


def test_one_bit_is_a_difference() -> None:
    assert compared({"a": [0.1]}, {"a": [math.nextafter(0.1, 1)]}).num_unequal == 1


def test_numbers_that_one_side_lacks_differ() -> None:
    assert compared({"a": [0.1, 0.2], "b": [1.0]}, {"a": [0.1]}) == Agreement(3, 2, math.inf)
    assert compared({"a": [0.1]}, {"a": [None]}).num_unequal == 1
    assert compared({"a": [math.inf]}, {"a": [math.inf]}).num_unequal == 0


@pytest.mark.skipif(not PROCESS_STATUS.exists(), reason="the system does not tell")
def test_the_memory_told_is_not_that_of_the_process_it_was_made_by() -> None:
    big = np.ones(50_000_000)  # 400 MB, all touched
    code = "from actograph.study.reading import peak_bytes; print(peak_bytes())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 1e6 < int(told.stdout) < big.nbytes
