"""What is known of losses, outcomes and evaluations of a run, as rules about labels and losses need it.

No idea of what is wrong. Where something was not seen, it is None or empty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from actograph.layout.row import Floats
from actograph.rules.labels import entropy, label_counts
from actograph.runlog.facts import Fact, FactKind
from actograph.runlog.scalars import ScalarSeries
from actograph.runlog.view import RunView

OUTCOME, VALID = "outcome", "valid"  # phases of scalars
LOSS_NAMES = (
    "valid_loss",
    "val_loss",
    "validation_loss",
    "eval_loss",
    "test_loss",
)  # said among the training's
SMALLER_IS_BETTER = ("loss", "error", "err", "mae", "mse", "rmse", "perplexity", "ppl")
REGRESSION = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")  # of torch.nn.functional
FEWEST_POINTS = 3  # of a series that tells a level
LEVEL_SHARE = 0.1  # of the points of a series, whose median is its level at an end


@dataclass(frozen=True)
class Outcomes:
    """What came of the samples of one loss in training: a classification, or a regression with ``num_classes`` 0."""

    fact: Fact
    view: RunView

    @property
    def num_classes(self) -> int:
        """Classes of a classification, 0 for numbers."""
        return int(self.fact.number("classes"))

    @property
    def is_classification(self) -> bool:
        """Whether each target is one class."""
        task = self.fact.text("task")
        return task == "classes" or (task == "scores" and self.fact.number("one_hot") >= 1.0)

    @property
    def is_regression(self) -> bool:
        """Whether targets are numbers whose size is known, compared by a loss of regressions."""
        is_compared = self.fact.text("name") in REGRESSION
        return is_compared and not self.is_classification and len(self.series("target_std")) > 0

    @property
    def target_variance(self) -> float:
        """The variance of a regression's targets over all batches: the squared error of always saying their mean."""
        means, stds = (self.series(name).values for name in ("target_mean", "target_std"))
        return float(np.median(stds**2) + np.var(means)) if len(means) else 0.0

    @property
    def target_size(self) -> float:
        """The root mean square of a regression's targets."""
        means = self.series("target_mean").values
        return math.sqrt(self.target_variance + float(np.median(means)) ** 2) if len(means) else 0.0

    def series(self, name: str) -> ScalarSeries:
        """Return what was recorded of the outcomes over the steps."""
        return self.view.scalar(name + self.fact.text("suffix"), OUTCOME)

    @cached_property
    def block_steps(self) -> Floats:
        """First and last step of each block of confusions (K, 2)."""
        firsts, lasts = (self._list(name) for name in ("block_first_steps", "block_last_steps"))
        return np.stack([firsts, lasts], axis=1) if len(firsts) == len(lasts) else np.zeros((0, 2))

    @cached_property
    def confusions(self) -> Floats:
        """How often label i was predicted as j, in each block of time (K, C, C); K = 0 where they were not counted."""
        counts, num = self._list("block_counts"), self.num_classes
        blocks = len(self.block_steps)
        if not blocks or counts.size != blocks * num * num:
            return np.zeros((0, num, num))
        return counts.reshape(blocks, num, num)

    @property
    def label_shares(self) -> Floats:
        """How often each class is the label (C,); equal where that was not counted."""
        counts = self.confusions.sum(axis=(0, 2)) if len(self.confusions) else np.zeros(self.num_classes)
        for labels in label_counts(self.view):
            if len(labels.counts) == self.num_classes:
                counts = labels.counts
        total = counts.sum()
        return counts / total if total else np.full(self.num_classes, 1.0 / max(self.num_classes, 1))

    @property
    def chance_loss(self) -> float:
        """The cross-entropy of outputs that know the shares of the classes and nothing of the input: their entropy."""
        return entropy(self.label_shares)

    @property
    def chance_accuracy(self) -> float:
        """The accuracy of who always says the most frequent class."""
        return float(self.label_shares.max(initial=0.0))

    def _list(self, name: str) -> Floats:
        value = self.fact.data.get(name, [])
        return np.asarray(value if isinstance(value, list) else [], np.float64)


def outcomes_of(view: RunView) -> list[Outcomes]:
    """Return what came of each loss in training, the one that was called most often first."""
    facts = sorted(
        view.facts.of(FactKind.LOSS_CALLS), key=lambda fact: (fact.text("suffix"), -fact.num_steps)
    )
    return [Outcomes(fact, view) for fact in facts if fact.first_step < max(view.num_steps, 1)]


def chance_loss(view: RunView) -> float | None:
    """Return the loss of outputs that know nothing of the input; None where that cannot be told."""
    found = outcomes_of(view)
    if not found or found[0].fact.text("reduction") != "mean":
        return None
    one = found[0]
    if one.fact.text("name") == "mse_loss" and not one.is_classification:
        return one.target_variance or None
    if one.fact.text("name") in (
        "cross_entropy",
        "nll_loss",
        "binary_cross_entropy",
        "binary_cross_entropy_with_logits",
    ):
        return one.chance_loss if one.is_classification and one.fact.text("task") == "classes" else None
    return None


def only_classification(view: RunView) -> Outcomes | None:
    """Return the outcomes of the training's one loss of a classification; None where there is none, or several losses."""
    found = outcomes_of(view)
    return found[0] if len(found) == 1 and found[0].is_classification else None


def has_several_optimizers(view: RunView) -> bool:
    """Tell whether several optimizers train, as in adversarial networks."""
    return any(phase == "train" and name.startswith("lr@") for phase, name in view.scalars)


def validation_loss(view: RunView) -> ScalarSeries:
    """Return the loss on the validation data, said or seen; empty where there is none."""
    if len(view.scalar("loss", VALID)):
        return view.scalar("loss", VALID)
    for name in LOSS_NAMES:
        if len(view.scalar(name)):
            return view.scalar(name)
    return view.scalar("loss", VALID)


def validation_metrics(view: RunView) -> dict[str, ScalarSeries]:
    """Return validation metrics of which more is better."""
    return {
        name: series
        for (phase, name), series in view.scalars.items()
        if phase == VALID and len(series) and not is_smaller_better(name)
    }


def is_smaller_better(name: str) -> bool:
    """Tell whether less of a metric is better."""
    return any(part in SMALLER_IS_BETTER for part in name.lower().replace("-", "_").split("_"))


def validation_accuracy(view: RunView) -> ScalarSeries | None:
    """Return the share of right answers on the validation data; None where nobody has said or seen it."""
    for name, series in validation_metrics(view).items():
        if "acc" in name.lower() and is_share(series):
            return series
    return None


def is_share(series: ScalarSeries) -> bool:
    """Tell whether all values lie between 0 and 1."""
    values = series.values[np.isfinite(series.values)]
    return bool(values.size) and float(values.min()) >= 0.0 and float(values.max()) <= 1.0


def level_at_end(series: ScalarSeries) -> float:
    """Return the median of the last tenth of the points, NaN where there are too few."""
    return _level(series.values[np.isfinite(series.values)][::-1])


def level_at_start(series: ScalarSeries) -> float:
    """Return the median of the first tenth of the points, NaN where there are too few."""
    return _level(series.values[np.isfinite(series.values)])


def _level(values: Floats) -> float:
    num = max(math.ceil(LEVEL_SHARE * len(values)), FEWEST_POINTS)
    return float(np.median(values[:num])) if len(values) >= FEWEST_POINTS else math.nan
