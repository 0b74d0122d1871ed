"""`FactRecorder`: everything that sees facts, behind one front for `Recording`.

No idea of hooks or drivers. What looks at tensors does so at recorded steps only; what needs none at each.
"""

from __future__ import annotations

import torch
from torch import nn

from actograph.recording.facts.cuts import CutFacts
from actograph.recording.facts.flow import FlowFacts
from actograph.recording.facts.holders import HolderFacts
from actograph.recording.facts.inputs import InputFacts
from actograph.recording.facts.leftovers import LeftoverFacts
from actograph.recording.facts.modes import ModeFacts
from actograph.recording.facts.scales import ScaleFacts
from actograph.recording.facts.skips import SkipFacts
from actograph.recording.facts.standing import StandingFacts
from actograph.recording.facts.targets import TargetFacts
from actograph.runlog.store import RunWriter


class FactRecorder:
    """Notes facts of one run."""

    def __init__(self, writer: RunWriter) -> None:
        table = writer.facts
        self._modes = ModeFacts(table)
        self._leftovers = LeftoverFacts(table)
        self._holders = HolderFacts(table)
        self._cuts = CutFacts(table)
        self._standing = StandingFacts(table)
        self._inputs = InputFacts(table, writer.add_scalar)
        self._targets = TargetFacts(table)
        self._skips = SkipFacts(table)
        self._flow = FlowFacts(table)
        self._scales = ScaleFacts(table)

    def add_model(self, model: nn.Module, prefix: str) -> None:
        """Take a model into account."""
        for part in (
            self._modes, self._holders, self._cuts, self._standing, self._inputs, self._flow, self._scales,
        ):  # fmt: skip
            part.add_model(model, prefix)

    def enter(
        self, model: nn.Module, inputs: object, step: int, *, is_validation: bool, is_recorded: bool
    ) -> None:
        """Note what a forward of the model begins with."""
        self._modes.enter(model, is_validation=is_validation, step=step)
        if is_recorded:
            self._cuts.enter(model, inputs)
            self._inputs.enter(model, inputs, step)
            self._scales.enter(step)

    def leave(self, model: nn.Module, output: object, step: int) -> None:
        """Note what a forward of the model ends with."""
        self._flow.leave(model, output, step)
        self._modes.leave(model, output)
        self._cuts.leave(model)

    def note_loss(self, step: int) -> None:
        """Note that a loss was computed without gradients."""
        self._modes.note_loss(step)

    def note_targets(self, logits: object, target: object, ignored: int, step: int) -> None:
        """Note what a cross-entropy was given in training."""
        self._targets.add(logits, target, ignored, step)

    def scaled_step(self, subject: str, step: int, scale: float, *, has_moved: bool) -> None:
        """Note an update that was asked of a gradient scaler."""
        self._skips.scaled_step(subject, step, scale, has_moved=has_moved)

    def before_backward(self) -> None:
        """Note what gradients there are before a backward."""
        self._leftovers.before_backward()

    def after_update(
        self, optimizer: torch.optim.Optimizer, subject: str, step: int, *, is_recorded: bool
    ) -> None:
        """Note what an update was made with."""
        self._leftovers.after_update(optimizer, subject, step)
        self._scales.after_update(optimizer, step)
        if is_recorded:
            self._holders.after_update(optimizer, step)
            missing = self._holders.missing[optimizer]
            if missing:
                for model in self._holders.models_of(optimizer):
                    self._cuts.look_for(model, missing, step)
        self._modes.after_update(self._holders.models_of(optimizer), step, is_recorded=is_recorded)

    def end_step(self, step: int, *, is_recorded: bool) -> None:
        """Note what stands at the end of a step."""
        self._standing.end_step(step)
        self._skips.end_step()
        if is_recorded:
            self._inputs.end_step(step)

    def drain(self, *, waits: bool = True) -> None:
        """Note what waited on a device."""
        for part in (self._leftovers, self._inputs, self._targets, self._standing, self._scales):
            part.drain(waits=waits)

    def forget(self) -> None:
        """Let go of optimizers and of hooks."""
        self._leftovers.forget()
        self._scales.forget()
        self._cuts.forget()
