"""A fit that goes on from a checkpoint is the uninterrupted one, bit for bit, with all callbacks that have state."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from actograph.callbacks.averaged_weights import AveragedWeights
from actograph.callbacks.checkpoint import Checkpoint
from actograph.callbacks.early_stopping import EarlyStopping
from actograph.callbacks.guard import Guard
from actograph.callbacks.mixing import MixUp
from actograph.learner import Learner
from actograph.train.events import Callback
from actograph.train.loop import Loop
from actograph.train.metrics import Accuracy


class Crash(Callback):
    def __init__(self, at: int | None) -> None:
        self.at = at

    def before_step(self, loop: Loop) -> None:
        if loop.progress.step == self.at:
            raise OSError("power cut")


def learner() -> Learner:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    batches = [(torch.randn(8, 6), torch.randint(0, 3, (8,))) for _ in range(5)]
    metrics = {"accuracy": Accuracy()}
    return Learner(
        model, (batches, batches), nn.functional.cross_entropy, lr=0.05, metrics=metrics, defaults=()
    )


def fit(learn: Learner, folder: Path, crash_at: int | None) -> EarlyStopping:
    stopping = EarlyStopping("train_loss", patience=1, restore_best=True)
    callbacks = [AveragedWeights(0.9), stopping, MixUp(), Guard(), Checkpoint(folder, every_steps=2)]
    learn.fit(4, callbacks=[*callbacks, Crash(crash_at)])
    return stopping


@pytest.mark.parametrize("crash_at", [3, 5, 8, 11])
def test_a_fit_goes_on_as_if_nothing_had_happened(tmp_path: Path, crash_at: int) -> None:
    through, crashed, resumed = learner(), learner(), learner()
    expected = fit(through, tmp_path / "through", None)
    with pytest.raises(OSError, match="power cut"):
        fit(crashed, tmp_path / "crashed", crash_at)
    resumed.load_checkpoint(tmp_path / "crashed" / "last.ckpt")
    stopping = fit(resumed, tmp_path / "resumed", None)
    assert resumed.loop.progress.step == through.loop.progress.step
    assert resumed.loop.stop_reason == through.loop.stop_reason
    assert stopping.best == expected.best
    states = through.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
