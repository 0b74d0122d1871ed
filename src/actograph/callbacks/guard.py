"""`Guard`: end or warn about a fit that goes wrong: a loss that is no number, or what the rules find in the live run.

No idea of what is wrong: the rules know, and other callbacks record what they look at.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

from actograph.callbacks.run_callback import RunCallback
from actograph.errors import UsageError
from actograph.rules.catalog import DEFAULT_RULES
from actograph.rules.diagnose import diagnose
from actograph.rules.rule import Diagnosis, Finding, Rule, Severity
from actograph.show import words
from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop
from actograph.train.state import Phase, StopFit
from actograph.train.waiting import MAX_WAITING, Waiting

NonFinitePolicy: TypeAlias = Literal["stop", "warn", "ignore"]
StopOn: TypeAlias = Literal["error", "warning"]

Place: TypeAlias = tuple[int, int, int]  # optimizer steps made before, epoch, batch

FIRST_CHECK = 100  # steps; before that the rules have little to go by
GROWTH = 2.0  # in the middle of an epoch, between the step of one diagnosis and that of the next
EPOCH_GROWTH = 1.1  # at the end of an epoch: with many short epochs, not after each


class Guard(Callback):
    """Watch the training loss, and the run that the fit's `ActivationStats` or `GradientStats` records.

    **Loss.** The first loss of the fit that is NaN or infinite ends it before the weights are touched ("stop"), or gives
    one warning. On the CPU every loss is looked at once; on an accelerator, which would have to be waited for, 64 together
    and at the end of the phase, so that up to 63 updates may follow the one that is named.

    **Diagnosis.** Where the fit records a run, the rules judge it as it is: at steps 100, 200, 400, ..., at the
    ends of epochs (on many short ones not after each), and when the fit ends; or once in ``every`` steps. Each cause gives
    one warning; one of ``stop_on`` or worse ends the fit with it as the reason. ``diagnosis`` has the latest. What is
    judged is the run so far: a loss that goes up counts, also where it would have come down again.

    Args:
        non_finite: "stop", "warn" or "ignore".
        stop_on: severity that ends the fit, "error" or "warning"; None: only warn. Needs a recorded run.
        every: steps between two diagnoses; None: see above. Needs a recorded run.
        rules: what to look for; () leaves the diagnosis out.

    """

    stage = Stage.MEASURE
    unique = True

    def __init__(
        self,
        non_finite: NonFinitePolicy = "stop",
        stop_on: StopOn | None = None,
        every: int | None = None,
        rules: Sequence[Rule] = DEFAULT_RULES,
    ) -> None:
        if non_finite not in get_args(NonFinitePolicy):
            raise UsageError(f"non_finite={non_finite!r}: choose 'stop', 'warn' or 'ignore'")
        if stop_on is not None and stop_on not in get_args(StopOn):
            raise UsageError(f"stop_on={stop_on!r}: choose 'error', 'warning' or None")
        if every is not None and every < 1:
            raise UsageError(f"every={every}: give the steps between two diagnoses, at least 1")
        self.non_finite = non_finite
        self.stop_on = stop_on
        self.every = every
        self.rules = tuple(rules)
        self.diagnosis = Diagnosis()  # the latest of this fit
        self._run: RunCallback | None = None  # of this fit, with the rows to judge
        self._num_steps = 0  # of this fit
        self._checked_at = 0  # the step of this fit after which the latest diagnosis was made
        self._warned: set[str] = set()  # see `_key`
        self._is_loss_bad = False
        self._reads_at_once = True  # each loss: it is on the host
        self._waiting = Waiting[Place]()  # losses on their device

    def before_fit(self, loop: Loop) -> None:
        """Look for the run that the fit records; refuse settings that need one where there is none."""
        if not loop.progress.num_epochs:
            return
        found = (callback for callback in loop.callbacks if isinstance(callback, RunCallback))
        self._run = next(found, None) if self.rules else None
        if self._run is None and (self.stop_on is not None or self.every is not None):
            setting = f"stop_on={self.stop_on!r}" if self.stop_on is not None else f"every={self.every}"
            raise UsageError(
                f"Guard({setting}) judges what ActivationStats records, and this fit has "
                f"{'no rules' if not self.rules else 'none'}: give the fit an ActivationStats and Guard its rules"
            )
        self.diagnosis = Diagnosis()
        self._num_steps = self._checked_at = 0
        self._warned = set()
        self._is_loss_bad = False
        self._reads_at_once = loop.device.type == "cpu"

    def after_loss(self, loop: Loop) -> None:
        """Look at the loss, or put it where it waits for others."""
        progress, loss = loop.progress, loop.batch.loss
        if self.non_finite == "ignore" or self._is_loss_bad or progress.phase is not Phase.TRAIN:
            return
        where = progress.step, progress.epoch, progress.batch
        if self._reads_at_once:
            self._judge(where, loss.item())  # no sync: it is on the host
            return
        self._waiting.add(where, loss)
        if len(self._waiting) >= MAX_WAITING:
            self._look_at_losses()

    def after_step(self, loop: Loop) -> None:
        """Diagnose, if it is time."""
        self._num_steps += 1
        if self.every is not None:
            is_due = self._num_steps % self.every == 0
        else:
            is_due = self._num_steps >= max(FIRST_CHECK, GROWTH * self._checked_at)
        if is_due:
            self._diagnose()

    def after_phase(self, loop: Loop) -> None:
        """Look at the losses that are left."""
        self._look_at_losses()

    def after_epoch(self, loop: Loop) -> None:
        """Diagnose, if it is time."""
        if self.every is None and self._num_steps >= EPOCH_GROWTH * self._checked_at:
            self._diagnose()

    def after_fit(self, loop: Loop) -> None:
        """Diagnose what the fit has come to."""
        if self._num_steps > self._checked_at:
            self._diagnose()

    def cleanup_fit(self, loop: Loop) -> None:
        """Let go of the losses and of the other callback."""
        self._waiting = Waiting[Place]()
        self._run = None

    def state_dict(self) -> dict[str, Any]:
        """Return when it last looked and what it has said."""
        return {
            "num_steps": self._num_steps,
            "checked_at": self._checked_at,
            "warned": sorted(self._warned),
            "is_loss_bad": self._is_loss_bad,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        self._num_steps, self._checked_at = state["num_steps"], state["checked_at"]
        self._warned = set(state["warned"])
        self._is_loss_bad = state["is_loss_bad"]

    def _look_at_losses(self) -> None:
        for where, losses in self._waiting.take():
            self._judge(where, float(losses[0]))

    def _judge(self, where: Place, loss: float) -> None:
        if self._is_loss_bad or math.isfinite(loss):
            return
        self._is_loss_bad = True
        step, epoch, batch = where
        self._tell(f"the loss is {loss} at step {step} (epoch {epoch}, batch {batch})")

    def _tell(self, what: str) -> None:
        if self.non_finite == "stop":
            raise StopFit(what)
        warnings.warn(f"{what}; Guard(non_finite='stop') ends the fit there", RuntimeWarning, stacklevel=2)

    def _diagnose(self) -> None:
        if self._run is None:
            return
        self._checked_at = self._num_steps
        self.diagnosis = diagnose(self._run.view, self.rules)
        findings = self.diagnosis.at_least(Severity.WARNING)
        ending = () if self.stop_on is None else self.diagnosis.at_least(Severity(self.stop_on))
        for finding in findings:
            if finding not in ending[:1] and _key(finding) not in self._warned:
                warnings.warn(in_words(finding), RuntimeWarning, stacklevel=2)
            self._warned.add(_key(finding))
        if ending:
            raise StopFit(in_words(ending[0]))


def in_words(finding: Finding) -> str:
    """Return a finding in a few sentences: what, where, since when, and what to do first."""
    where = f" in {finding.layer}" if finding.layer else ""
    remedy = f" First remedy: {words.remedy(finding.remedies[0])}." if finding.remedies else ""
    return f"{finding.rule}{where}, {words.when(finding)}: {finding.message}{remedy}"


def _key(finding: Finding) -> str:
    return f"{finding.rule} {finding.layer or ''}"
