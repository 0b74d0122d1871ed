"""`OutcomeFacts`: which loss is computed of what in training, and how well the outputs meet the targets.

No idea of models or rules. Of some calls a few numbers are kept, and they wait on their device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from actograph.layout.row import Floats
from actograph.recording.facts.loss_call import LossCall, is_one_number
from actograph.recording.facts.outcomes import NUM_PARTS, Outcome, Part, Task, outcome_of
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

    def add(self, step: int, counts: Floats) -> None:
        """Add the counts of one call."""
        if self._blocks and self._blocks[-1][2] < self._width:
            first, _, num, old = self._blocks[-1]
            self._blocks[-1] = first, step, num + 1, old + counts
            return
        if len(self._blocks) == MAX_BLOCKS:
            pairs = zip(self._blocks[::2], self._blocks[1::2], strict=True)
            self._blocks = [(a[0], b[1], a[2] + b[2], a[3] + b[3]) for a, b in pairs]
            self._width *= 2
        self._blocks.append((step, step, 1, counts.copy()))

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
    num_calls: int = 0
    one_hot: list[float] = field(default_factory=list)  # shares of the first few calls


@dataclass(frozen=True)
class _Note:
    loss: _Loss
    call: LossCall | None  # its settings; outputs and targets are let go of
    shapes: tuple[str, str]
    step: int
    task: Task
    num_classes: int


class OutcomeFacts:
    """Told of calls of losses in training, and of the numbers that a backward begins with."""

    def __init__(self, table: FactTable, add_scalar: AddScalar) -> None:
        self._table = table
        self._add_scalar = add_scalar
        self._losses: dict[_Key, _Loss] = {}
        self._waiting = Waiting[_Note]()
        self._num_since_backward = 0  # calls
        self._result: tuple[str, Tensor, int] | None = None  # of the last of them: subject, values, samples
        self._backwards = Waiting[tuple[str, int, int]]()
        self._num_calls = 0

    def add(self, call: LossCall, step: int) -> None:
        """Note a call of a loss in a step that is recorded."""
        number, self._num_calls = self._num_calls, self._num_calls + 1
        self._num_since_backward += 1
        if not (number < FIRST_CALLS or is_looked_at(number, SHARE)):
            return
        self._note_shapes(call, step)
        outcome = outcome_of(call)
        if outcome is None:
            return
        loss = self._loss_of(call.name, outcome)
        if loss is not None:
            shapes = _shape(call.outputs), _shape(call.targets)
            settings = LossCall(call.name, None, None, call.ignored, call.reduction, call.smoothing)
            note = _Note(loss, settings, shapes, step, outcome.task, outcome.num_classes)
            self._waiting.add(note, outcome.numbers)
            if isinstance(call.result, Tensor) and is_measurable(call.result):
                assert isinstance(call.outputs, Tensor)
                self._result = loss.subject, call.result.detach(), len(call.outputs)

    def note_backward(self, value: object, step: int) -> None:
        """Note the number that a backward begins with, beside what the one loss before it returned."""
        known, num_calls = self._result, self._num_since_backward
        self._result, self._num_since_backward = None, 0
        if known is None or num_calls != 1 or not isinstance(value, Tensor) or not is_one_number(value):
            return
        subject, result, num = known
        if value.device == result.device and result.numel():
            numbers = [value.detach().reshape(()), result.to(torch.float32).mean()]
            self._backwards.add((subject, num, step), torch.stack([one.to(torch.float32) for one in numbers]))

    def drain(self, *, waits: bool = True) -> None:
        """Judge what waited on the device."""
        latest: dict[str, tuple[_Note, Floats]] = {}
        for note, numbers in self._waiting.take(waits=waits):
            self._take(note, numbers)
            latest[note.loss.subject] = note, numbers
        for note, numbers in latest.values():
            self._table.note(FactKind.LOSS_CALLS, note.loss.subject, note.step, **_data_of(note, numbers))
        for (subject, num, step), (value, result) in self._backwards.take(waits=waits):
            if not (math.isfinite(value) and math.isfinite(result) and result):
                continue
            ratio = float(value / result)
            for kind in (FactKind.BACKWARD_FROM, FactKind.NEGATED_LOSS):
                self._table.look(kind, step)
            self._table.note(FactKind.BACKWARD_FROM, subject, step, ratio=ratio, samples=float(num))
            if ratio < 0:
                self._table.note(FactKind.NEGATED_LOSS, subject, step, ratio=ratio)
            else:
                self._table.end(FactKind.NEGATED_LOSS, subject)

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
        self._table.look(FactKind.LOSS_CALLS, step)
        if call.name in ("cross_entropy", "nll_loss") or not isinstance(outputs, Tensor):
            return
        if isinstance(targets, Tensor) and outputs.shape != targets.shape:
            shapes = {"outputs": _shape(outputs), "targets": _shape(targets)}
            self._table.note(FactKind.BROADCAST_LOSS, call.name, step, **shapes)

    def _take(self, note: _Note, numbers: Floats) -> None:
        loss, num = note.loss, float(numbers[Part.SAMPLES])
        if not num:
            return
        if len(numbers) > NUM_PARTS and loss.blocks is not None:
            loss.blocks.add(note.step, numbers[NUM_PARTS:])
        for name, value in _scalars_of(note.task, numbers, num).items():
            self._add_scalar(name + loss.suffix, note.step, value, PHASE)


def _scalars_of(task: Task, numbers: Floats, num: float) -> dict[str, float]:
    """Return what is kept of a call over time."""
    if task is Task.NUMBERS:
        return {
            "target_mean": float(numbers[Part.TARGET_MEAN]),
            "target_std": float(numbers[Part.TARGET_STD]),
            "output_mean": float(numbers[Part.OUTPUT_MEAN]),
            "output_std": float(numbers[Part.OUTPUT_STD]),
            "squared_error": float(numbers[Part.ERROR]),
        }
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
    return scalars


def _data_of(note: _Note, numbers: Floats) -> dict[str, Value]:
    """Return what is known of a loss: how it is called, and its latest numbers."""
    call = note.call
    assert call is not None
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


def confusions_of(data: Sequence[float], num_classes: int) -> Floats:
    """Return counts (blocks, C, C) from a fact's data: how often label i was predicted as j."""
    return np.asarray(data, np.float64).reshape(-1, num_classes, num_classes)
