from __future__ import annotations

from typing import Any

import pytest

from actograph.callbacks.schedule import ScheduleParams, rate_ratios
from actograph.testing.callbacks import tiny_loop
from actograph.train.events import Callback
from actograph.train.loop import Loop
from actograph.train.momentum import momentum_of, set_momentum
from actograph.train.schedules import constant, linear


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


def test_rates_of_zero_have_no_ratio() -> None:
    assert rate_ratios([{"lr": 0.0}, {"lr": 0.0}]) == [1.0, 1.0]
    assert rate_ratios([{"lr": 0.0}, {"lr": 2.0}]) == [0.0, 1.0]


def test_momentum_has_two_names_and_may_be_off() -> None:
    groups: list[dict[str, Any]] = [{"momentum": 0.9}, {"betas": (0.9, 0.99)}, {"momentum": 0}, {}]
    assert [momentum_of(group) for group in groups] == [0.9, 0.9, None, None]
    for group in groups:
        set_momentum(group, 0.5)
    assert groups == [{"momentum": 0.5}, {"betas": (0.5, 0.99)}, {"momentum": 0}, {}]
