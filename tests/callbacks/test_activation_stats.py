from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from actograph import ActivationStats, Learner, StopFit, UsageError, open_run, watch
from actograph.callbacks.recorder import Recorder
from actograph.errors import RunInUseError
from actograph.runlog.reader import read_run
from actograph.train.events import Callback
from actograph.train.loop import Loop

Batches = list[tuple[Tensor, Tensor]]


def data(num: int = 5) -> Batches:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(16, 4, generator=generator), torch.randn(16, 2, generator=generator)) for _ in range(num)
    ]


def toy() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))


def learner(*callbacks: Callback, valid: Batches | None = None) -> Learner:
    return Learner(
        toy(),
        (data(), valid),
        nn.functional.mse_loss,
        torch.optim.SGD,
        lr=0.1,
        callbacks=callbacks,
        defaults=[Recorder],
    )


def num_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_the_callback_and_watch_give_equal_rows() -> None:
    stats = ActivationStats(budget=None, out=":memory:")
    learn = learner(stats)
    learn.fit(2)

    model = toy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, ":memory:", budget=None) as recording:
        for _ in range(2):
            for x, y in data():
                loss = nn.functional.mse_loss(model(x), y)
                recording.loss(loss)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                optimizer.zero_grad()

    ours, theirs = stats.view, recording.view()
    assert ours.layers == theirs.layers
    np.testing.assert_array_equal(ours.rows, theirs.rows)
    for layer in range(5):
        np.testing.assert_array_equal(ours.histogram(layer), theirs.histogram(layer))
        np.testing.assert_array_equal(ours.fired(layer), theirs.fired(layer))
    for name in ("loss", "lr"):
        np.testing.assert_array_equal(ours.scalar(name).values, theirs.scalar(name).values)


def test_recording_changes_no_weight_no_loss_and_no_random_state() -> None:
    plain, watched = learner(), learner(ActivationStats(budget=None, out=":memory:"))
    plain.fit(3)
    state = torch.get_rng_state()
    watched.fit(3)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(plain.recorder.losses, watched.recorder.losses)
    for a, b in zip(plain.model.parameters(), watched.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_numbers_after_training_are_equal_in_all_three_ways(tmp_path: Path) -> None:
    learn = learner(valid=data(2))
    learn.fit(3, callbacks=[ActivationStats(budget=None, out=tmp_path / "run")])
    live = learn.activation_stats
    by_class = learn.callbacks[ActivationStats].activations
    reopened = open_run(tmp_path / "run").activation_stats
    for layer in (0, -1, "2"):
        for view in (by_class, reopened):
            for ours, theirs in zip(live.layer_stats(layer), view.layer_stats(layer), strict=True):
                np.testing.assert_array_equal(ours, theirs)
            np.testing.assert_array_equal(live.hist(layer), view.hist(layer))
            assert live.color_dim(layer) == view.color_dim(layer)
            assert live.plot_layer_stats(layer) == view.plot_layer_stats(layer)
    code = f"""
from actograph import open_run
print(repr(open_run({str(tmp_path / "run")!r}).activation_stats.layer_stats(1)[0].sum()))
"""
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == repr(live.layer_stats(1)[0].sum())


def test_two_fits_go_on_in_one_run(tmp_path: Path) -> None:
    learn = learner(ActivationStats(budget=None, out=tmp_path), valid=data(2))
    learn.fit(2)
    assert read_run(tmp_path).info.status == "finished"
    learn.fit(1)
    view = read_run(tmp_path)
    assert view.last_steps.tolist() == list(range(15))
    begun = [(e.step, e.data["fit"], e.data["epoch"]) for e in view.events if e.data.get("name") == "train"]
    assert begun == [(0, 0, 0), (5, 0, 1), (10, 1, 0)]
    assert view.scalar("loss", "valid").steps.tolist() == [4, 9, 14]
    assert num_hooks(learn.model) == 0


class Breaks(Callback):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def after_step(self, loop: Loop) -> None:
        if loop.progress.step == 3:
            raise self.error


@pytest.mark.parametrize(
    ("error", "status"),
    [(StopFit("enough"), "stopped"), (ValueError("broken"), "failed"), (KeyboardInterrupt(), "interrupted")],
)
def test_however_a_fit_ends_the_run_is_complete_and_no_hook_is_left(
    error: BaseException, status: str, tmp_path: Path
) -> None:
    learn = learner(ActivationStats(budget=None, out=tmp_path), Breaks(error))
    with contextlib.suppress(ValueError, KeyboardInterrupt):
        learn.fit(1)
    view = read_run(tmp_path)
    assert (view.info.status, view.num_steps) == (status, 3)
    assert num_hooks(learn.model) == 0


def test_validation_alone_records_nothing(tmp_path: Path) -> None:
    learn = learner(ActivationStats(out=tmp_path / "run"), valid=data(2))
    learn.validate()
    assert not (tmp_path / "run").exists()


def test_reading_before_the_first_fit_is_told() -> None:
    learn = learner(ActivationStats(out=":memory:"))
    with pytest.raises(UsageError, match="nothing is recorded yet"):
        _ = learn.activation_stats


def test_a_folder_in_use_is_told_and_nothing_of_it_is_touched(tmp_path: Path) -> None:
    learner(ActivationStats(out=tmp_path)).fit(1)
    before = (tmp_path / "run.db").read_bytes()
    learn = learner(ActivationStats(out=tmp_path))
    with pytest.raises(RunInUseError, match="already holds a run"):
        learn.fit(1)
    assert num_hooks(learn.model) == 0
    assert (tmp_path / "run.db").read_bytes() == before


def test_a_budget_that_is_no_share_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="budget=3"):
        ActivationStats(budget=3)


def test_two_of_them_are_one_too_many() -> None:
    with pytest.raises(UsageError, match="ActivationStats"):
        learner(ActivationStats(out=":memory:"), ActivationStats(out=":memory:"))


def test_only_selected_layers_are_recorded() -> None:
    stats = ActivationStats(select=nn.Linear, budget=None, out=":memory:", config={"who": "me"})
    learner(stats).fit(1)
    assert [layer.name for layer in stats.view.layers] == ["0", "2", "4"]
    assert stats.view.info.config["who"] == "me"
