"""`outcome_of`: what came of the samples that a loss was computed of, as a few numbers on their device.

No idea of runs, steps or of what is healthy. Nothing here brings a value to the host: shapes say what kind of task it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor
from torch.nn import functional

from actograph.recording.facts.loss_call import LossCall
from actograph.sketch.observe import is_measurable

MAX_CLASSES = 32  # whose confusions are counted: a thousand counters
MAX_ROWS = 2048  # outputs of one call that are looked at
MAX_JOINED = 16  # calls that are looked at together
SMALL = 4096  # outputs of such a call
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
LOG_TINY = math.log(torch.finfo(torch.float32).tiny)


def num_parts(task: Task) -> int:
    """Return how many parts an outcome of this kind has."""
    return int(Part.ONE_HOT) if task is Task.CLASSES else NUM_PARTS


@dataclass(frozen=True)
class Outcome:
    """``numbers``: the parts of each call, of classes the first six; then how often label i was predicted as j (C * C,)."""

    task: Task
    num_classes: int  # 0: numbers
    num_calls: int
    numbers: Tensor

    @property
    def has_confusion(self) -> bool:
        """Whether confusions were counted: for at most `MAX_CLASSES` classes."""
        return len(self.numbers) > self.num_calls * num_parts(self.task)


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
def outcome_of(calls: Sequence[LossCall]) -> Outcome | None:
    """Return what came of calls of one loss with the same shapes, of a part of their samples where there are many.

    None where that cannot be told.
    """
    task = task_of(calls[0])
    if task is None:
        return None
    with (
        torch._C.DisableTorchFunction()
    ):  # a loss inside of a model's forward: what is called here is none of its layers
        return _outcome(task, calls)


def _outcome(task: Task, calls: Sequence[LossCall]) -> Outcome:
    first = calls[0]
    outputs, targets = (_joined([getattr(call, name) for call in calls]) for name in ("outputs", "targets"))
    num = len(calls)
    if task is Task.CLASSES:
        return _classes(*_chances(first, outputs, targets), num)
    if task is Task.SCORES:
        return _scores(_rows(outputs).float(), _rows(targets).float(), num)
    most = MAX_VALUES // 2 if num == 1 else outputs.numel()
    numbers = _numbers(
        outputs.reshape(-1)[:most].reshape(num, -1), targets.reshape(-1)[:most].reshape(num, -1)
    )
    return Outcome(task, 0, num, numbers.reshape(-1))


def can_be_joined(a: LossCall, b: LossCall) -> bool:
    """Tell whether two calls may be looked at together: the same loss of the same small shapes, on the host."""
    tensors = a.outputs, a.targets, b.outputs, b.targets
    if a.name != b.name or not all(isinstance(x, Tensor) and x.device.type == "cpu" for x in tensors):
        return False
    assert isinstance(a.outputs, Tensor)
    assert isinstance(b.outputs, Tensor)
    assert isinstance(a.targets, Tensor)
    assert isinstance(b.targets, Tensor)
    is_small = a.outputs.numel() <= SMALL and len(a.outputs) <= MAX_ROWS // MAX_JOINED
    is_same = a.outputs.shape == b.outputs.shape and a.outputs.dtype == b.outputs.dtype
    return is_small and is_same and a.targets.shape == b.targets.shape and a.targets.dtype == b.targets.dtype


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0].detach() if len(tensors) == 1 else torch.cat([tensor.detach() for tensor in tensors])


def _chances(call: LossCall, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, int | None]:
    """Return logarithms of probabilities (M, C), labels (M,), and the class that is left out."""
    if call.name.startswith("binary"):
        positive = outputs.reshape(-1)[:MAX_ROWS].float()
        labels = (targets.reshape(-1)[:MAX_ROWS] > HALF).long()
        if call.name == "binary_cross_entropy_with_logits":
            return functional.logsigmoid(torch.stack([-positive, positive], dim=1)), labels, None
        return torch.stack([1 - positive, positive], dim=1).log(), labels, None
    chance = _rows(outputs).float()
    if call.name == "cross_entropy":
        chance = chance.log_softmax(dim=1)
    if targets.is_floating_point():
        return chance, _rows(targets).argmax(dim=1), None
    return chance, targets.reshape(-1)[: len(chance)].long(), call.ignored


def _rows(x: Tensor) -> Tensor:
    """Return outputs (N, C, ...) as rows (M, C), the first of many, in the order of their targets (N, ...)."""
    most = max(min(MAX_ROWS, MAX_VALUES // x.shape[1]), 1)
    if x.ndim > MATRIX:
        x = x[:most].movedim(1, -1).reshape(-1, x.shape[1])
    return x[:most]


def _classes(chance: Tensor, labels: Tensor, ignored: int | None, num: int) -> Outcome:
    """Return what came of ``chance`` (M, C), logarithms of probabilities, and ``labels`` (M,) of so many calls."""
    num_classes = chance.shape[1]
    best, predicted = chance.max(dim=1)
    known = None if ignored is None else (labels != ignored).float()
    labels = labels.clamp_min(0)
    own = chance.gather(1, labels.unsqueeze(1)).squeeze(1)
    contradicted = (best > math.log(SURE)) & (own < math.log(UNSURE))
    per_sample = torch.stack(
        [
            torch.ones_like(own), predicted == labels, own.clamp_min(LOG_TINY).neg(), contradicted,
            own < -math.log(num_classes), best.exp(),
        ]
    )  # (parts, M)  # fmt: skip
    if known is not None:
        per_sample = per_sample * known
    numbers = per_sample.reshape(len(per_sample), num, -1).nansum(dim=2).T.reshape(-1)
    if num_classes > MAX_CLASSES:
        return Outcome(Task.CLASSES, num_classes, num, numbers)
    confusion = _confusion(labels, predicted, per_sample[Part.SAMPLES], num_classes)
    return Outcome(Task.CLASSES, num_classes, num, torch.cat([numbers, confusion]))


def _scores(outputs: Tensor, targets: Tensor, num: int) -> Outcome:
    """Return what came of outputs and targets (M, C), which are of one class each if the numbers say so."""
    num_classes = outputs.shape[1]
    numbers = _numbers(outputs.reshape(num, -1), targets.reshape(num, -1))
    best, labels = targets.max(dim=1)
    predicted = outputs.argmax(dim=1)
    is_class = (best == 1.0) & (targets.sum(dim=1) == 1.0) & (targets.min(dim=1).values == 0.0)
    numbers[:, Part.SAMPLES] = len(outputs) / num
    numbers[:, Part.ONE_HOT] = is_class.float().reshape(num, -1).mean(dim=1)
    numbers[:, Part.CORRECT] = (predicted == labels).float().reshape(num, -1).sum(dim=1)
    numbers[:, Part.SUM_OFF] = (outputs.sum(dim=1) - 1.0).abs().reshape(num, -1).amax(dim=1)
    flat = numbers.reshape(-1)
    if num_classes > MAX_CLASSES:
        return Outcome(Task.SCORES, num_classes, num, flat)
    confusion = _confusion(labels, predicted, torch.ones_like(best), num_classes)
    return Outcome(Task.SCORES, num_classes, num, torch.cat([flat, confusion]))


def _confusion(labels: Tensor, predicted: Tensor, weights: Tensor, num_classes: int) -> Tensor:
    counts = torch.zeros(num_classes * num_classes, dtype=torch.float32, device=labels.device)
    return counts.scatter_add_(0, labels * num_classes + predicted, weights)


def _numbers(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return what is known of outputs and targets (calls, M) that are numbers: (calls, NUM_PARTS)."""
    x, y = outputs.float(), targets.float()
    numbers = torch.zeros(len(x), NUM_PARTS, dtype=torch.float32, device=x.device)
    numbers[:, Part.SAMPLES] = x.shape[1]
    target_std, target_mean = torch.std_mean(y, dim=1, correction=0)
    output_std, output_mean = torch.std_mean(x, dim=1, correction=0)
    low, high = x.amin(dim=1), x.amax(dim=1)
    moments = [target_mean, target_std, output_mean, output_std, low, high, (x - y).square().mean(dim=1)]
    numbers[:, Part.TARGET_MEAN : Part.ERROR + 1] = torch.stack(moments, dim=1)
    numbers[:, Part.WHOLE] = (y == y.round()).float().mean(dim=1)
    return numbers
