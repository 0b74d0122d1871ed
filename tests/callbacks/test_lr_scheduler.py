from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from actograph.callbacks.lr_scheduler import LRScheduler, SchedulerFactory
from actograph.callbacks.schedule import ScheduleParams
from actograph.errors import UsageError
from actograph.testing.callbacks import CALLBACK_CHECKS, CallbackCheck, tiny_loop
from actograph.train.events import Callback
from actograph.train.loop import Loop
from actograph.train.state import SkipStep

NUM_BATCHES = 3  # of tiny_loop


class Rates(Callback):
    """Keeps rate and momentum of each step."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def before_step(self, loop: Loop) -> None:
        group = loop.optimizer.param_groups[0]
        self.seen.append((group["lr"], group["momentum"]))


def one_cycle(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    return lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=2 * NUM_BATCHES)


def steps(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    return lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)


def warm_then_falling(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    parts: list[lr_scheduler.LRScheduler] = [
        lr_scheduler.LinearLR(optimizer, total_iters=2),
        lr_scheduler.ExponentialLR(optimizer, gamma=0.7),
    ]
    return lr_scheduler.SequentialLR(optimizer, parts, milestones=[2])


def by_hand(factory: SchedulerFactory, per: str) -> list[tuple[float, float]]:
    """Return the rates of a loop of a user's own over two epochs."""
    optimizer = tiny_loop().optimizer
    scheduler, group, seen = factory(optimizer), optimizer.param_groups[0], []
    for _ in range(2):
        for _ in range(NUM_BATCHES):
            seen.append((group["lr"], group["momentum"]))
            optimizer.step()
            if per == "step":
                scheduler.step()
        if per == "epoch":
            scheduler.step()
    return seen


@pytest.mark.parametrize("factory", [one_cycle, steps, warm_then_falling])
@pytest.mark.parametrize("per", ["step", "epoch"])
def test_torchs_schedulers_give_the_rates_of_a_hand_written_loop(factory: SchedulerFactory, per: Any) -> None:
    loop, rates = tiny_loop(), Rates()
    loop.fit(2, [LRScheduler(factory, per), rates])
    assert rates.seen == by_hand(factory, per)
    assert len(set(rates.seen)) > 1


@pytest.mark.parametrize("check", CALLBACK_CHECKS)
@pytest.mark.parametrize("per", ["step", "epoch"])
def test_it_passes_the_checks_of_every_callback(check: CallbackCheck, per: Any) -> None:
    check(lambda: LRScheduler(steps, per))


def test_a_rate_that_is_a_tensor_comes_back() -> None:
    loop = tiny_loop()
    loop.optimizer.param_groups[0]["lr"] = torch.tensor(0.25)  # torch's schedulers change it in place
    loop.fit(2, [LRScheduler(steps, "step")])
    assert loop.optimizer.param_groups[0]["lr"] == 0.25


def test_a_second_fit_begins_with_the_optimizers_own_settings_again() -> None:
    loop, rates, scheduler = tiny_loop(), Rates(), LRScheduler(one_cycle, "step")
    keys = set(loop.optimizer.param_groups[0])
    loop.fit(2, [scheduler, rates])
    group = loop.optimizer.param_groups[0]
    assert (group["lr"], group["momentum"], set(group)) == (0.1, 0.9, keys)
    group["lr"] = 0.2
    rates.seen.clear()
    loop.fit(2, [LRScheduler(steps, "epoch"), rates])
    assert [lr for lr, _ in rates.seen] == [0.2] * 3 + [0.1] * 3


def test_a_skipped_step_does_not_advance_the_scheduler() -> None:
    class SkipSecond(Callback):
        def before_step(self, loop: Loop) -> None:
            if loop.progress.batch == 1:
                raise SkipStep

    loop, rates = tiny_loop(), Rates()
    loop.fit(2, [rates, SkipSecond(), LRScheduler(steps, "step")])
    assert [lr for lr, _ in rates.seen] == [0.1, 0.05, 0.05, 0.025, 0.0125, 0.0125]


def test_an_epoch_without_a_step_does_not_advance_the_scheduler() -> None:
    class SkipFirstEpoch(Callback):
        def before_step(self, loop: Loop) -> None:
            if loop.progress.epoch == 0:
                raise SkipStep

    loop, rates = tiny_loop(), Rates()
    loop.fit(3, [rates, SkipFirstEpoch(), LRScheduler(steps, "epoch")])
    assert [lr for lr, _ in rates.seen][::NUM_BATCHES] == [0.1, 0.1, 0.05]


@pytest.mark.parametrize("is_valid", [True, False])
def test_a_plateau_is_looked_for_in_the_epochs_value(is_valid: bool) -> None:
    seen: list[float] = []

    class Plateau(lr_scheduler.ReduceLROnPlateau):
        def step(self, metrics: Any, epoch: int | None = None) -> None:  # type: ignore[override]
            seen.append(metrics)
            super().step(1.0)

    loop, rates = tiny_loop(is_valid=is_valid), Rates()
    loop.fit(3, [LRScheduler(lambda optimizer: Plateau(optimizer, factor=0.5, patience=0)), rates])
    assert [lr for lr, _ in rates.seen][::NUM_BATCHES] == [0.1, 0.1, 0.05]
    assert seen[-1] == loop.values["valid_loss" if is_valid else "train_loss"]


def plateau(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    return lr_scheduler.ReduceLROnPlateau(optimizer)


@pytest.mark.parametrize(
    ("callback", "words"),
    [
        (lambda: LRScheduler(steps, "batch"), '"step" or "epoch", not \'batch\''),  # type: ignore[arg-type]
        (lambda: LRScheduler(plateau, "step"), 'give per="epoch"'),
        (lambda: LRScheduler(plateau, monitor="valid_los"), "did you mean 'valid_loss'"),
        (lambda: LRScheduler(steps, monitor="valid_loss"), "StepLR looks at no value: leave out monitor"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_batch(callback: Any, words: str) -> None:
    loop = tiny_loop()
    with pytest.raises(UsageError, match=words):
        loop.fit(1, [callback()])
    assert loop.progress.step == 0
    loop.fit(1)


def test_a_scheduler_and_a_schedule_in_one_fit_are_refused() -> None:
    with pytest.raises(
        UsageError, match=r"2 callbacks of class RateCallback in one fit \(LRScheduler, ScheduleParams\)"
    ):
        tiny_loop().fit(1, [LRScheduler(steps), ScheduleParams()])


def test_a_scheduler_that_runs_out_of_steps_names_the_callback() -> None:
    with pytest.raises(ValueError, match=r"total number of steps|total steps") as error:
        tiny_loop().fit(3, [LRScheduler(one_cycle, "step")])
    assert "the callback lr_scheduler in after_step" in "\n".join(error.value.__notes__)


class Keep(Callback):
    """Keeps the state of a scheduler after each epoch; begins with one given."""

    def __init__(self, scheduler: LRScheduler, state: dict[str, Any] | None = None) -> None:
        self.scheduler, self.state = scheduler, state

    def before_epoch(self, loop: Loop) -> None:
        if self.state is not None:
            self.scheduler.load_state_dict(self.state)

    def after_epoch(self, loop: Loop) -> None:
        self.state = self.scheduler.state_dict()


def test_its_state_is_that_of_the_scheduler() -> None:
    scheduler = LRScheduler(steps, "step")
    assert scheduler.state_dict() == {}
    scheduler.load_state_dict({})
    first = Keep(scheduler)
    tiny_loop().fit(1, [scheduler, first])
    assert first.state is not None
    assert first.state["scheduler"]["last_epoch"] == NUM_BATCHES
    other = LRScheduler(steps, "step")
    second = Keep(other, first.state)
    tiny_loop().fit(1, [other, second])
    assert second.state is not None
    assert second.state["scheduler"]["last_epoch"] == 2 * NUM_BATCHES
    assert other.state_dict() == {}


def test_validation_alone_makes_no_scheduler() -> None:
    loop = tiny_loop()
    loop.validate([LRScheduler(one_cycle, "step")])
    assert "max_lr" not in loop.optimizer.param_groups[0]
