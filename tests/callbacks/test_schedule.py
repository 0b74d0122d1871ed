from __future__ import annotations

from typing import Any

import pytest
import torch

from actograph.callbacks.schedule import ScheduleParams
from actograph.testing.callbacks import tiny_loop
from actograph.train.events import Callback
from actograph.train.loop import Loop
from actograph.train.momentum import momentum_of, set_momentum
from actograph.train.schedules import constant, linear
from actograph.train.state import SkipStep, StopFit
from actograph.train.step_accumulate import Accumulate


class Rates(Callback):
    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def before_step(self, loop: Loop) -> None:
        group = loop.optimizer.param_groups[0]
        self.seen.append((group["lr"], group["momentum"]))


def test_rates_follow_the_schedules_and_come_back() -> None:
    loop, rates = tiny_loop(), Rates()
    loop.fit(2, [ScheduleParams(lr=linear(0.0, 0.6), momentum=linear(0.3, 0.9)), rates])
    assert [lr for lr, _ in rates.seen] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert [momentum for _, momentum in rates.seen] == pytest.approx([0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    assert loop.optimizer.param_groups[0]["lr"] == 0.1
    assert loop.optimizer.param_groups[0]["momentum"] == 0.9


def test_what_has_no_schedule_is_left_alone() -> None:
    loop, rates = tiny_loop(), Rates()
    loop.fit(1, [ScheduleParams(lr=constant(0.5)), rates])
    assert rates.seen == [(0.5, 0.9)] * 3
    rates.seen.clear()
    loop.fit(1, [ScheduleParams(momentum=constant(0.5)), rates])
    assert rates.seen == [(0.1, 0.5)] * 3


class SkipAt(Callback):
    """Skips the step of some batches of the first epoch."""

    def __init__(self, event: str, *batches: int) -> None:
        self.event, self.batches = event, batches

    def after_backward(self, loop: Loop) -> None:
        self.at("after_backward", loop)

    def before_step(self, loop: Loop) -> None:
        self.at("before_step", loop)

    def at(self, event: str, loop: Loop) -> None:
        if event == self.event and loop.progress.epoch == 0 and loop.progress.batch in self.batches:
            raise SkipStep


@pytest.mark.parametrize("event", ["after_backward", "before_step"])
def test_a_skipped_step_does_not_advance_the_schedule(event: str) -> None:
    seen: list[float] = []

    class AtBatch(Callback):
        def after_batch(self, loop: Loop) -> None:
            if loop.progress.phase == "train":
                seen.append(loop.optimizer.param_groups[0]["lr"])

    loop = tiny_loop()
    loop.fit(2, [ScheduleParams(lr=linear(0.0, 0.6)), AtBatch(), SkipAt(event, 0, 1)])
    assert seen == pytest.approx([0.0, 0.0, 0.0, 0.1, 0.2, 0.3])
    assert loop.progress.fraction == 1.0
    assert loop.progress.schedule_fraction == pytest.approx(4 / 6)
    seen.clear()
    loop.fit(2, [ScheduleParams(lr=linear(0.0, 0.6)), AtBatch()])
    assert seen == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])


def test_rates_hold_over_a_window_and_a_skipped_window_does_not_advance_them() -> None:
    """Windows of two batches and one: the step of the second window sees what lies behind when it began."""
    loop, rates = tiny_loop(), Rates()
    loop.step = Accumulate(loop.step, loop.optimizer, 2)
    loop.fit(2, [ScheduleParams(lr=linear(0.0, 0.6)), rates])
    assert [lr for lr, _ in rates.seen] == pytest.approx([0.0, 0.2, 0.3, 0.5])
    rates.seen.clear()
    loop.fit(2, [ScheduleParams(lr=linear(0.0, 0.6)), rates, SkipAt("before_step", 1)])
    assert [lr for lr, _ in rates.seen] == pytest.approx([0.0, 0.0, 0.1, 0.3])


def test_a_fit_stopped_within_a_window_leaves_nothing_of_it_to_the_next() -> None:
    class Stop(Callback):
        def after_batch(self, loop: Loop) -> None:
            raise StopFit("enough")

    loop, rates = tiny_loop(), Rates()
    loop.step = Accumulate(loop.step, loop.optimizer, 2)
    loop.fit(2, [Stop()])
    loop.fit(2, [ScheduleParams(lr=linear(0.6, 0.0)), rates])
    assert [lr for lr, _ in rates.seen] == pytest.approx([0.6, 0.4, 0.3, 0.1])


def test_ratios_may_be_given() -> None:
    loop = tiny_loop()
    first, *rest = loop.model.parameters()
    loop.optimizer = torch.optim.SGD([{"params": [first]}, {"params": rest}], lr=0.1, momentum=0.9)
    seen: list[list[float]] = []

    class Both(Callback):
        def after_loss(self, loop: Loop) -> None:
            seen.append([group["lr"] for group in loop.optimizer.param_groups])

    loop.fit(1, [ScheduleParams(lr=constant(0.4), ratios=(0.25, 1.0)), Both()])
    assert seen == [[0.1, 0.4]] * len(seen)
    assert [group["lr"] for group in loop.optimizer.param_groups] == [0.1, 0.1]


def test_momentum_has_two_names_and_may_be_off() -> None:
    groups: list[dict[str, Any]] = [{"momentum": 0.9}, {"betas": (0.9, 0.99)}, {"momentum": 0}, {}]
    assert [momentum_of(group) for group in groups] == [0.9, 0.9, None, None]
    for group in groups:
        set_momentum(group, 0.5)
    assert groups == [{"momentum": 0.5}, {"betas": (0.5, 0.99)}, {"momentum": 0}, {}]
