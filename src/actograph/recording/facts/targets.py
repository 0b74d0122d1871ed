"""`TargetFacts`: what cross-entropies were given: labels and their order, and probabilities in the place of logits.

No idea of models. Of each call only a few numbers are kept, and they wait on their device.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from actograph.layout.row import Floats
from actograph.recording.facts.loss_call import NO_CLASS
from actograph.recording.facts.operations import VIEWS, op_name
from actograph.recording.facts.outcomes import HALF
from actograph.recording.facts.thinning import is_looked_at
from actograph.runlog.facts import FactKind, FactTable
from actograph.sketch.observe import is_measurable
from actograph.train.waiting import Waiting

MAX_CLASSES = 256  # of a classification whose labels are counted; a vocabulary is none
MAX_ROWS = 64  # outputs that are looked at for probabilities
SHARE = 0.25  # of the calls after the first sixteen that are looked at
ROUNDING = 1e-3  # a sum of probabilities may be off by, in float16 too
SUBJECT = "cross-entropy"
BINARY_SUBJECT = "binary cross-entropy"
SIGMOID = "Sigmoid"  # as autograd calls it


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
    subject: str
    num_classes: int
    ignored: int
    has_extent: bool
    has_labels: bool


@dataclass
class TargetFacts:
    """Told of calls of cross-entropies in training."""

    table: FactTable
    _num_calls: int = 0
    _last_binary: int = -1  # step of the last binary cross-entropy
    _has_several: bool = False  # of these in one step
    _labels: dict[str, _Labels] = field(default_factory=dict)  # by subject
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
        subject = f"{SUBJECT} of {num_classes} classes"
        note = _Note(step, subject, num_classes, ignored, has_extent=True, has_labels=has_labels)
        self._waiting.add(note, torch.cat(numbers))

    @torch.no_grad()
    def add_binary(self, outputs: object, target: object, step: int) -> None:
        """Note what a binary cross-entropy was given in the place of logits, and labels where there is one a sample.

        Where several are computed in a step (what is real, what is made up), each may be of one label on purpose.
        """
        if not isinstance(outputs, Tensor) or not outputs.numel():
            return
        if outputs.grad_fn is not None:
            self.table.look(FactKind.PROBABILITIES, step)
            if _is_sigmoid(outputs):
                self.table.note(FactKind.PROBABILITIES, BINARY_SUBJECT, step, classes=1.0)
            else:
                self.table.end(FactKind.PROBABILITIES, BINARY_SUBJECT)
        self._has_several = self._has_several or step == self._last_binary
        self._last_binary = step
        number, self._num_calls = self._num_calls, self._num_calls + 1
        is_one_a_sample = isinstance(target, Tensor) and target.numel() == outputs.numel() == len(outputs)
        if is_one_a_sample and is_looked_at(number, SHARE):
            assert isinstance(target, Tensor)
            self.table.look(FactKind.LABELS, step)
            labels = _label_numbers((target.reshape(-1) > HALF).long(), 2)
            note = _Note(step, BINARY_SUBJECT, 2, NO_CLASS, has_extent=False, has_labels=True)
            self._waiting.add(note, torch.cat(labels))

    def drain(self, *, waits: bool = True) -> None:
        """Judge what waited on the device."""
        steps: dict[str, int] = {}
        for note, numbers in self._waiting.take(waits=waits):
            rest = numbers
            if note.has_extent:
                (low, high, off), rest = numbers[:3], numbers[3:]
                if low >= 0.0 and high <= 1.0 and off <= ROUNDING:
                    classes = float(note.num_classes)
                    self.table.note(FactKind.PROBABILITIES, SUBJECT, note.step, classes=classes)
                else:
                    self.table.end(FactKind.PROBABILITIES, SUBJECT)
            if note.has_labels:
                new = _Labels(np.zeros(note.num_classes), note.ignored)
                labels = self._labels.setdefault(note.subject, new)
                labels.add(rest[1:], is_sorted=bool(rest[0]))
                steps[note.subject] = note.step
        for subject, step in steps.items():
            one = self._labels[subject]
            is_split = subject == BINARY_SUBJECT and self._has_several
            self.table.note(
                FactKind.LABELS,
                subject,
                step,
                counts=one.counts.tolist(),
                ignored=float(one.ignored),
                batches=0.0 if is_split else float(one.num_several),
                sorted=float(one.sorted_batches),
                alike=one.alike / max(one.num_several, 1),
            )


def _is_sigmoid(outputs: Tensor) -> bool:
    """Tell whether a sigmoid made a tensor, seen from autograd's graph: no value is looked at.

    >>> _is_sigmoid(torch.zeros(3, 1, requires_grad=True).sigmoid().squeeze(1))
    True
    >>> _is_sigmoid(torch.zeros(3, requires_grad=True) * 2)
    False
    """
    node = outputs.grad_fn
    while node is not None and op_name(node) in VIEWS:
        node = node.next_functions[0][0] if node.next_functions else None
    return node is not None and op_name(node) == SIGMOID


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
