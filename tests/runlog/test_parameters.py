from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from actograph.errors import UsageError
from actograph.layout.parameter import ParameterField, ParameterInfo, empty_parameter_rows
from actograph.layout.row import Floats
from actograph.runlog.buckets import ParameterBucket
from actograph.runlog.parameters import PARAMETER_STATISTICS, ParameterView
from actograph.runlog.reader import read_run
from actograph.runlog.schema import RunInfo
from actograph.runlog.store import RunWriter

INFOS = (ParameterInfo("fc.weight", (2, 3), "float32"), ParameterInfo("fc.bias", (2,), "float32"))


def row(*, norm: float, update: float, weight: float = 2.0, step: int = 0) -> Floats:
    found = empty_parameter_rows()
    found[ParameterField.STEPS] = 1
    found[ParameterField.FINITE] = math.isfinite(norm)
    found[ParameterField.NON_FINITE] = not math.isfinite(norm)
    if math.isfinite(norm):
        found[ParameterField.GRAD_NORM] = found[ParameterField.GRAD_MAX] = norm
    else:
        found[ParameterField.FIRST_NON_FINITE] = step
    found[[ParameterField.MOVED, ParameterField.WEIGHT_NORM, ParameterField.UPDATE_NORM]] = 1, weight, update
    return found


def filled(directory: Path | None, num_steps: int) -> RunWriter:
    writer = RunWriter(directory, RunInfo("test"))
    writer.add_parameter(INFOS[0])
    for step in range(num_steps):
        if step == 3:
            writer.add_parameter(INFOS[1])
        norm = math.nan if step == 7 else 1.0 + step
        rows = [row(norm=norm, update=0.002, step=step), row(norm=norm, update=0.0, step=step)]
        writer.add_parameter_rows(step, np.stack(rows[: len(writer.parameters)]))
        if step % 100 == 0:
            writer.flush()
    return writer


@pytest.mark.parametrize("num_steps", [5, 50, 900])
def test_what_is_read_equals_what_was_written(num_steps: int, tmp_path: Path) -> None:
    writer = filled(tmp_path, num_steps)
    writer.close("finished")
    ours, theirs = writer.view().parameters, read_run(tmp_path).parameters
    assert ours.parameters == theirs.parameters == INFOS
    np.testing.assert_array_equal(ours.rows, theirs.rows)
    assert ours.num_recorded.sum() == num_steps
    assert ours.first_steps.tolist() == theirs.first_steps.tolist()
    assert ours.last_steps.tolist() == theirs.last_steps.tolist()


def test_without_sketches_there_are_no_parameters(tmp_path: Path) -> None:
    filled(tmp_path, 5).close("finished")
    assert read_run(tmp_path, sketches=False).parameters.names == []


def test_columns_are_means_over_the_steps_of_a_bucket() -> None:
    rows = np.stack(
        [row(norm=1.0, update=0.25), row(norm=3.0, update=0.75), row(norm=math.inf, update=0.5, step=2)]
    )
    writer = RunWriter(None, RunInfo("test"))
    writer.add_parameter(INFOS[0])
    for step, one in enumerate(rows):
        writer.add_parameter_rows(step, one[None])
    timeline = writer._parameter_timeline
    merged = ParameterView(INFOS[:1], tuple(timeline._merge(timeline.recent, 3)))
    expected = {
        "grad_norm": 2.0, "grad_max": 3.0, "weight_norm": 2.0, "update_norm": 0.5, "update_ratio": 0.25,
        "missing": 0.0, "non_finite": 1 / 3, "zero_updates": 0.0, "grad_zeros": 0.0,
    }  # fmt: skip
    assert expected.keys() == PARAMETER_STATISTICS.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(merged.column(name), [[value]], err_msg=name)
    assert merged.first_step("fc.weight", ParameterField.FIRST_NON_FINITE) == 2
    assert merged.first_step(0, ParameterField.FIRST_ZERO_UPDATE) is None


def test_what_was_not_measured_is_not_a_number() -> None:
    view = ParameterView(INFOS, (ParameterBucket(0, 0, 1, empty_parameter_rows(2)),))
    for name in PARAMETER_STATISTICS:
        assert np.isnan(view.column(name)).all(), name
    assert ParameterView(INFOS).column("grad_norm").shape == (0, 2)


def test_an_old_onset_is_exact() -> None:
    view = filled(None, 5_000).view().parameters
    assert view.first_step("fc.bias", ParameterField.FIRST_NON_FINITE) == 7
    assert view.last_steps[0] > 7


def test_mistakes_are_answered() -> None:
    view = ParameterView(INFOS)
    with pytest.raises(UsageError, match=r"no parameter 'fc.wieght' in this run: did you mean 'fc.weight'"):
        view.index("fc.wieght")
    with pytest.raises(UsageError, match="no parameter 2: this run has 2 parameters, 0 to 1"):
        view.index(2)
    with pytest.raises(UsageError, match="no statistic 'norm': choose one of grad_norm"):
        view.column("norm")
    assert view.index(-1) == 1


def test_memory_does_not_grow_with_the_run() -> None:
    timeline = filled(None, 30_000)._parameter_timeline
    assert len(timeline.long) <= 256
    assert sum(bucket.rows.nbytes for bucket in (*timeline.long, *timeline.recent)) < 70_000
