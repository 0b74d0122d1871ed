from __future__ import annotations

import numpy as np
import pytest

from actograph.errors import UsageError
from actograph.runlog.schema import RunInfo
from actograph.runlog.view import DEAD_WINDOW, STATISTICS, RunView
from actograph.testing.synthetic import RELU, SyntheticRun, layer


@pytest.fixture
def activations() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(1, 2, size=(64, 6)) for _ in range(40)]


@pytest.fixture
def view(activations: list[np.ndarray]) -> RunView:
    run = SyntheticRun([layer("fc", "Linear", 6), layer("act", "ReLU", 6, RELU)])
    for values in activations:
        run.step({"fc": values, "act": np.maximum(values, 0)}, loss=1.0)
    return run.view()


def test_columns_equal_numpy(view: RunView, activations: list[np.ndarray]) -> None:
    stack = np.stack(activations).reshape(40, -1)
    expected = {
        "mean": stack.mean(axis=1),
        "std": stack.std(axis=1, ddof=1),
        "rms": np.sqrt((stack**2).mean(axis=1)),
        "near_zero": (np.abs(stack) <= 0.05).mean(axis=1),
        "zeros": np.zeros(40),
        "non_finite": np.zeros(40),
        "min": stack.min(axis=1),
        "max": stack.max(axis=1),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(view.column(name)[:, 0], values, rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(view.column("q50")[:, 0], np.median(stack, axis=1), rtol=0.2)
    np.testing.assert_allclose(view.column("flat")[:, 1], (stack <= 0).mean(axis=1))
    assert np.isnan(view.column("flat")[:, 0]).all()


def test_layers_are_found_by_position_and_name(view: RunView) -> None:
    assert [view.layer_index(key) for key in (0, -1, "act")] == [0, 1, 1]
    for wrong, hint in ((2, "0 to 1"), ("atc", "did you mean 'act'"), ("zzz", "the layers are fc, act")):
        with pytest.raises(UsageError, match=hint):
            view.layer_index(wrong)


def test_an_unknown_statistic_names_the_known() -> None:
    with pytest.raises(UsageError, match="no statistic 'median': choose one of mean, std"):
        RunView(RunInfo("x")).column("median")


def test_a_unit_is_dead_after_a_window_without_firing() -> None:
    run = SyntheticRun([layer("act", "ReLU", 3, RELU)])
    for step in range(60):
        values = np.ones((4, 3))
        values[:, 1] = 0.0  # never fires
        values[:, 2] = 1.0 if step < 10 or step == 50 else 0.0
        run.step({"act": values})
    view = run.view()
    dead = view.dead("act")
    assert not dead[:, 0].any()
    assert dead[DEAD_WINDOW - 1 :, 1].all()
    assert not dead[: DEAD_WINDOW - 1, 1].any()
    assert np.flatnonzero(dead[:, 2]).tolist() == list(range(9 + DEAD_WINDOW, 50))
    share = view.column("dead")[:, 0]
    assert np.isnan(share[: DEAD_WINDOW - 1]).all()
    assert share[DEAD_WINDOW - 1] == pytest.approx(1 / 3)


def test_steps_without_a_layer_do_not_make_its_units_die() -> None:
    late = layer("late", "ReLU", 2, RELU)
    run = SyntheticRun([layer("act", "ReLU", 2, RELU), late])
    for step in range(60):
        values = {
            "act": np.ones((4, 2)),
            "late": np.ones((4, 2)) if step == 0 or step >= 50 else np.zeros((0, 2)),
        }
        run.step(values)
    assert not run.view().dead("late").any()


def test_a_run_of_nothing_has_empty_columns() -> None:
    view = RunView(RunInfo("empty"), layers=(layer("fc", "Linear", 2), layer("act", "ReLU", 2, RELU)))
    assert view.num_steps == 0
    assert len(view.scalar("loss")) == 0
    assert view.first_non_finite("fc") is None
    assert view.dead("act").shape == (0, 2)
    for name in STATISTICS:
        assert view.column(name).shape == (0, 2), name


def test_a_layer_that_saw_only_nan_has_no_numbers() -> None:
    run = SyntheticRun([layer("fc", "Linear", 2)])
    run.step({"fc": np.full((1, 2), np.nan)})
    view = run.view()
    assert view.column("non_finite").item() == 1.0
    for name in ("mean", "std", "min", "max", "near_zero", "q50"):
        assert np.isnan(view.column(name)).all(), name
