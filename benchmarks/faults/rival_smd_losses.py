"""SageMaker Debugger's rules on losses, labels and images. See `rival_smd`.

No idea of tensors within the network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from actograph.runlog.facts import FactKind
from actograph.runlog.view import RunView
from faults.rival_smd_said import first, said, stalls
from faults.said import Said

IMBALANCE, LABELS_NEEDED = 10.0, 500
IMAGE_MEAN, IMAGES_NEEDED = 0.2, 500
# num_steps, diff_percent, increase_threshold_percent
LOSS_STEPS, LEAST_DECREASE, MOST_INCREASE = 10, 0.001, 0.05
OVERFIT_RATIO = 0.1
TRAIN_PATIENCE, VALID_PATIENCE, IMPROVEMENT = 5, 10, 0.01  # patience_train, patience_validation, delta

SAME_LABELS = 1.5  # labels a sample: with more the task is one of sequences, which the rule is not meant for


def class_imbalance(view: RunView) -> Iterator[Said]:
    """One class has more than ten times the labels of another, after 500. Mispredictions by class are not recorded."""
    batch = view.layers[0].shape[0] if view.layers and view.layers[0].shape else 0
    for fact in view.facts.of(FactKind.LABELS):
        found = fact.data.get("counts", [])
        counts = np.array(found if isinstance(found, list) else [], np.float64)
        is_of_sequences = counts.sum() > SAME_LABELS * batch * fact.number("batches")
        if counts.sum() >= LABELS_NEEDED and not is_of_sequences and counts.max() > IMBALANCE * counts.min():
            # counted evenly over the run
            yield said("ClassImbalance", None, int(fact.last_step * LABELS_NEEDED / counts.sum()))


def check_input_images(view: RunView) -> Iterator[Said]:
    """The mean of the images is further than 0.2 from zero, after 500 of them. Images are what goes into a convolution."""
    kinds = [info.kind for info in view.layers if info.num_parameters]
    means, sizes = view.scalar("mean", "input"), view.scalar("batch_size", "input")
    if kinds[:1] != ["Conv2d"] or len(means) != len(sizes):
        return
    num = np.cumsum(sizes.values)
    mean = np.cumsum(sizes.values * means.values) / np.maximum(num, 1.0)
    is_off = (num >= IMAGES_NEEDED) & (np.abs(mean) > IMAGE_MEAN)
    yield from first("CheckInputImages", [None], is_off[:, None], means.steps)


def overfit(view: RunView) -> Iterator[Said]:
    """The validation loss is more than 10 % above the mean training loss since the last evaluation (patience: one step)."""
    train, valid = view.scalar("loss"), view.scalar("loss", "valid")
    begin = -math.inf
    for step, value in zip(valid.steps, valid.values, strict=True):
        chosen = train.values[(train.steps > begin) & (train.steps <= step)]
        mean = float(chosen.mean()) if len(chosen) else math.nan
        if mean > 0 and (value - mean) / mean > OVERFIT_RATIO:
            yield said("Overfit", None, int(step))
            return
        begin = step


def overtraining(view: RunView) -> Iterator[Said]:
    """Neither loss improves by 0.01: the training loss for 5 steps, the validation loss for 10 evaluations."""
    train, valid = view.scalar("loss"), view.scalar("loss", "valid")
    train_stalls = train.steps[stalls(train.values, TRAIN_PATIENCE, IMPROVEMENT)]
    for step in valid.steps[stalls(valid.values, VALID_PATIENCE, IMPROVEMENT)]:
        if (train_stalls <= step).any():
            yield said("Overtraining", None, int(step))
            return


def loss_not_decreasing(view: RunView) -> Iterator[Said]:
    """The loss rises by more than 5 %, or falls by less than 0.1 %, in ten steps or the next that is there.

    Validation losses are taken where there are any, as the rule does by default: training losses are noisier.
    """
    valid = view.scalar("loss", "valid")
    series = valid if len(valid) > 1 else view.scalar("loss")
    last = 0
    for now in range(1, len(series)):
        if series.steps[now] - series.steps[last] < LOSS_STEPS:
            continue
        change = (series.values[now] - series.values[last]) / max(abs(series.values[last]), 1e-30)
        if change > MOST_INCREASE or -LEAST_DECREASE < change <= 0:
            yield said("LossNotDecreasing", None, int(series.steps[now]))
            return
        last = now
