"""`RunCallback`: what callbacks that record into a run have in common; those of one fit share one run.

No idea of what is measured: `Recording` has that. This only says when what happens.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from actograph.errors import UsageError
from actograph.recording.facts.loss_call import loss_call_of
from actograph.recording.new_run import free_directory, new_run
from actograph.recording.pacing import check_budget
from actograph.recording.recording import Recording, check_unattached, status_after
from actograph.runlog.store import RunWriter
from actograph.runlog.view import RunView
from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop
from actograph.train.state import Phase
from actograph.train.step import Supervised
from actograph.train.step_clip import Clip
from actograph.train.step_precision import MixedPrecision
from actograph.train.step_wrapper import find_step


class RunCallback(Callback):
    """Begin a run and record into it, or join the run of another callback of the fit that leads.

    Several fits go on in one run, told apart by their events.
    """

    stage = Stage.MEASURE
    leads: ClassVar[bool]  # whether others join this one
    records_parameters: ClassVar[bool]

    def __init__(
        self,
        budget: float | None,
        out: str | Path | None,
        name: str | None,
        config: Mapping[str, Any] | None,
    ) -> None:
        self.budget = check_budget(budget)
        self.out = out
        self.name = name
        self.config = dict(config or {})
        self._leader: RunCallback = self
        self._recording: Recording | None = None
        self._num_fits = 0
        self._num_skipped = 0  # steps that were left out, up to the last batch
        self._saved: dict[str, Any] | None = None  # a recording to go on with, from the next fit on
        self._is_fitting = False  # and leads

    @property
    def recording(self) -> Recording:
        """The recording of all fits so far; a UsageError before the first one."""
        recording = self._leader._recording
        if recording is None:
            raise UsageError(f"nothing is recorded yet: {type(self).__name__} begins with the first fit")
        return recording

    @property
    def view(self) -> RunView:
        """The run as it is now."""
        return self.recording.view()

    def before_fit(self, loop: Loop) -> None:
        """Begin the run, or go on with it; ``validate()`` alone records nothing."""
        if not loop.progress.num_epochs:
            return
        together = [callback for callback in loop.callbacks if isinstance(callback, RunCallback)]
        self._leader = next((callback for callback in together if callback.leads), self)
        if self._leader is not self:
            self._check_joined()
            return
        is_resumed = self._saved is not None or loop.resume is not None
        if self._recording is None or is_resumed:
            self._recording = self._begin(loop, free_directory(self.out) if is_resumed else self.out)
        self._is_fitting = True
        self._num_fits += 1
        self._recording.attach(loop.model)
        with_parameters = any(callback.records_parameters for callback in together)
        self._recording.optimizer(loop.optimizer, gradients=with_parameters)
        if self._saved is not None:
            saved, self._saved = self._saved, None
            self._recording.load_state_dict(saved)

    def before_phase(self, loop: Loop) -> None:
        """Tell training from validation."""
        if self._is_fitting:
            progress = loop.progress
            self.recording.phase(str(progress.phase), fit=self._num_fits - 1, epoch=progress.epoch)

    def after_loss(self, loop: Loop) -> None:
        """Note the training loss, and what came of a batch in either phase."""
        if not self._is_fitting:
            return
        self._note_targets(loop)
        if loop.progress.phase is Phase.TRAIN:
            self.recording.loss(loop.batch.loss)
            self.recording.before_backward(loop.batch.loss)

    def before_batch(self, loop: Loop) -> None:
        """Count the steps that were left out so far."""
        self._num_skipped = loop.progress.num_skipped_steps

    def after_batch(self, loop: Loop) -> None:
        """Note whether mixed precision has left out an update."""
        precision = find_step(loop.step, MixedPrecision) if self._is_fitting else None
        if precision is not None and precision.scaler.is_enabled():
            is_skipped = loop.progress.num_skipped_steps > self._num_skipped
            scale = (
                precision.scale if is_skipped else 0.0
            )  # sync: the scaler has waited for the device already
            self.recording.scaled_step(loop.optimizer, scale, has_moved=not is_skipped)

    def before_step(self, loop: Loop) -> None:
        """Note at what the gradients are going to be clipped, and measure them before."""
        clip = find_step(loop.step, Clip) if self._is_fitting else None
        if clip is not None:
            if clip.norm is not None:
                self.recording.clips("norm", clip.norm)
            elif clip.value is not None:
                self.recording.clips("value", clip.value)
            self.recording.gradients()

    def after_phase(self, loop: Loop) -> None:
        """Note what the epoch was worth."""
        if self._is_fitting and loop.progress.phase is Phase.VALID:
            values = loop.values
            metrics = {key: value for key, value in values.items() if key not in ("train_loss", "valid_loss")}
            self.recording.step(
                **({"loss": values["valid_loss"]} if "valid_loss" in values else {}), **metrics
            )

    def cleanup_fit(self, loop: Loop) -> None:
        """Take the hooks off and store the rest, however the fit ended."""
        if self._is_fitting:
            self._is_fitting = False
            stopped = "stopped" if loop.stop_reason is not None else None
            self.recording.close(stopped or status_after(sys.exc_info()[0]))

    def state_dict(self) -> dict[str, Any]:
        """Return the run so far, all of it, and its number of fits; nothing for one that has joined another's run."""
        if self._recording is None:
            return {}
        return {"num_fits": self._num_fits, "recording": self._recording.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the run that was saved, in a directory of its own: what lies in that run's stays as it is."""
        if not state:
            return
        self._num_fits = state["num_fits"]
        if self._is_fitting:
            self.recording.load_state_dict(state["recording"])
        else:
            self._saved = state["recording"]

    @abstractmethod
    def _record_into(self, writer: RunWriter) -> Recording:
        """Return a recording of what this callback is for."""

    def _note_targets(self, loop: Loop) -> None:
        plain = find_step(loop.step, Supervised)
        call = (
            None
            if plain is None
            else loss_call_of(plain.loss_func, loop.batch.pred, loop.batch.y, loop.batch.loss)
        )
        if call is not None:
            self.recording.loss_call(call)

    def _check_joined(self) -> None:
        """Refuse settings that would be ignored."""
        if self.out is not None or self.name is not None or self.config:
            leader, own = type(self._leader).__name__, type(self).__name__
            raise UsageError(
                f"{own} records into the run of {leader} here: give out, name and config to {leader}, not to {own}"
            )

    def _begin(self, loop: Loop, out: str | Path | None) -> Recording:
        check_unattached(loop.model)
        name = self.name or type(loop.model).__name__.lower()
        config = {
            "model": type(loop.model).__name__,
            "num_parameters": sum(parameter.numel() for parameter in loop.model.parameters()),
            "optimizer": type(loop.optimizer).__name__,
            **self.config,
        }
        return self._record_into(new_run(name, out, str(loop.device), config))
