from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import count
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from actograph.callbacks.recorder import Recorder
from actograph.testing.callbacks import tiny_loop
from actograph.train.events import Callback
from actograph.train.loop import Loop
from actograph.train.state import SkipBatch
from actograph.train.step import Supervised


def ticking() -> Callable[[], float]:
    ticks = count()
    return lambda: float(next(ticks))


def test_every_training_batch_has_a_loss_a_rate_and_a_momentum() -> None:
    recorder, loop = Recorder(clock=ticking()), tiny_loop()
    seen: list[float] = []

    class Items(Callback):
        def after_step(self, loop: Loop) -> None:
            seen.append(loop.batch.loss.item())

    loop.fit(2, [recorder, Items()])
    assert recorder.losses.tolist() == seen
    assert recorder.steps.tolist() == list(range(6))
    assert recorder.lrs.tolist() == [0.1] * 6
    assert recorder.momentums.tolist() == [0.9] * 6
    assert recorder.steps.dtype == np.int64


def test_every_epoch_has_a_row() -> None:
    recorder, loop = Recorder(clock=ticking()), tiny_loop()
    loop.fit(2, [recorder])
    assert [list(row) for row in recorder.epochs] == [
        ["epoch", "step", "train_loss", "valid_loss", "time_s"]
    ] * 2
    assert [(row["epoch"], row["step"], row["time_s"]) for row in recorder.epochs] == [
        (0, 3, 1.0),
        (1, 6, 1.0),
    ]
    assert recorder.epochs[1]["valid_loss"] == loop.values["valid_loss"]


def test_losses_are_fetched_in_blocks_and_are_all_there_when_read() -> None:
    recorder, loop = Recorder(), tiny_loop()
    loop.valid_loader = None
    fetched: list[int] = []

    class Spy(Callback):
        def after_batch(self, loop: Loop) -> None:
            fetched.append(len(recorder._losses))

    loop.fit(50, [recorder, Spy()])
    assert sorted(set(fetched)) == [0, 64, 128]
    assert len(recorder.losses) == len(recorder.lrs) == 150
    assert recorder._pending == []


def test_waiting_losses_hold_no_graph() -> None:
    recorder = Recorder()

    class Spy(Callback):
        def after_batch(self, loop: Loop) -> None:
            assert recorder._pending
            assert not any(loss.requires_grad for loss in recorder._pending)

    tiny_loop(is_valid=False).fit(1, [recorder, Spy()])


def test_memory_per_step_is_bounded() -> None:
    recorder, loop = Recorder(), tiny_loop(is_valid=False)
    loop.fit(200, [recorder])
    num_bytes = sum(
        sys.getsizeof(part)
        for part in (recorder._steps, recorder._lrs, recorder._momentums, recorder._losses)
    )
    assert num_bytes / 600 < 45  # four numbers of 8 bytes and the arrays' room to grow


def test_a_skipped_batch_before_its_loss_is_not_recorded() -> None:
    class Skip(Callback):
        def before_batch(self, loop: Loop) -> None:
            raise SkipBatch

    recorder = Recorder()
    tiny_loop().fit(1, [recorder, Skip()])
    assert len(recorder.steps) == 0
    assert set(recorder.epochs[0]) == {"epoch", "step", "time_s"}


def test_no_tensor_is_kept_after_an_error() -> None:
    class Fail(Callback):
        def after_step(self, loop: Loop) -> None:
            raise OSError("disk")

    recorder = Recorder()
    with pytest.raises(OSError, match="disk"):
        tiny_loop().fit(1, [recorder, Fail()])
    assert recorder._pending == []
    assert len(recorder.losses) == 1


def test_the_plots_get_the_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    figures = ModuleType("actograph.show.figures")
    figures.loss_curve = figures.schedule_curves = lambda *given: calls.append(given)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "actograph.show", SimpleNamespace(figures=figures))
    recorder = Recorder()
    tiny_loop().fit(1, [recorder])
    recorder.plot_loss()
    recorder.plot_sched()
    assert calls[0][1].tolist() == recorder.losses.tolist()
    assert list(calls[1][1]) == ["learning rate", "momentum"]


def test_an_optimizer_without_momentum_is_recorded_as_nan() -> None:
    recorder, loop = Recorder(), tiny_loop()
    loop.optimizer.param_groups[0]["momentum"] = 0
    loop.fit(1, [recorder])
    assert np.isnan(recorder.momentums).all()


def test_adams_beta1_is_recorded_as_momentum() -> None:
    recorder, loop = Recorder(), tiny_loop()
    optimizer = torch.optim.Adam(loop.model.parameters(), betas=(0.8, 0.99))
    loop.optimizer, loop.step = optimizer, Supervised(loop.model, nn.functional.cross_entropy, optimizer)
    loop.fit(1, [recorder])
    assert recorder.momentums.tolist() == [0.8] * 3
