"""`outcome_of`: what came of the samples that a loss was computed of, as a few numbers on their device.

No idea of runs, steps or of what is healthy. Nothing here brings a value to the host: shapes say what kind of task it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from actograph.recording.facts.loss_call import LossCall
from actograph.sketch.observe import is_measurable

MAX_CLASSES = 32  # whose confusions are counted: a thousand counters
MAX_ROWS = 2048  # outputs of one call that are looked at
MAX_VALUES = 1 << 17  # of these: a vocabulary has tens of thousands of classes
MATRIX = 2  # axes of scores of samples
SURE = 0.9  # probability of another class with which a label is contradicted
HALF = 0.5  # share of the positive class from which on it is the label
UNSURE = 0.05  # probability left to that label
CLASS_DTYPES = (torch.int64, torch.int32, torch.uint8, torch.int16, torch.int8)


class Task(IntEnum):
    """What a loss compares."""

    CLASSES = 0  # class scores with class numbers, or with shares of classes
    SCORES = 1  # several scores with as many numbers, which may be one class each or not
    NUMBERS = 2  # one number a sample


class Part(IntEnum):
    """Where a number stands in an outcome."""

    SAMPLES = 0
    CORRECT = 1
    SURPRISE = 2  # sum of -ln p(label)
    CONTRADICTED = 3  # samples of whose label the output is all but sure that it is another
    UNLIKELY = 4  # samples whose label is less likely than by chance
    CONFIDENCE = 5  # sum of the largest probability
    ONE_HOT = 6  # share of targets that are one class each
    TARGET_MEAN = 7
    TARGET_STD = 8
    OUTPUT_MEAN = 9
    OUTPUT_STD = 10
    OUTPUT_LOW = 11
    OUTPUT_HIGH = 12
    ERROR = 13  # mean squared difference
    SUM_OFF = 14  # how far the outputs' sums over classes are from 1 at most
    WHOLE = 15  # share of targets that are whole numbers


NUM_PARTS = len(Part)


@dataclass(frozen=True)
class Outcome:
    """``numbers`` (NUM_PARTS,), then for at most `MAX_CLASSES` classes how often label i was predicted as j (C * C,)."""

    task: Task
    num_classes: int  # 0: numbers
    numbers: Tensor

    @property
    def has_confusion(self) -> bool:
        """Whether confusions were counted."""
        return len(self.numbers) > NUM_PARTS


def task_of(call: LossCall) -> Task | None:
    """Return the kind of task that shapes and types say; None: it cannot be told."""
    outputs, targets = call.outputs, call.targets
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor) or not is_measurable(outputs):
        return None
    if not outputs.ndim or not outputs.numel() or targets.device != outputs.device:
        return None
    is_classes = call.name in ("cross_entropy", "nll_loss")
    if is_classes:
        has_numbers = targets.dtype in CLASS_DTYPES and targets.ndim == outputs.ndim - 1
        has_shares = targets.is_floating_point() and targets.shape == outputs.shape
        is_known = outputs.ndim > 1 and outputs.shape[1] > 1 and (has_numbers or has_shares)
        return Task.CLASSES if is_known else None
    if targets.shape != outputs.shape:
        return None
    if call.name.startswith("binary_cross_entropy") and outputs.numel() == len(outputs):
        return Task.CLASSES
    return Task.SCORES if outputs.ndim == MATRIX and outputs.shape[1] > 1 else Task.NUMBERS


@torch.no_grad()
def outcome_of(call: LossCall) -> Outcome | None:
    """Return what came of a call, of a part of its samples where there are many; None where that cannot be told."""
    task = task_of(call)
    if task is None:
        return None
    outputs, targets = call.outputs, call.targets
    assert isinstance(outputs, Tensor)
    assert isinstance(targets, Tensor)
    outputs, targets = outputs.detach(), targets.detach()
    if task is Task.CLASSES and call.name.startswith("binary"):
        positive = outputs.reshape(-1)[:MAX_ROWS].float()
        if call.name == "binary_cross_entropy_with_logits":
            positive = positive.sigmoid()
        labels = (targets.reshape(-1)[:MAX_ROWS] > HALF).long()
        return _classes(torch.stack([1 - positive, positive], dim=1), labels, None)
    if task is Task.CLASSES:
        scores = _rows(outputs).float()
        chance = scores.softmax(dim=1) if call.name == "cross_entropy" else scores.exp()
        if targets.is_floating_point():
            return _classes(chance, _rows(targets).argmax(dim=1), None)
        labels = targets.reshape(-1)[: len(chance)].long()
        is_known = (labels >= 0) & (labels < chance.shape[1]) & (labels != call.ignored)
        return _classes(chance, labels.clamp(0, chance.shape[1] - 1), is_known)
    if task is Task.SCORES:
        return _scores(_rows(outputs).float(), _rows(targets).float())
    return Outcome(task, 0, _numbers(outputs.reshape(-1), targets.reshape(-1)))


def _rows(x: Tensor) -> Tensor:
    """Return outputs (N, C, ...) as rows (M, C), the first of many, in the order of their targets (N, ...)."""
    most = max(min(MAX_ROWS, MAX_VALUES // x.shape[1]), 1)
    if x.ndim > MATRIX:
        x = x[:most].movedim(1, -1).reshape(-1, x.shape[1])
    return x[:most]


def _classes(chance: Tensor, labels: Tensor, is_known: Tensor | None) -> Outcome:
    """Return what came of ``chance`` (M, C) of each class and ``labels`` (M,); ``is_known`` (M,) leaves some out."""
    num_classes = chance.shape[1]
    known = torch.ones_like(labels, dtype=torch.float32) if is_known is None else is_known.float()
    best, predicted = chance.max(dim=1)
    own = chance.gather(1, labels[:, None])[:, 0]
    is_right = predicted == labels
    per_sample = torch.stack(
        [
            torch.ones_like(own),
            is_right.float(),
            -own.clamp_min(torch.finfo(torch.float32).tiny).log(),
            (~is_right & (best > SURE) & (own < UNSURE)).float(),
            (own < 1.0 / num_classes).float(),
            best,
        ]
    )  # (parts, M)
    numbers = torch.zeros(NUM_PARTS, dtype=torch.float32, device=chance.device)
    numbers[: len(per_sample)] = (per_sample * known).nansum(dim=1)
    if num_classes > MAX_CLASSES:
        return Outcome(Task.CLASSES, num_classes, numbers)
    return Outcome(
        Task.CLASSES,
        num_classes,
        torch.cat([numbers, _confusion(labels, predicted, known, num_classes)]),
    )


def _scores(outputs: Tensor, targets: Tensor) -> Outcome:
    """Return what came of outputs and targets (M, C), which are of one class each if the numbers say so."""
    num_classes = outputs.shape[1]
    numbers = _numbers(outputs.reshape(-1), targets.reshape(-1))
    best, labels = targets.max(dim=1)
    predicted = outputs.argmax(dim=1)
    is_class = (best == 1.0) & (targets.sum(dim=1) == 1.0) & (targets.min(dim=1).values == 0.0)
    numbers[Part.SAMPLES] = len(outputs)
    numbers[Part.ONE_HOT] = is_class.float().mean()
    numbers[Part.CORRECT] = (predicted == labels).float().sum()
    numbers[Part.SUM_OFF] = (outputs.sum(dim=1) - 1.0).abs().max()
    if num_classes > MAX_CLASSES:
        return Outcome(Task.SCORES, num_classes, numbers)
    confusion = _confusion(labels, predicted, torch.ones_like(best), num_classes)
    return Outcome(Task.SCORES, num_classes, torch.cat([numbers, confusion]))


def _confusion(labels: Tensor, predicted: Tensor, weights: Tensor, num_classes: int) -> Tensor:
    counts = torch.zeros(num_classes * num_classes, dtype=torch.float32, device=labels.device)
    return counts.scatter_add_(0, labels * num_classes + predicted, weights)


def _numbers(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return what is known of outputs and targets (M,) that are numbers."""
    x, y = outputs[: MAX_VALUES // 2].float(), targets[: MAX_VALUES // 2].float()
    numbers = torch.zeros(NUM_PARTS, dtype=torch.float32, device=x.device)
    numbers[Part.SAMPLES] = len(x)
    numbers[Part.TARGET_STD], numbers[Part.TARGET_MEAN] = torch.std_mean(y, correction=0)
    numbers[Part.OUTPUT_STD], numbers[Part.OUTPUT_MEAN] = torch.std_mean(x, correction=0)
    numbers[Part.OUTPUT_LOW], numbers[Part.OUTPUT_HIGH] = torch.aminmax(x)
    numbers[Part.ERROR] = (x - y).square().mean()
    numbers[Part.WHOLE] = (y == y.round()).float().mean()
    return numbers
