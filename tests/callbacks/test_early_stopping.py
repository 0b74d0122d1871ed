from __future__ import annotations

import math

import pytest
import torch

from actograph.callbacks.early_stopping import EarlyStopping
from actograph.errors import UsageError
from actograph.testing.callbacks import tiny_loop, weights
from actograph.train.events import Callback
from actograph.train.loop import Loop
from actograph.train.metrics import named_metrics
from actograph.train.state import StopFit


class Scripted:
    """A metric that gives the next value of a list each epoch."""

    def __init__(self, values: list[float]) -> None:
        self.values = values
        self.epoch = -1

    def reset(self) -> None:
        self.epoch += 1

    def update(self, pred: object, target: object) -> None: ...

    def compute(self) -> float:
        return self.values[self.epoch]


class Weights(Callback):
    def __init__(self) -> None:
        self.after: list[list[list[float]]] = []

    def after_epoch(self, loop: Loop) -> None:
        self.after.append(weights(loop.model))


def fitted(stopping: EarlyStopping, values: list[float], *others: Callback) -> Loop:
    loop = tiny_loop()
    loop.metrics = named_metrics({"score": Scripted(values)})
    loop.fit(len(values), [stopping, *others])
    return loop


def test_it_stops_after_patience_epochs_without_a_better_value() -> None:
    stopping = EarlyStopping("score", patience=2, mode="max")
    loop = fitted(stopping, [1, 3, 2, 4, 4, 3, 5, 6])
    assert loop.progress.epoch == 5
    assert loop.stop_reason == "score has not become better for 2 epochs: best 4 in epoch 3"
    assert (stopping.best, stopping.best_epoch) == (4, 3)


def test_a_change_below_the_smallest_does_not_count() -> None:
    loop = fitted(EarlyStopping("score", patience=3, mode="min", min_delta=0.5), [3, 2.9, 2.8, 2.5, 2, 1])
    assert loop.progress.epoch == 3
    assert loop.stop_reason == "score has not become better for 3 epochs: best 3 in epoch 0"
    assert fitted(EarlyStopping("score", patience=3, mode="min"), [3, 2.9, 2.8, 2.5]).stop_reason is None


def test_nan_is_never_better() -> None:
    loop = fitted(EarlyStopping("score", patience=1, mode="min"), [math.nan, 1])
    assert loop.stop_reason == "score was nan for 1 epoch"


@pytest.mark.parametrize("is_stopped", [True, False])
def test_the_best_weights_come_back_when_the_fit_ends(is_stopped: bool) -> None:
    seen = Weights()
    values = [1.0, 3.0, 2.0, 2.0] if is_stopped else [1.0, 3.0, 2.0]
    stopping = EarlyStopping("score", patience=2, mode="max", restore_best=True)
    loop = fitted(stopping, values, seen)
    assert (loop.stop_reason is not None) is is_stopped
    assert "whose weights are restored" in (loop.stop_reason or "whose weights are restored")
    assert weights(loop.model) == seen.after[1] != seen.after[2]
    assert stopping.state_dict()["best_state"] == {}  # let go of
    seen = Weights()
    loop = fitted(EarlyStopping("score", patience=9, mode="max"), values, seen)
    assert weights(loop.model) == seen.after[-1]


def test_each_fit_counts_anew() -> None:
    stopping = EarlyStopping("score", patience=1, mode="max")
    fitted(stopping, [5, 4])
    loop = fitted(stopping, [3, 4])
    assert loop.stop_reason is None
    assert stopping.best == 4


def test_it_goes_on_from_its_saved_state() -> None:
    class Load(Callback):
        def before_epoch(self, loop: Loop) -> None:  # when a checkpoint is restored
            if loop.progress.epoch == 0:
                second.load_state_dict(state)

    first = EarlyStopping("score", patience=3, mode="max", restore_best=True)
    state: dict[str, object] = {}

    class Save(Callback):
        def after_epoch(self, loop: Loop) -> None:
            state.update(first.state_dict())

    fitted(first, [7, 6, 5], Save())
    second = EarlyStopping("score", patience=3, mode="max", restore_best=True)
    loop = fitted(second, [4, 3], Load())
    assert (
        loop.stop_reason
        == "score has not become better for 3 epochs: best 7 in epoch 0, whose weights are restored"
    )
    best = state["best_state"]
    assert isinstance(best, dict)
    assert all(torch.equal(value, best[name]) for name, value in loop.model.state_dict().items())


def test_a_fit_stopped_before_the_value_is_measured_is_no_error() -> None:
    class Stop(Callback):
        def after_step(self, loop: Loop) -> None:
            raise StopFit("enough")

    loop = fitted(EarlyStopping("score", mode="max"), [1, 2], Stop())
    assert loop.stop_reason == "enough"


def test_bad_settings_are_refused() -> None:
    with pytest.raises(UsageError, match=r"patience=0: .* at least 1"):
        EarlyStopping(patience=0)
    loop = tiny_loop()
    before = weights(loop.model)
    with pytest.raises(UsageError, match="no value 'valid_lost': did you mean 'valid_loss'"):
        loop.fit(1, [EarlyStopping("valid_lost", mode="min")])
    assert weights(loop.model) == before
