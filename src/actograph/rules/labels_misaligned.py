"""The rule `labels-misaligned`: the labels do not belong to the inputs beside which they stand.

No idea of the data. It looks for a network that is well and learns nothing that holds for other samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actograph.layout.row import Floats
from actograph.rules.advice import number, percent
from actograph.rules.between import onset_between
from actograph.rules.given import (
    has_bad_input,
    has_dead_layer,
    input_scale,
    largest_change,
)
from actograph.rules.labels import label_counts
from actograph.rules.learning_rate_decayed_early import fell_early
from actograph.rules.losses import LossCurve, loss_curve
from actograph.rules.onset import largest_rise
from actograph.rules.outcomes import (
    Outcomes,
    has_several_optimizers,
    outcomes_of,
    validation_loss,
    validation_metrics,
)
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.rules.updates import Updates
from actograph.runlog.view import RunView

NEAR = 5  # steps around a moment in which the rate must not have changed
SAME_RATE = 1.5  # factor by which a schedule may have changed it in these
STANDARD = (0.05, 5.0)  # root mean square of inputs that a network can make use of


@dataclass(frozen=True)
class LabelsMisaligned(Rule):
    """Inputs and labels do not belong together: one of them was shuffled, sorted or shifted without the other.

    A network then learns how frequent each class is, and nothing else; one that is large enough learns the samples by
    heart, and does no better than chance on others.
    """

    id: ClassVar[str] = "labels-misaligned"
    leads_to: ClassVar[tuple[str, ...]] = (
        "overfitting",
        "dead-units",
        "exploding-gradients",
        "learning-rate-too-high",
    )
    measured: ClassVar[str] = (
        "The loss beside that of chance (the entropy of the labels' shares; of a regression the squared error beside the"
        " variance of the targets). From the start: it stays there, or falls below"
        " it while the loss and the accuracy on validation data stay at chance, though inputs and layers are well and"
        " weights move. On the way: from one step to the next a loss well below chance is above it and does not come back,"
        " while the learning rate and the inputs stay as they were."
    )
    silent_on: ClassVar[str] = (
        "Weights that hardly move; dead or saturated layers; inputs that are constant, not finite or off scale; a loss that"
        " is far above chance (it diverges); batches of one class; a validation metric that rises (overfitting)."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Look at some inputs with their labels right before the model.",
        "Shuffle and split inputs and labels by the same index; sort file lists before pairing them.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Zhang et al. 2017, Understanding deep learning requires rethinking generalization (random labels)",
        "Karpathy 2019, A recipe for training neural networks",
    )

    chance: float = threshold(
        0.05, "share of the loss of chance", "our choice: fresh networks were within 3 %"
    )
    below: float = threshold(
        0.04, "share of the loss of chance", "labels of others: 0.97 of it and more, by luck of few samples"
    )
    gain: float = threshold(0.1, "of a validation share", "3 standard errors of 10 % on 100 samples")
    well: float = threshold(
        0.6, "share of the loss of chance", "our choice: a loss below it has learned something"
    )
    way: float = threshold(
        0.3,
        "sum of update over weights, largest of the weights",
        "labels of others: 0.6 to 4; rates too low: up to 0.02",
    )
    min_steps: float = threshold(100.0, "steps with a loss", "our choice: a slow start is none of labels")

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find a loss at chance in a network that is well."""
        found, curve = outcomes_of(view), loss_curve(view)
        reason = self._cannot_judge(view, found, curve)
        if reason:
            yield self.abstain(reason)
        elif has_bad_input(view) or view.scalar("loss").first_non_finite is not None:
            return
        elif found[0].is_regression:
            yield from self._of_numbers(view, found[0])
        elif found[0].chance_loss >= LEAST_CHANCE:
            yield from self._of_classes(view, found[0], curve)

    def _cannot_judge(self, view: RunView, found: Sequence[Outcomes], curve: LossCurve) -> str:
        """Return what is missing, empty where nothing is."""
        if len(found) != 1 or not (found[0].fact.text("task") == "classes" or found[0].is_regression):
            return "no cross-entropy or loss of a regression, or more than one, was seen"
        if len(curve) < self.min_steps:
            return f"only {len(curve)} steps with a finite loss; at least {self.min_steps:.0f} are needed"
        if has_several_optimizers(view):
            return "several optimizers train: one may work against the other on purpose"
        if not found[0].is_regression and found[0].fact.text("reduction") != "mean":
            return "the loss is not the mean cross-entropy of one training"
        if any(labels.looks_sorted for labels in label_counts(view)):
            return "labels come sorted: a loss above chance may be about a class that was not there before"
        return ""

    def _of_classes(
        self, view: RunView, outcomes: Outcomes, curve: LossCurve
    ) -> Iterator[Finding | Abstention]:
        jump = self._jump(view, curve, outcomes)
        if jump is not None:
            yield jump
        elif self._is_at_chance(view, curve, outcomes):
            yield from self._from_the_start(view, curve, outcomes)

    def _jump(self, view: RunView, curve: LossCurve, outcomes: Outcomes) -> Finding | None:
        """Return what a loss tells that was well below chance, and is above it from one step to the next."""
        chance = outcomes.chance_loss
        jump = largest_rise(curve.values)
        if jump is None or jump.before > self.well * chance or jump.after < (1 - self.chance) * chance:
            return None
        at = jump.position
        later = curve.values[at:]
        before, after = float(np.median(curve.values[max(at - 3, 0) : at])), float(np.median(later[:3]))
        is_sudden = after >= chance and before <= self.well * chance
        is_lasting = float(np.quantile(later, 0.25)) >= (1 - ALMOST) * chance
        step = int(curve.steps[at])
        if not is_sudden or not is_lasting or _rate_changed(view, step) or _input_changed(view, step):
            return None
        return self._finding(
            view, step, outcomes,
            f"At step {step} the loss went from {number(jump.before)} to {number(after)}, above the"
            f" {number(chance)} of chance, and stayed there, while the learning rate and the inputs stayed as they were.",
            {"loss_before": jump.before, "loss_after": jump.after},
        )  # fmt: skip

    def _is_at_chance(self, view: RunView, curve: LossCurve, outcomes: Outcomes) -> bool:
        """Tell whether nothing was ever learned that holds for other samples."""
        chance = outcomes.chance_loss
        ends_low = curve.final <= (1 + self.chance) * chance
        valid = validation_loss(view).values
        metrics = [series.values for series in validation_metrics(view).values()]
        if len(valid) >= FEWEST_EVALUATIONS or metrics:
            knows = _second_best(-valid) > -(1 - self.below) * chance
            limit = outcomes.chance_accuracy + self.gain
            improves = any(_second_best(values) > limit for values in metrics)
            return ends_low and not knows and not improves and curve.best >= BY_HEART * chance
        return ends_low and curve.best >= (1 - self.chance) * chance

    def _from_the_start(
        self, view: RunView, curve: LossCurve, outcomes: Outcomes
    ) -> Iterator[Finding | Abstention]:
        chance, moved = outcomes.chance_loss, largest_change(view)
        if has_dead_layer(view):
            return
        reason = _cannot_learn(view, self.way)
        if reason:
            yield self.abstain(reason)
            return
        is_learning = curve.best < (1 - self.below) * chance  # by heart
        if not is_learning and (moved is None or moved < MOVED or self._says_one_class(outcomes)):
            yield self.abstain(
                "the loss stays at chance, but it cannot be told whether the network could learn"
            )
            return
        ends = f"it ends at {number(curve.final)}"
        yield self._finding(
            view, 0, outcomes,
            f"The loss never tells more than the shares of the classes: chance has {number(chance)}, {ends}"
            f"{', below it because samples are learned by heart, which helps with no others' if is_learning else ''}."
            " Inputs and layers are well, and weights move.",
            {"loss_at_end": curve.final},
        )  # fmt: skip

    def _of_numbers(self, view: RunView, outcomes: Outcomes) -> Iterator[Finding | Abstention]:
        """Find a regression with the squared error of always saying the targets' mean, from the start or from a step on."""
        variance = outcomes.target_variance
        errors = outcomes.series("squared_error")
        known = np.isfinite(errors.values)
        if variance <= 0 or known.sum() < FEWEST_ERRORS or outcomes.target_size > STANDARD[1]:
            return
        curve = LossCurve(errors.steps[known], errors.values[known] / variance)
        step = self._error_jump(view, curve)
        if step is None and not self._is_error_at_chance(view, outcomes, curve):
            return
        reason = "" if step is not None else _cannot_learn(view, self.way)
        if reason:
            yield self.abstain(reason)
        elif step is not None or not has_dead_layer(view):
            since = "Throughout" if step is None else f"From step {step} on"
            yield self._finding(
                view, step or 0, outcomes,
                f"{since} the squared error is that of always saying the mean of the targets, though inputs and layers are"
                " well and weights move.",
                {"error_at_end": curve.final * variance, "variance_of_targets": variance},
            )  # fmt: skip

    def _error_jump(self, view: RunView, curve: LossCurve) -> int | None:
        """Return the step at which an error well below the targets' variance came above it, for good."""
        jump = largest_rise(curve.values)
        if jump is None or jump.position < 1 or jump.before > self.well or jump.after < 1 - self.chance:
            return None
        if float(np.quantile(curve.values[jump.position :], 0.25)) < 1 - ALMOST:
            return None
        before, seen = (int(curve.steps[jump.position - back]) for back in (1, 0))
        step = onset_between(view, before, seen)
        return None if _rate_changed(view, step) or _input_changed(view, step) else step

    def _is_error_at_chance(self, view: RunView, outcomes: Outcomes, curve: LossCurve) -> bool:
        """Tell whether nothing was learned that holds for other samples either, where that is known."""
        valid = validation_loss(view).values
        if outcomes.fact.text("name") == "mse_loss" and len(valid) >= FEWEST_EVALUATIONS:
            knows = -_second_best(-valid) < (1 - self.below) * outcomes.target_variance
            return not knows and curve.best >= BY_HEART
        return curve.final >= 1 - ALMOST and curve.best >= 1 - ALMOST - self.chance

    def _says_one_class(self, outcomes: Outcomes) -> bool:
        """Tell whether the outputs hardly differ from sample to sample, as those of a network that is dead."""
        if not len(outcomes.confusions):
            return True
        predicted = outcomes.confusions[-1].sum(axis=0)
        return bool(predicted.max() >= ONE_CLASS * max(predicted.sum(), 1.0))

    def _finding(
        self, view: RunView, step: int, outcomes: Outcomes, message: str, evidence: dict[str, float | str]
    ) -> Finding:
        chances = _chances(outcomes)
        right = f": {percent(float(chances['accuracy']))} are right at the end" if chances else ""
        return Finding(
            rule=self.id,
            severity=Severity.WARNING if step == 0 else Severity.ERROR,
            layer=None,
            first_step=step,
            last_step=view.final_step,
            evidence={**chances, **evidence},
            message=f"{message} Inputs and labels do not belong together{right}.",
            remedies=(
                Remedy("check that each label belongs to its input, right before the model", "labels"),
                Remedy("shuffle and split inputs and labels by the same index", "training data"),
            ),
            reference=self.reference,
        )


LEAST_CHANCE = 0.3  # nats: with labels nearly all of one class chance is as good as all
ALMOST = 0.15  # share of the loss of chance that a step may lie below it for luck
BY_HEART = 0.6  # share of the loss of chance above which the bulk of the samples is not learned by heart yet
FEWEST_EVALUATIONS = 2
FEWEST_ERRORS = 20  # looks at the squared error of a regression
MOVED = 0.05  # relative change of a layer's root mean square that batches alone do not make
ONE_CLASS = 0.9  # share of the predictions


def _chances(outcomes: Outcomes) -> dict[str, float | str]:
    """Return what chance has, and what was right at the end."""
    if outcomes.is_regression:
        return {}
    shown = outcomes.series("accuracy").values[-5:]
    accuracy = float(np.median(shown)) if len(shown) else outcomes.chance_accuracy
    return {
        "loss_of_chance": outcomes.chance_loss,
        "accuracy_of_chance": outcomes.chance_accuracy,
        "accuracy": accuracy,
    }


def _cannot_learn(view: RunView, way: float) -> str:
    """Return why the network could not have learned anything anyway; empty where nothing is known against it."""
    scale, updates = input_scale(view), Updates.of(view)
    if scale is not None and not STANDARD[0] <= scale.rms <= STANDARD[1]:
        return "the inputs' scale is off: the loss may stay at chance for that alone"
    if updates is not None and (updates.way < way or fell_early(updates) is not None):
        return "the weights did not get far: the loss may stay at chance for that alone"
    if updates is not None and updates.replaces_weights:
        return "updates are as large as the weights: the loss may stay at chance for that alone"
    return ""


def _second_best(values: Floats) -> float:
    """Return the second largest value, as one evaluation of a fresh network may be good by luck; -inf for none."""
    ordered = np.sort(values[np.isfinite(values)])
    return float(ordered[-2 if len(ordered) > FEWEST_EVALUATIONS else -1]) if len(ordered) else -np.inf


def _rate_changed(view: RunView, step: int) -> bool:
    """Tell whether the learning rate changed around a step by more than a schedule changes it from step to step."""
    series = view.scalar("lr")
    around = series.values[(series.steps >= step - NEAR) & (series.steps <= step + 1)]
    around = around[around > 0]
    return bool(len(around)) and bool(around.max() > SAME_RATE * around.min())


def _input_changed(view: RunView, step: int) -> bool:
    """Tell whether the spread of the inputs changed at a step."""
    series = view.scalar("std", "input")
    before, after = (series.values[mask] for mask in (series.steps < step, series.steps >= step))
    if not len(before) or not len(after):
        return False
    was, now = float(np.median(before)), float(np.median(after))
    return not was / SAME_RATE <= now <= was * SAME_RATE
