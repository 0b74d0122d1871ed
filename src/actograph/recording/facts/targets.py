"""`TargetFacts`: what a cross-entropy was given: labels and their order, and probabilities in the place of logits.

No idea of models. Of each call only a few numbers are kept, and they wait on their device.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from actograph.layout.row import Floats
from actograph.recording.facts.thinning import is_looked_at
from actograph.runlog.facts import FactKind, FactTable
from actograph.sketch.observe import is_measurable
from actograph.train.waiting import Waiting

MAX_CLASSES = 256  # of a classification whose labels are counted; a vocabulary is none
MAX_ROWS = 64  # outputs that are looked at for probabilities
SHARE = 0.25  # of the calls after the first sixteen that are looked at
ROUNDING = 1e-3  # a sum of probabilities may be off by, in float16 too
SUBJECT = "cross-entropy"


@dataclass
class _Labels:
    """Labels of one number of classes, added up."""

    counts: Floats
    ignored: int
    num_batches: int = 0
    num_several: int = 0  # batches of more than one label
    sorted_batches: int = 0  # of these, in ascending order
    alike: float = 0.0  # of these, sum of the share of pairs with the same label

    def add(self, counts: Floats, *, is_sorted: bool) -> None:
        num = counts.sum()
        self.counts += counts
        self.num_batches += 1
        if num > 1:
            self.num_several += 1
            self.sorted_batches += is_sorted
            self.alike += float((counts * (counts - 1)).sum() / (num * (num - 1)))


@dataclass(frozen=True)
class _Note:
    step: int
    num_classes: int
    ignored: int
    has_labels: bool


@dataclass
class TargetFacts:
    """Told of calls of a cross-entropy in training."""

    table: FactTable
    _num_calls: int = 0
    _labels: dict[int, _Labels] = field(default_factory=dict)
    _waiting: Waiting[_Note] = field(default_factory=Waiting[_Note])

    @torch.no_grad()
    def add(self, logits: object, target: object, ignored: int, step: int) -> None:
        """Note what a cross-entropy was given: logits (N, C, ...), target class numbers (N, ...)."""
        if not isinstance(logits, Tensor) or not is_measurable(logits) or logits.ndim <= 1 or not len(logits):
            return
        num_classes = logits.shape[1]
        if num_classes <= 1:
            return
        number, self._num_calls = self._num_calls, self._num_calls + 1
        if not is_looked_at(number, SHARE):
            return
        self.table.look(FactKind.PROBABILITIES, step)
        numbers = [_extent_of_rows(logits)]
        has_labels = (
            isinstance(target, Tensor)
            and target.dtype in (torch.int64, torch.uint8, torch.int32)
            and (logits.ndim, target.ndim) == (2, 1)
            and num_classes <= MAX_CLASSES
            and target.device == logits.device
        )
        if has_labels:
            assert isinstance(target, Tensor)
            self.table.look(FactKind.LABELS, step)
            numbers += _label_numbers(target, num_classes)
        self._waiting.add(_Note(step, num_classes, ignored, has_labels), torch.cat(numbers))

    def drain(self, *, waits: bool = True) -> None:
        """Judge what waited on the device."""
        steps: dict[int, int] = {}
        for note, numbers in self._waiting.take(waits=waits):
            low, high, off = numbers[:3]
            if low >= 0.0 and high <= 1.0 and off <= ROUNDING:
                self.table.note(FactKind.PROBABILITIES, SUBJECT, note.step, classes=float(note.num_classes))
            else:
                self.table.end(FactKind.PROBABILITIES, SUBJECT)
            if note.has_labels:
                new = _Labels(np.zeros(note.num_classes), note.ignored)
                labels = self._labels.setdefault(note.num_classes, new)
                labels.add(numbers[4:], is_sorted=bool(numbers[3]))
                steps[note.num_classes] = note.step
        for num_classes, step in steps.items():
            one = self._labels[num_classes]
            self.table.note(
                FactKind.LABELS,
                f"{SUBJECT} of {num_classes} classes",
                step,
                counts=one.counts.tolist(),
                ignored=float(one.ignored),
                batches=float(one.num_several),
                sorted=float(one.sorted_batches),
                alike=one.alike / max(one.num_several, 1),
            )


def _extent_of_rows(logits: Tensor) -> Tensor:
    """Return the smallest and largest of some outputs, and how far their sums over classes are from 1 at most."""
    some = logits.detach()[:MAX_ROWS].to(torch.float32)
    off = (some.sum(dim=1) - 1.0).abs().max()
    return torch.stack([some.min(), some.max(), off])


def _label_numbers(target: Tensor, num_classes: int) -> list[Tensor]:
    """Return whether labels ascend (1 or 0), and how often each class occurs; others, such as ignored ones, are left out."""
    ascends = (target[1:] >= target[:-1]).all().to(torch.float32).reshape(1)
    inside = target.long().clamp(
        -1, num_classes
    )  # what is out of range is counted at the ends, and dropped there
    counts = torch.zeros(num_classes + 2, dtype=torch.float32, device=target.device)
    counts.scatter_add_(0, inside + 1, torch.ones_like(inside, dtype=torch.float32))
    return [ascends, counts[1:-1]]
