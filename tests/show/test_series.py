from __future__ import annotations

import numpy as np
import pytest

from actograph.show.series import (
    best,
    best_metric,
    epochs,
    other_scalars,
    schedules,
    smoothed,
    training_loss,
    valid_metrics,
)
from actograph.testing.synthetic import SyntheticRun

from .runs import STEPS, healthy_run


def test_smoothing_is_the_corrected_running_mean() -> None:
    values = np.array([3.0, 1.0, 4.0, 1.0, 5.0])
    weights = 0.9 ** np.arange(5)[::-1]
    expected = [np.average(values[: n + 1], weights=weights[4 - n :]) for n in range(5)]
    assert np.allclose(smoothed(values, 0.9), expected, rtol=1e-12)


def test_a_gap_does_not_spoil_what_follows() -> None:
    assert np.array_equal(
        np.isnan(smoothed(np.array([1.0, np.inf, np.nan, 2.0]))), [False, True, True, False]
    )


def test_a_recorded_smooth_loss_is_taken_as_it_is() -> None:
    run = SyntheticRun([])
    for step in range(3):
        run.step({}, loss=float(step), smooth_loss=7.0)
    losses, smooth = training_loss(run.view())
    assert losses.values.tolist() == [0, 1, 2]
    assert smooth.tolist() == [7, 7, 7]


def test_scalars_are_told_apart() -> None:
    run = SyntheticRun([])
    run.step({}, **{"loss": 1.0, "lr": 0.1, "lr.1": 0.2, "momentum": 0.9, "grad_norm": 3.0})
    run.writer.add_scalar("loss", 0, 2.0, phase="valid")
    run.writer.add_scalar("accuracy", 0, 0.5, phase="valid")
    view = run.view()
    assert sorted(schedules(view)) == ["lr", "lr.1", "momentum"]
    assert list(other_scalars(view)) == ["grad_norm"]
    assert list(valid_metrics(view)) == ["accuracy", "loss"]


@pytest.mark.parametrize(("name", "value"), [("accuracy", 0.9), ("f1", 0.9), ("loss", 0.1), ("rmse", 0.1)])
def test_the_best_of_a_metric_is_its_highest_and_of_an_error_its_lowest(name: str, value: float) -> None:
    run = SyntheticRun([])
    for step, known in enumerate((0.1, 0.9, np.nan, 0.5)):
        run.writer.add_scalar(name, step, known, phase="valid")
    found = best(name, run.view().scalar(name, "valid"))
    assert found is not None
    assert found.value == value
    assert found.step == {0.1: 0, 0.9: 1}[value]


def test_without_a_finite_value_there_is_no_best() -> None:
    run = SyntheticRun([])
    run.writer.add_scalar("accuracy", 0, np.nan, phase="valid")
    assert best_metric(run.view()) is None
    assert best_metric(SyntheticRun([]).view()) is None


def test_the_best_metric_is_not_the_loss_where_there_is_another() -> None:
    found = best_metric(healthy_run())
    assert found is not None
    assert (found.name, found.step) == ("accuracy", STEPS - 1)


def test_epochs_are_the_training_phases_that_say_which() -> None:
    run = SyntheticRun([])
    run.writer.add_event(0, "phase", name="train", fit=0, epoch=0)
    run.writer.add_event(9, "phase", name="valid", fit=0, epoch=0)
    run.writer.add_event(9, "phase", name="train")
    run.writer.add_event(9, "remark", name="train", epoch=1)
    assert [event.step for event in epochs(run.view())] == [0]
