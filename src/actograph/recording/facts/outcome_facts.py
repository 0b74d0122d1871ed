"""`OutcomeFacts`: which loss is computed of what in training, and how well the outputs meet the targets.

No idea of models or rules. Of some calls a few numbers are kept, and they wait on their device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from actograph.layout.row import Floats
from actograph.recording.facts.loss_call import LossCall, is_one_number, num_samples
from actograph.recording.facts.outcomes import (
    MAX_JOINED,
    Outcome,
    Part,
    Task,
    can_be_joined,
    num_parts,
    outcome_of,
    task_of,
)
from actograph.recording.facts.thinning import is_looked_at
from actograph.runlog.facts import FactKind, FactTable, Value
from actograph.sketch.observe import is_measurable
from actograph.train.waiting import Waiting

PHASE = "outcome"  # of the scalars, beside "train" and "valid"
FIRST_CALLS = 48  # each of them is looked at
SHARE = 0.25  # of the later ones
MAX_BLOCKS = 8  # of time, in each of which confusions are added up
MAX_KEYS = 4  # different losses that are told apart

AddScalar = Callable[[str, int, float, str], None]


@dataclass(frozen=True)
class _Key:
    """What tells one loss of a training from another."""

    name: str
    num_classes: int

    @property
    def subject(self) -> str:
        return f"{self.name} of {self.num_classes} classes" if self.num_classes else self.name


class Blocks:
    """Counters over time: a bounded number of stretches, neighbours of which are added up when there are too many."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._width = 1  # calls in a full block
        self._blocks: list[tuple[int, int, int, Floats]] = []  # first step, last step, calls, counts

    def add(self, steps: Sequence[int], counts: Floats) -> None:
        """Add the counts of calls at these steps."""
        if self._blocks and self._blocks[-1][2] < self._width:
            first, _, num, old = self._blocks[-1]
            self._blocks[-1] = first, steps[-1], num + 1, old + counts
            return
        if len(self._blocks) == MAX_BLOCKS:
            pairs = zip(self._blocks[::2], self._blocks[1::2], strict=True)
            self._blocks = [(a[0], b[1], a[2] + b[2], a[3] + b[3]) for a, b in pairs]
            self._width *= 2
        self._blocks.append((steps[0], steps[-1], 1, counts.copy()))

    def to_data(self) -> dict[str, Value]:
        """Return plain JSON data."""
        flat = np.concatenate([counts for *_, counts in self._blocks]) if self._blocks else np.zeros(0)
        return {
            "block_first_steps": [float(first) for first, *_ in self._blocks],
            "block_last_steps": [float(last) for _, last, *_ in self._blocks],
            "block_counts": flat.tolist(),
        }


@dataclass
class _Loss:
    """One loss of the training."""

    subject: str
    suffix: str  # of its scalars
    blocks: Blocks | None = None


@dataclass(frozen=True)
class _Note:
    loss: _Loss
    call: LossCall  # its settings; outputs and targets are let go of
    shapes: tuple[str, str]
    steps: tuple[int, ...]  # of the calls
    task: Task
    num_classes: int


class OutcomeFacts:
    """Told of calls of losses in training, and of the numbers that a backward begins with."""

    def __init__(self, table: FactTable, add_scalar: AddScalar) -> None:
        self._table = table
        self._add_scalar = add_scalar
        self._losses: dict[_Key, _Loss] = {}
        self._joined: list[
            tuple[LossCall, int]
        ] = []  # small calls that will be looked at together, and their steps
        self._waiting = Waiting[_Note]()
        self._num_since_backward = 0  # calls
        self._last: _Last | None = None  # of these
        self._backwards = Waiting[tuple[str, int, int]]()
        self._num_calls = 0

    def add(self, call: LossCall, step: int) -> None:
        """Note a call of a loss in a step that is looked at."""
        number, self._num_calls = self._num_calls, self._num_calls + 1
        self._num_since_backward += 1
        self._last = _last_of(call)
        if not (number < FIRST_CALLS or is_looked_at(number, SHARE)) or task_of(call) is None:
            self._note_shapes(call, step)
            return
        self._table.look(FactKind.LOSS_CALLS, step)
        if self._joined and not can_be_joined(self._joined[-1][0], call):
            self._look_at_joined()
        if can_be_joined(call, call):
            assert isinstance(call.outputs, Tensor)
            assert isinstance(call.targets, Tensor)
            kept = replace(
                call,
                outputs=call.outputs.detach().clone(),
                targets=call.targets.detach().clone(),
                result=None,
            )
            self._joined.append((kept, step))
            if len(self._joined) == MAX_JOINED:
                self._look_at_joined()
        else:
            self._look_at([(call, step)])

    def _look_at_joined(self) -> None:
        joined, self._joined = self._joined, []
        if joined:
            self._look_at(joined)

    def _look_at(self, calls: Sequence[tuple[LossCall, int]]) -> None:
        call = calls[-1][0]
        outcome = outcome_of([each for each, _ in calls])
        loss = None if outcome is None else self._loss_of(call.name, outcome)
        if outcome is not None and loss is not None:
            shapes = _shape(call.outputs), _shape(call.targets)
            settings = LossCall(call.name, None, None, call.ignored, call.reduction, call.smoothing)
            steps = tuple(step for _, step in calls)
            self._waiting.add(
                _Note(loss, settings, shapes, steps, outcome.task, outcome.num_classes), outcome.numbers
            )

    def note_backward(self, value: object, step: int) -> None:
        """Note the number that a backward begins with, beside what the one loss before it returned."""
        last, num_calls = self._last, self._num_since_backward
        self._last, self._num_since_backward = None, 0
        if last is None or num_calls != 1 or not isinstance(value, Tensor) or not is_one_number(value):
            return
        name, num, result = last
        if value.device != result.device or not is_measurable(result):
            return
        if value.device.type == "cpu":
            mean = result if result.numel() == 1 else result.mean()
            self._judge_backward(name, num, step, float(value.detach()), float(mean))  # no sync: on the host
            return
        numbers = [value.detach().reshape(()), result.to(torch.float32).mean()]
        self._backwards.add((name, num, step), torch.stack([one.to(torch.float32) for one in numbers]))

    def _judge_backward(self, name: str, num: int, step: int, value: float, result: float) -> None:
        if not (math.isfinite(value) and math.isfinite(result) and result):
            return
        ratio = value / result
        for kind in (FactKind.BACKWARD_FROM, FactKind.NEGATED_LOSS):
            self._table.look(kind, step)
        self._table.note(FactKind.BACKWARD_FROM, name, step, ratio=ratio, samples=float(num))
        if ratio < 0:
            self._table.note(FactKind.NEGATED_LOSS, name, step, ratio=ratio)
        else:
            self._table.end(FactKind.NEGATED_LOSS, name)

    def drain(self, *, waits: bool = True) -> None:
        """Judge what waited on the device."""
        self._look_at_joined()
        latest: dict[str, tuple[_Note, Floats]] = {}
        for note, numbers in self._waiting.take(waits=waits):
            end = len(note.steps) * num_parts(note.task)
            parts = numbers[:end].reshape(len(note.steps), -1)
            for step, part in zip(note.steps, parts, strict=True):
                self._add_scalars(note, step, part)
            if note.loss.blocks is not None:
                note.loss.blocks.add(note.steps, numbers[end:])
            latest[note.loss.subject] = note, parts[-1]
        for note, part in latest.values():
            self._table.note(FactKind.LOSS_CALLS, note.loss.subject, note.steps[-1], **_data_of(note, part))
        for (name, num, step), (value, result) in self._backwards.take(waits=waits):
            self._judge_backward(name, num, step, float(value), float(result))

    def _loss_of(self, name: str, outcome: Outcome) -> _Loss | None:
        key = _Key(name, outcome.num_classes)
        loss = self._losses.get(key)
        if loss is None and len(self._losses) < MAX_KEYS:
            suffix = f"@{len(self._losses)}" if self._losses else ""
            blocks = Blocks(outcome.num_classes**2) if outcome.has_confusion else None
            loss = self._losses[key] = _Loss(key.subject, suffix, blocks)
        return loss

    def _note_shapes(self, call: LossCall, step: int) -> None:
        """Note outputs and targets of different shapes, which are compared each with each."""
        outputs, targets = call.outputs, call.targets
        if call.name in ("cross_entropy", "nll_loss") or not isinstance(outputs, Tensor):
            return
        if isinstance(targets, Tensor) and outputs.shape != targets.shape:
            shapes = {"outputs": _shape(outputs), "targets": _shape(targets)}
            self._table.note(FactKind.BROADCAST_LOSS, call.name, step, **shapes)

    def _add_scalars(self, note: _Note, step: int, part: Floats) -> None:
        num = float(part[Part.SAMPLES])
        if num:
            for name, value in _scalars_of(note.task, part, num).items():
                self._add_scalar(name + note.loss.suffix, step, value, PHASE)


class _Last(NamedTuple):
    """A call that a backward may follow; it keeps no graph, as none may follow."""

    name: str
    num_samples: int
    result: Tensor


def _last_of(call: LossCall) -> _Last | None:
    result, outputs = call.result, call.outputs
    if not isinstance(result, Tensor) or not result.numel() or not isinstance(outputs, Tensor):
        return None
    return _Last(call.name, num_samples(outputs), result.detach())


def _scalars_of(task: Task, numbers: Floats, num: float) -> dict[str, float]:
    """Return what is kept of a call over time."""
    if task is Task.NUMBERS:
        return _moments_of(numbers)
    scalars = {"accuracy": float(numbers[Part.CORRECT]) / num}
    if task is Task.CLASSES:
        scalars |= {
            "surprise": float(numbers[Part.SURPRISE]) / num,
            "contradicted": float(numbers[Part.CONTRADICTED]) / num,
            "unlikely": float(numbers[Part.UNLIKELY]) / num,
            "confidence": float(numbers[Part.CONFIDENCE]) / num,
        }
    else:
        scalars |= {"one_hot": float(numbers[Part.ONE_HOT])}
        if numbers[Part.ONE_HOT] < 1.0:  # several numbers a sample
            scalars |= _moments_of(numbers)
    return scalars


def _moments_of(numbers: Floats) -> dict[str, float]:
    """Return the sizes of targets and outputs that are numbers, and how far apart they are."""
    return {
        "target_mean": float(numbers[Part.TARGET_MEAN]),
        "target_std": float(numbers[Part.TARGET_STD]),
        "output_mean": float(numbers[Part.OUTPUT_MEAN]),
        "output_std": float(numbers[Part.OUTPUT_STD]),
        "squared_error": float(numbers[Part.ERROR]),
    }


def _data_of(note: _Note, numbers: Floats) -> dict[str, Value]:
    """Return what is known of a loss: how it is called, and its latest numbers."""
    call = note.call
    data: dict[str, Value] = {
        "name": call.name,
        "task": note.task.name.lower(),
        "classes": float(note.num_classes),
        "reduction": call.reduction,
        "smoothing": call.smoothing,
        "outputs": note.shapes[0],
        "targets": note.shapes[1],
        "suffix": note.loss.suffix,
    }
    if note.task is not Task.CLASSES:
        for part in (
            Part.ONE_HOT, Part.TARGET_MEAN, Part.TARGET_STD, Part.OUTPUT_LOW, Part.OUTPUT_HIGH, Part.SUM_OFF, Part.WHOLE,
        ):  # fmt: skip
            data[part.name.lower()] = _plain(numbers[part])
    if note.loss.blocks is not None:
        data |= note.loss.blocks.to_data()
    return data


def _plain(value: float) -> float:
    return float(value) if math.isfinite(value) else 0.0


def _shape(x: object) -> str:
    return str(tuple(x.shape)) if isinstance(x, Tensor) else ""
