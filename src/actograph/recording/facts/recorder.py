"""`FactRecorder`: everything that sees facts, behind one front for `Recording`.

No idea of hooks or drivers. What looks at tensors does so at recorded steps only; what needs none at each.
"""

from __future__ import annotations

import torch
from torch import nn

from actograph.recording.facts.cuts import CutFacts
from actograph.recording.facts.evaluations import EvaluationFacts
from actograph.recording.facts.flow import FlowFacts
from actograph.recording.facts.holders import HolderFacts
from actograph.recording.facts.inputs import InputFacts
from actograph.recording.facts.leftovers import LeftoverFacts
from actograph.recording.facts.loss_call import LossCall
from actograph.recording.facts.modes import ModeFacts
from actograph.recording.facts.outcome_facts import OutcomeFacts
from actograph.recording.facts.scales import ScaleFacts
from actograph.recording.facts.settings import SettingsFacts
from actograph.recording.facts.skips import SkipFacts
from actograph.recording.facts.standing import StandingFacts
from actograph.recording.facts.targets import TargetFacts
from actograph.recording.facts.updates import UpdateFacts
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
        self._outcomes = OutcomeFacts(table, writer.add_scalar)
        self._evaluations = EvaluationFacts(table, writer.add_scalar)
        self._skips = SkipFacts(table)
        self._flow = FlowFacts(table)
        self._scales = ScaleFacts(table)
        self._settings = SettingsFacts(table)
        self._updates = UpdateFacts(writer.add_scalar)

    def add_model(self, model: nn.Module, prefix: str) -> None:
        """Take a model into account."""
        for part in (
            self._modes, self._holders, self._cuts, self._standing, self._inputs, self._flow, self._scales,
            self._settings,
        ):  # fmt: skip
            part.add_model(model, prefix)

    def forget_model(self, key: int) -> None:
        """Let go of a model that is gone, by the id that it had."""
        for part in (self._modes, self._holders, self._cuts, self._inputs, self._flow):
            part.forget_model(key)
        self._standing.forget_model()

    def forget_optimizer(self, number: int) -> None:
        """Let go of an optimizer that is gone."""
        for part in (self._holders, self._updates, self._leftovers):
            part.forget_optimizer(number)

    def enter(
        self, model: nn.Module, inputs: object, step: int, *, is_validation: bool, is_recorded: bool
    ) -> None:
        """Note what a forward of the model begins with."""
        self._modes.enter(model, is_validation=is_validation, step=step)
        self._evaluations.enter(inputs, is_recorded=is_recorded)
        self._inputs.begin(model, inputs)
        if is_recorded:
            self._cuts.enter(model, inputs)
            self._inputs.enter(model, inputs, step)
            self._scales.enter(step)

    def leave(self, model: nn.Module, output: object, step: int) -> None:
        """Note what a forward of the model ends with."""
        self._flow.leave(model, output, step)
        self._modes.leave(model, output)
        self._cuts.leave(model)

    def note_evaluated(self, call: LossCall, step: int) -> None:
        """Note that a loss was computed without gradients."""
        self._modes.note_loss(step)
        self._evaluations.add(call, step)

    def note_loss_call(self, call: LossCall, step: int) -> None:
        """Note what a loss was computed of in a step that is recorded."""
        if call.name == "cross_entropy":
            self._targets.add(call.outputs, call.targets, call.ignored, step)
        elif call.name == "binary_cross_entropy_with_logits":
            self._targets.add_binary(call.outputs, call.targets, step)
        self._outcomes.add(call, step)

    def note_backward(self, value: object, step: int) -> None:
        """Note the number that a backward begins with."""
        self._outcomes.note_backward(value, step)

    def note_told(self, name: str) -> None:
        """Note that somebody says a scalar of the validation."""
        self._evaluations.add_told(name)

    @property
    def has_doubts(self) -> bool:
        """Whether the next step's input is to be looked at whatever its loss."""
        return self._inputs.num_doubts > 0

    def note_strange_loss(self, step: int) -> None:
        """Look whether the input was well where the loss is not finite or rises at once."""
        self._inputs.look_back(step)

    def scaled_step(self, subject: str, step: int, scale: float, *, has_moved: bool) -> None:
        """Note an update that was asked of a gradient scaler."""
        self._skips.scaled_step(subject, step, scale, has_moved=has_moved)

    def before_backward(self) -> None:
        """Note what gradients there are before a backward."""
        self._leftovers.before_backward()

    def add_optimizer(self, number: int, optimizer: torch.optim.Optimizer, suffix: str) -> None:
        """Take an optimizer into account, by a number of its own; ``suffix`` tells its scalars from those of others."""
        self._updates.add_optimizer(number, optimizer, suffix)

    def note_gradients(self) -> None:
        """Note that the gradients are complete, unscaled and not clipped, in a recorded step."""
        self._updates.measure_gradients()

    def count_update(self, number: int) -> None:
        """Note that an update is made of which nothing is measured."""
        self._updates.count_update(number)

    def note_clip(self, kind: str, limit: float, step: int) -> None:
        """Note that gradients are clipped, by ``kind`` "norm" or "value", at a limit."""
        self._settings.note_clip(kind, limit, step)

    def begin_update(
        self, number: int, optimizer: torch.optim.Optimizer, *, is_recorded: bool, has_gradients: bool
    ) -> None:
        """Note what an optimizer is about to change, in a recorded step and in the one ahead of it."""
        self._updates.begin_update(number, optimizer, is_recorded=is_recorded, has_gradients=has_gradients)

    def after_update(
        self, number: int, optimizer: torch.optim.Optimizer, subject: str, step: int, *, is_recorded: bool
    ) -> None:
        """Note what an update was made with."""
        holder = self._holders.of(number, optimizer)
        self._leftovers.after_update(number, optimizer, subject, step)
        self._scales.after_update(number, optimizer, step)
        if is_recorded:
            self._updates.after_update(number, step)
            self._settings.after_update(optimizer, subject, step)
            self._holders.after_update(number, optimizer, step)
            if holder.missing:
                for key in holder.models:
                    self._cuts.look_for(key, holder.missing, step)
        self._modes.after_update(holder.models, step, is_recorded=is_recorded)

    def end_step(self, step: int, *, is_recorded: bool) -> None:
        """Note what stands at the end of a step."""
        self._standing.end_step(step)
        self._evaluations.end_step()
        self._skips.end_step()
        if is_recorded:
            self._inputs.end_step(step)

    def drain(self, *, waits: bool = True) -> None:
        """Note what waited on a device."""
        parts = (
            self._leftovers, self._inputs, self._targets, self._standing, self._outcomes, self._evaluations,
            self._scales, self._updates,
        )  # fmt: skip
        for part in parts:
            part.drain(waits=waits)

    def close(self) -> None:
        """End what was evaluated last."""
        self._evaluations.end_step()

    def forget(self) -> None:
        """Let go of optimizers and of hooks."""
        self._leftovers.forget()
        self._scales.forget()
        self._updates.forget()
        self._cuts.forget()
