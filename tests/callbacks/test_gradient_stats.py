from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from actograph.callbacks.activation_stats import ActivationStats
from actograph.callbacks.gradient_stats import GradientStats
from actograph.callbacks.recorder import Recorder
from actograph.errors import UsageError
from actograph.learner import Learner
from actograph.observe.watch import watch
from actograph.runlog.reader import read_run
from actograph.runlog.view import RunView
from actograph.show.run import open_run
from actograph.train.events import Callback
from actograph.train.loop import Loop
from actograph.train.step import LossFunction, Supervised, TrainStep
from actograph.train.step_clip import Clip
from actograph.train.step_precision import MixedPrecision

from .test_activation_stats import data, num_hooks, toy


def learner(*callbacks: Callback, step: object = Supervised) -> Learner:
    return Learner(
        toy(), (data(), data(2)), nn.functional.mse_loss, torch.optim.SGD, lr=0.1,
        callbacks=callbacks, defaults=[Recorder], step=step,  # type: ignore[arg-type]
    )  # fmt: skip


def clipped(model: nn.Module, loss_func: LossFunction, optimizer: torch.optim.Optimizer) -> TrainStep:
    return Clip(Supervised(model, loss_func, optimizer), optimizer, norm=0.2)


def half(model: nn.Module, loss_func: LossFunction, optimizer: torch.optim.Optimizer) -> TrainStep:
    return MixedPrecision(Supervised(model, loss_func, optimizer), optimizer, "fp16")


def watched(clip: float | None = None) -> RunView:
    """The same training in a hand-written loop."""
    model = toy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, ":memory:", budget=None, grad=True, gradients=True) as recording:
        for _ in range(2):
            for x, y in data():
                loss = nn.functional.mse_loss(model(x), y)
                recording.loss(loss)
                loss.backward()  # type: ignore[no-untyped-call]
                recording.gradients()
                if clip is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
    return recording.view()


@pytest.mark.parametrize("stats_first", [True, False])
def test_both_callbacks_record_into_one_run_and_as_a_hand_written_loop_does(
    stats_first: bool, tmp_path: Path
) -> None:
    stats, gradients = ActivationStats(budget=None, out=tmp_path / "run", grad=True), GradientStats()
    learn = learner(*((stats, gradients) if stats_first else (gradients, stats)))
    learn.fit(2)
    assert stats.recording is gradients.recording
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    ours, theirs = read_run(tmp_path / "run"), watched()
    np.testing.assert_array_equal(ours.rows, theirs.rows)
    np.testing.assert_array_equal(ours.gradients.rows, theirs.gradients.rows)
    np.testing.assert_array_equal(ours.parameters.rows, theirs.parameters.rows)
    np.testing.assert_array_equal(ours.scalar("grad_norm").values, theirs.scalar("grad_norm").values)
    assert ours.scalar("clip_ratio").values.tolist() == [1.0] * 10
    assert num_hooks(learn.model) == 0


def test_gradient_stats_alone_begin_a_run_without_layers(tmp_path: Path) -> None:
    learn = learner(GradientStats(budget=None, out=tmp_path, name="mine", config={"note": 1}))
    learn.fit(2)
    view = read_run(tmp_path)
    assert (view.layers, view.buckets) == ((), ())
    assert view.info.config["note"] == 1
    np.testing.assert_array_equal(view.parameters.rows, watched().parameters.rows)
    np.testing.assert_array_equal(view.scalar("loss").values, learn.recorder.losses)
    assert len(view.scalar("loss", "valid")) == 2
    assert num_hooks(learn.model) == 0


def test_recording_changes_no_weight_no_loss_and_no_random_state() -> None:
    plain, recorded = learner(), learner(ActivationStats(None, None, ":memory:", grad=True), GradientStats())
    plain.fit(2)
    state = torch.get_rng_state()
    recorded.fit(2)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(plain.recorder.losses, recorded.recorder.losses)
    for a, b in zip(plain.model.parameters(), recorded.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_gradients_are_measured_before_they_are_clipped() -> None:
    stats = GradientStats(budget=None, out=":memory:")
    learner(stats, step=clipped).fit(2)
    expected = watched(clip=0.2)
    np.testing.assert_array_equal(stats.view.parameters.rows, expected.parameters.rows)
    ratios = stats.gradients.clip_ratio.values
    assert 0 < ratios.min() < 0.9
    np.testing.assert_allclose(ratios, np.minimum(1, 0.2 / stats.gradients.total_norm.values), rtol=1e-5)


def test_a_scaled_loss_leaves_gradients_as_they_are() -> None:
    stats, gradients = ActivationStats(None, None, ":memory:", grad=True), GradientStats()
    learner(stats, gradients, step=half).fit(2)
    ours, theirs = stats.view, watched()
    for statistic in ("rms", "max"):  # as large as without a scale of 65,536, in half precision
        np.testing.assert_allclose(
            ours.gradients.column(statistic), theirs.gradients.column(statistic), rtol=0.05
        )
    np.testing.assert_allclose(
        ours.parameters.column("grad_norm"), theirs.parameters.column("grad_norm"), rtol=0.05
    )


def test_a_callback_for_one_fit_records_that_fit() -> None:
    stats = ActivationStats(budget=None, out=":memory:")
    learn = learner(stats)
    learn.fit(1)
    gradients = GradientStats()
    learn.fit(1, callbacks=[gradients])
    learn.fit(1)
    assert gradients.view.parameters.last_steps.tolist() == [5, 6, 7, 8, 9]
    assert stats.view.last_steps.tolist() == list(range(15))


def test_numbers_and_figures_are_found_after_training(tmp_path: Path) -> None:
    stats = GradientStats()
    learner(ActivationStats(budget=None, out=tmp_path, grad=True), stats).fit(2)
    for view in (stats.gradients, open_run(tmp_path).gradient_stats):
        assert len(view) == len(view.names) == 6
        assert view.steps.tolist() == list(range(10))
        assert view.column("0.weight", "update_ratio").shape == (10,)
        np.testing.assert_allclose(
            np.sqrt(sum(view.column(name) ** 2 for name in view.names)), view.total_norm.values, rtol=1e-5
        )
    gradients = open_run(tmp_path).activation_stats.gradients
    assert gradients.names == open_run(tmp_path).activation_stats.names
    assert np.isfinite(gradients.layer_stats("2").std).all()
    assert gradients.plot_layer_stats("2").data


@pytest.mark.parametrize("setting", [{"out": "x"}, {"name": "x"}, {"config": {"x": 1}}])
def test_settings_that_would_be_ignored_are_refused(setting: dict[str, object]) -> None:
    learn = learner(ActivationStats(out=":memory:"), GradientStats(**setting))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="to ActivationStats, not to GradientStats"):
        learn.fit(1)
    assert num_hooks(learn.model) == 0


def test_nothing_is_there_before_the_first_fit_nor_after_validate() -> None:
    stats = GradientStats(out=":memory:")
    learn = learner(stats)
    learn.validate()
    with pytest.raises(UsageError, match="GradientStats begins with the first fit"):
        _ = stats.gradients


class Fails(Callback):
    def after_backward(self, loop: Loop) -> None:
        if loop.progress.step == 2:
            raise ZeroDivisionError


def test_an_error_leaves_the_run_and_no_hook(tmp_path: Path) -> None:
    learn = learner(GradientStats(budget=None, out=tmp_path), Fails())
    with pytest.raises(ZeroDivisionError):
        learn.fit(1)
    view = read_run(tmp_path)
    assert (view.info.status, view.parameters.last_steps.tolist()) == ("failed", [0, 1])
    assert num_hooks(learn.model) == 0
    optimizer = learn.optimizer
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
