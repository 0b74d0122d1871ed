"""Every callback of ours passes the public checks, and the checks catch what they are for."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from actograph.callbacks.activation_stats import ActivationStats
from actograph.callbacks.averaged_weights import AveragedWeights
from actograph.callbacks.csv_log import CSVLog
from actograph.callbacks.early_stopping import EarlyStopping
from actograph.callbacks.gradient_stats import GradientStats
from actograph.callbacks.guard import Guard
from actograph.callbacks.mixing import MixUp
from actograph.callbacks.progress import Progress
from actograph.callbacks.recorder import Recorder
from actograph.callbacks.schedule import ScheduleParams
from actograph.testing import callbacks as checks
from actograph.testing.callbacks import CALLBACK_CHECKS, CallbackCheck, MakeCallback
from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop
from actograph.train.schedules import cosine_peak, one_cycle

OURS: dict[str, MakeCallback] = {
    "activation stats": lambda: ActivationStats(out=":memory:"),
    "activation stats with gradients": lambda: ActivationStats(out=":memory:", grad=True),
    "gradient stats": lambda: GradientStats(out=":memory:"),
    "recorder": Recorder,
    "progress": lambda: Progress(Console(file=io.StringIO())),
    "progress on a terminal": lambda: Progress(Console(file=io.StringIO(), force_terminal=True)),
    "one cycle": lambda: ScheduleParams(one_cycle(0.1), cosine_peak(0.95, 0.85, 0.95)),
    "early stopping": lambda: EarlyStopping("train_loss", patience=1, restore_best=True),
    "averaged weights": AveragedWeights,
    "averaged weights let go": lambda: AveragedWeights(None, keep=False),
    "mixup": MixUp,
    "csv log": lambda: CSVLog("log.csv"),
    "guard": Guard,
}


@pytest.mark.parametrize("check", CALLBACK_CHECKS)
@pytest.mark.parametrize("name", OURS)
def test_our_callbacks_pass(
    name: str, check: CallbackCheck, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check(OURS[name])


class LeavesHook(Callback):
    def before_fit(self, loop: Loop) -> None:
        self.handle = loop.model.register_forward_hook(lambda *given: None)

    def after_fit(self, loop: Loop) -> None:
        self.handle.remove()  # too late after an error


class LeavesRate(Callback):
    def before_fit(self, loop: Loop) -> None:
        loop.optimizer.param_groups[0]["lr"] = 0.5


class LeavesOutput(Callback):
    def before_fit(self, loop: Loop) -> None:
        self.before, sys.stdout = sys.stdout, io.StringIO()

    def after_fit(self, loop: Loop) -> None:
        sys.stdout = self.before


class DrawsRandomNumbers(Callback):
    stage = Stage.MEASURE

    def after_step(self, loop: Loop) -> None:
        torch.rand(1)


class ChangesWeights(Callback):
    stage = Stage.REPORT

    def after_step(self, loop: Loop) -> None:
        with torch.no_grad():
            next(loop.model.parameters()).add_(1)


class NeedsItsStart(Callback):
    def before_fit(self, loop: Loop) -> None:
        self.start = 1

    def cleanup_fit(self, loop: Loop) -> None:
        del self.start


class NeedsLoss(Callback):
    def after_batch(self, loop: Loop) -> None:
        loop.batch.loss.detach()


class OnlyOnce(Callback):
    used = False

    def before_fit(self, loop: Loop) -> None:
        assert not self.used
        self.used = True


class Unpicklable(Callback):
    def before_fit(self, loop: Loop) -> None:
        loop.model.note = lambda: None  # type: ignore[assignment]


class TrainsInValidation(Callback):
    def after_phase(self, loop: Loop) -> None:
        with torch.no_grad():
            next(loop.model.parameters()).add_(1)


class HidesErrors(Callback):
    def cleanup_fit(self, loop: Loop) -> None:
        if sys.exc_info()[0] is not None or loop.progress.num_epochs:
            raise ValueError("hides what was")


SICK: list[tuple[type[Callback], CallbackCheck]] = [
    (LeavesHook, checks.check_it_leaves_no_trace),
    (LeavesRate, checks.check_it_leaves_no_trace),
    (LeavesOutput, checks.check_it_leaves_no_trace),
    (DrawsRandomNumbers, checks.check_it_changes_nothing_as_an_observer),
    (ChangesWeights, checks.check_it_changes_nothing_as_an_observer),
    (NeedsItsStart, checks.check_its_cleanup_is_harmless),
    (NeedsLoss, checks.check_it_bears_skipped_batches),
    (OnlyOnce, checks.check_it_fits_twice),
    (Unpicklable, checks.check_the_model_can_be_copied_and_saved),
    (TrainsInValidation, checks.check_it_bears_validation_alone),
    (HidesErrors, checks.check_it_swallows_no_error),
]


@pytest.mark.parametrize(("cls", "check"), SICK)
def test_each_check_catches_what_it_is_for(cls: type[Callback], check: CallbackCheck) -> None:
    output = sys.stdout
    try:
        with pytest.raises(Exception, match=r"."):
            check(cls)
    finally:
        sys.stdout = output


def test_every_check_has_a_callback_that_it_catches() -> None:
    assert {check for _, check in SICK} == set(CALLBACK_CHECKS)


def test_a_healthy_callback_passes_all_checks() -> None:
    class Healthy(Callback):
        def after_step(self, loop: Loop) -> None:
            with contextlib.suppress(ValueError):
                raise ValueError

    checks.check_callback(Healthy)
