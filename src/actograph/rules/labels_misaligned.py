"""The rule `labels-misaligned`: the labels do not belong to the inputs beside which they stand.

No idea of the data. It looks for a network that is well and learns nothing that holds for other samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actograph.layout.row import Floats
from actograph.rules.advice import number, percent
from actograph.rules.given import (
    has_bad_input,
    has_dead_layer,
    input_scale,
    is_normalized_first,
    largest_change,
)
from actograph.rules.labels import label_counts
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
        "The loss beside that of chance (the entropy of the labels' shares). From the start: it stays there, or falls below"
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
        0.02, "share of the loss of chance", "our choice: the validation loss of who knows something"
    )
    gain: float = threshold(0.1, "of a validation share", "3 standard errors of 10 % on 100 samples")
    well: float = threshold(
        0.6, "share of the loss of chance", "our choice: a loss below it has learned something"
    )
    way: float = threshold(
        0.6,
        "sum of update over weights, largest of the weights",
        "labels of others: 1.7 to 4; rates too low: up to 0.5",
    )
    min_steps: float = threshold(100.0, "steps with a loss", "our choice: a slow start is none of labels")

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find a loss at chance in a network that is well."""
        outcomes = next((one for one in outcomes_of(view) if one.fact.text("task") == "classes"), None)
        if outcomes is None or len(outcomes_of(view)) > 1:
            yield self.abstain("no cross-entropy, or more than one, was seen")
            return
        curve = loss_curve(view)
        if len(curve) < self.min_steps:
            yield self.abstain(
                f"only {len(curve)} steps with a finite loss; at least {self.min_steps:.0f} are needed"
            )
            return
        if has_several_optimizers(view) or outcomes.fact.text("reduction") != "mean":
            yield self.abstain("the loss is not the mean cross-entropy of one training")
            return
        if any(labels.looks_sorted for labels in label_counts(view)):
            yield self.abstain(
                "labels come sorted: a loss above chance may be about a class that was not there before"
            )
            return
        if (
            has_bad_input(view)
            or view.scalar("loss").first_non_finite is not None
            or outcomes.chance_loss < LEAST_CHANCE
        ):
            return
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
        chance = outcomes.chance_loss
        scale, moved = input_scale(view), largest_change(view)
        is_off = scale is not None and not STANDARD[0] <= scale.rms <= STANDARD[1]
        if (is_off and not is_normalized_first(view)) or has_dead_layer(view):
            return
        updates = Updates.of(view)
        if updates is not None and updates.way < self.way:
            yield self.abstain("the weights did not get far: the loss may stay at chance for that alone")
            return
        if updates is not None and updates.replaces_weights:
            yield self.abstain(
                "updates are as large as the weights: the loss may stay at chance for that alone"
            )
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

    def _says_one_class(self, outcomes: Outcomes) -> bool:
        """Tell whether the outputs hardly differ from sample to sample, as those of a network that is dead."""
        if not len(outcomes.confusions):
            return True
        predicted = outcomes.confusions[-1].sum(axis=0)
        return bool(predicted.max() >= ONE_CLASS * max(predicted.sum(), 1.0))

    def _finding(
        self, view: RunView, step: int, outcomes: Outcomes, message: str, evidence: dict[str, float | str]
    ) -> Finding:
        shown = outcomes.series("accuracy").values[-5:]
        accuracy = float(np.median(shown)) if len(shown) else outcomes.chance_accuracy
        return Finding(
            rule=self.id,
            severity=Severity.WARNING if step == 0 else Severity.ERROR,
            layer=None,
            first_step=step,
            last_step=view.final_step,
            evidence={
                "loss_of_chance": outcomes.chance_loss,
                "accuracy_of_chance": outcomes.chance_accuracy,
                "accuracy": accuracy,
                **evidence,
            },
            message=f"{message} Inputs and labels do not belong together: {percent(accuracy)} are right at the end.",
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
MOVED = 0.05  # relative change of a layer's root mean square that batches alone do not make
ONE_CLASS = 0.9  # share of the predictions


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
