"""The rule `non-finite-loss`: NaN or infinity, where it came up first and whether it was an explosion.

No idea of gradients or of the data themselves: it reads outputs of layers and the loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actograph.layout.row import Field, Floats
from actograph.rules.advice import lower_learning_rate, names, number, percent
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.facts import FactKind
from actograph.runlog.scalars import ScalarSeries
from actograph.runlog.view import RunView

MOST_STEPS_BEFORE = 2  # windows: how far back recorded steps may lie that show what happened right before
LAST_MOMENTS = 3  # recorded steps right before the event in which an explosion shows: it grows by powers, not by percents


@dataclass(frozen=True)
class NonFiniteLoss(Rule):
    """The loss, or the output of a layer, became NaN or infinite.

    After that every weight becomes NaN at the next update and nothing is learned any more.
    """

    id: ClassVar[str] = "non-finite-loss"
    leads_to: ClassVar[tuple[str, ...]] = ("dead-units", "saturated-activations")
    measured: ClassVar[str] = (
        "The exact first step with NaN or infinity is recorded for the loss and for every layer's output. The layer"
        " named is the first in forward order among those that turned non-finite at the earliest step. It is called"
        " an explosion where activations or loss grew many times over right before; bad data where only a part of the"
        " first layer's values is non-finite; the layer's own doing where the layers in front of it were finite; and"
        " the loss function's where all activations were finite."
    )
    silent_on: ClassVar[str] = (
        "Large but finite values; skipped steps of a gradient scaler; an attention mask of minus infinity while the"
        " loss stays finite (a note)."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Explosion: lower the learning rate by 10, warm up, clip the gradient norm.",
        "Data: drop or repair the samples with NaN or infinity.",
        "Layer or loss: guard the division, logarithm or square root with a small epsilon.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Amazon SageMaker Debugger, ExplodingTensor; Hugging Face DebugUnderflowOverflow (look at the steps right"
        " before)",
    )

    growth: float = threshold(
        10.0, "times", "trainproof and runmedic call 10x exploding; healthy: 2.6 where the loss did not fall"
    )
    loss_growth: float = threshold(
        4.0,
        "times the first loss",
        "fastai's learning-rate finder stops at 4x the best; healthy trainings: 2.0",
    )
    window: float = threshold(
        20.0, "recorded steps", "our choice: long against the 3 to 8 steps of explosions seen in tests"
    )
    stray: float = threshold(
        20.0, "steps", "our choice: non-finite this long with a finite loss is a mask, not the cause"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find the first non-finite number of the run."""
        loss = view.scalar("loss")
        if not len(loss) and not len(view.buckets):
            yield self.abstain("neither a loss nor activations were recorded")
            return
        first = _first_non_finite(view)
        if loss.first_non_finite is not None:
            first[first < loss.first_non_finite - self.stray] = np.inf
            yield self._in_loss(view, loss, loss.first_non_finite, first)
        elif np.isfinite(first).any():
            yield self._in_layer_only(view, loss, first)
        else:
            yield from self._in_validation_only(view)

    def _in_loss(self, view: RunView, loss: ScalarSeries, loss_step: int, first: Floats) -> Finding:
        begin = int(min(loss_step, first.min(initial=np.inf)))
        event = _Event.of(view, loss, begin, first, self)
        recovered = bool(np.isfinite(loss.values[-1]))
        what = f"The loss became NaN or infinite at step {loss_step}"
        explanation, evidence, remedies = event.explain()
        known = {"loss_step": float(loss_step), **_loss_before(loss, loss_step)}
        ending = " The loss was finite again at the end, so the run survived it." if recovered else ""
        return Finding(
            rule=self.id,
            severity=Severity.WARNING if recovered else Severity.ERROR,
            layer=event.layer,
            first_step=begin,
            last_step=_last_non_finite(loss, loss_step),
            evidence={**known, **evidence},
            message=f"{what}. {explanation}{ending}",
            remedies=remedies,
            reference=self.reference,
        )

    def _in_layer_only(self, view: RunView, loss: ScalarSeries, first: Floats) -> Finding:
        begin = int(first.min())
        event = _Event.of(view, loss, begin, first, self)
        explanation, evidence, remedies = event.explain()
        index = int(np.argmin(first))
        bad = view.rows[:, index, [Field.NAN, Field.INF]].sum(axis=0)
        last = int(view.last_steps[view.rows[:, index, [Field.NAN, Field.INF]].sum(axis=1) > 0].max())
        name = view.layers[index].name
        what = f"The output of {name} held NaN or infinite values from step {begin} on"
        if not len(loss):
            severity, ending = Severity.ERROR, " No loss was recorded."
        elif bad[0] == 0:
            severity = Severity.NOTE
            ending = " The loss stayed finite: infinities that a mask puts there on purpose look like this."
        else:
            severity = Severity.WARNING
            ending = " The loss stayed finite, so these values are masked out later, or were not seen by it."
        counts = {"nan_values": float(bad[0]), "inf_values": float(bad[1])}
        return Finding(
            rule=self.id,
            severity=severity,
            layer=name,
            first_step=begin,
            last_step=last,
            evidence={**counts, **evidence},
            message=f"{what}. {explanation}{ending}",
            remedies=remedies,
            reference=self.reference,
        )

    def _in_validation_only(self, view: RunView) -> Iterator[Finding]:
        series = view.scalar("loss", "valid")
        step = series.first_non_finite
        if step is None:
            return
        yield Finding(
            rule=self.id,
            severity=Severity.ERROR,
            layer=None,
            first_step=step,
            last_step=_last_non_finite(series, step),
            evidence={"loss_step": float(step), "phase": "valid"},
            message=(
                f"The validation loss became NaN or infinite at step {step} while the training loss stayed finite."
                " The validation data hold such values, or a layer computes differently in evaluation mode (the"
                " running variance of a batch norm)."
            ),
            remedies=(
                Remedy("drop or repair samples with NaN or infinity", "validation data"),
                Remedy(
                    "compare the running statistics with those of a training batch", "normalisation layers"
                ),
            ),
            reference=self.reference,
        )


@dataclass(frozen=True)
class _Event:
    """The first non-finite number and what the run looked like right before it."""

    view: RunView
    step: int
    layer: str | None  # the first in forward order that was non-finite at `step`
    position: int  # of that layer; -1 for none
    was_recorded: bool  # activations were recorded at `step`
    bad_share: float | None  # share of the layer's values that were non-finite at `step`
    loss_growth: float
    largest: str | None  # the layer that grew most, and how
    growth: float
    rms_before: float
    rms_after: float
    exploded: bool

    @classmethod
    def of(cls, view: RunView, loss: ScalarSeries, step: int, first: Floats, rule: NonFiniteLoss) -> _Event:
        at = np.flatnonzero(first == step)
        position = int(at[0]) if at.size else -1
        loss_growth, loss_fell = _loss_growth(loss, step, int(rule.window))
        index, before, after = _activation_growth(view, step, int(rule.window))
        growth = after / before if before > 0 else 1.0
        grew = growth >= rule.growth and not loss_fell
        return cls(
            view=view,
            step=step,
            layer=view.layers[position].name if position >= 0 else None,
            position=position,
            was_recorded=_was_recorded(view, step),
            bad_share=_bad_share(view, step, position) if position >= 0 else None,
            loss_growth=loss_growth,
            largest=view.layers[index].name if index >= 0 else None,
            growth=growth,
            rms_before=before,
            rms_after=after,
            exploded=grew or loss_growth >= rule.loss_growth,
        )

    def explain(self) -> tuple[str, dict[str, float | str], tuple[Remedy, ...]]:
        """Return the cause in words, its numbers and what to do."""
        evidence: dict[str, float | str] = {"loss_growth": self.loss_growth}
        if self.largest is not None:
            evidence |= {
                "growth": self.growth,
                "grew_most": self.largest,
                "rms_before": self.rms_before,
                "rms_at_the_end": self.rms_after,
            }
        if self.bad_share is not None:
            evidence["non_finite_share"] = self.bad_share
        if self.exploded:
            return self._explosion(), {"kind": "explosion", **evidence}, self._calmer()
        if self.layer is not None:
            return self._from_layer(evidence)
        if self.view.layers and not self.was_recorded:
            words = "Activations were not recorded at that step, so the layer it came from is not known."
            return words, {"kind": "unknown", **evidence}, (_check_data(), _guard_loss(), *self._calmer()[:1])
        if self.view.layers:
            words = (
                "The outputs of all recorded layers were finite at that step and had not grown, so the loss function"
                " itself made it: a logarithm of 0, a division by 0, or a target that is not finite."
            )
            return words, {"kind": "loss function", **evidence}, (_guard_loss(), _check_data())
        words = "The loss had not grown before it. No activations were recorded, so the layer is not known."
        return words, {"kind": "unknown", **evidence}, (_check_data(), _guard_loss(), *self._calmer()[:1])

    def _explosion(self) -> str:
        grown = []
        if self.largest is not None and self.growth > 1:
            grown.append(
                f"the activations of {self.largest} grew from {number(self.rms_before)} to {number(self.rms_after)}"
                " (root mean square)"
            )
        if self.loss_growth > 1:
            grown.append(f"the loss grew {number(self.loss_growth)} times")
        where = f"; {self.layer} was the first layer to overflow" if self.layer is not None else ""
        return f"Right before, {' and '.join(grown)}{where}. The training exploded: the steps are too large."

    def _calmer(self) -> tuple[Remedy, ...]:
        return (
            lower_learning_rate(self.view, self.step),
            Remedy("clip the gradient norm", "gradients", "not clipped", 1.0),
            Remedy("warm the learning rate up over the first steps", "lr schedule"),
        )

    def _from_layer(
        self, evidence: dict[str, float | str]
    ) -> tuple[str, dict[str, float | str], tuple[Remedy, ...]]:
        name = self.layer or ""
        if self.position > 0:
            front = names([info.name for info in self.view.layers[: self.position]][-1:])
            words = (
                f"{name} was the first layer with such values while {front} in front of it was finite and nothing had"
                " grown: a division by 0, a logarithm or square root of a negative number, or a NaN weight in that"
                " layer."
            )
            remedies = (
                Remedy("guard division, logarithm and square root with a small epsilon", name, None, 1e-8),
                _check_data(),
            )
            return words, {"kind": "layer", **evidence}, remedies
        if self.bad_share is not None and self.bad_share >= 1.0:
            words = (
                f"All outputs of the first layer, {name}, were non-finite at once and nothing had grown: its weights"
                " became NaN in the update before (a gradient of NaN, as from a square root or division at 0), or the"
                " whole batch was NaN."
            )
            return words, {"kind": "weights or input", **evidence}, (_guard_loss(), _check_data())
        share = f"{percent(self.bad_share)} of" if self.bad_share is not None else "some of"
        words = (
            f"The first layer, {name}, already had them in {share} its outputs and nothing had grown before: the"
            " input data hold NaN or infinite values, or that layer divides by 0."
        )
        guard = Remedy("guard division, logarithm and square root with a small epsilon", name, None, 1e-8)
        return words, {"kind": "input", **evidence}, (_check_data(), guard)


def _check_data() -> Remedy:
    return Remedy("drop or repair samples with NaN or infinity", "training data")


def _guard_loss() -> Remedy:
    return Remedy(
        "guard logarithm, division and square root with a small epsilon", "loss function", None, 1e-8
    )


def _first_non_finite(view: RunView) -> Floats:
    """Return each layer's first non-finite step (L,), infinity for never; steps that a scaler has tried again are none."""
    first = np.array(view.rows[:, :, Field.FIRST_NON_FINITE])
    for fact in view.facts.of(FactKind.SKIPPED_UPDATE):
        steps = fact.data.get("steps")
        if isinstance(steps, list) and not fact.number("in_a_row"):
            first[np.isin(first, steps)] = np.inf
    return np.asarray(first.min(axis=0, initial=np.inf))


def _last_non_finite(series: ScalarSeries, first: int) -> int:
    bad = series.steps[~np.isfinite(series.values)]
    return int(max(first, bad.max(initial=first)))


def _loss_before(loss: ScalarSeries, step: int) -> dict[str, float]:
    before = loss.values[(loss.steps < step) & np.isfinite(loss.values)]
    return {"loss_before": float(before[-1])} if before.size else {}


def _loss_growth(loss: ScalarSeries, step: int, window: int) -> tuple[float, bool]:
    """Return how far the loss rose right before ``step``, and whether it fell in that time.

    The rise is told in multiples of the first loss, or of the usual one where that is larger: a converged loss that goes
    from 1e-6 to 1e-5 has not exploded (factors of 4 are seen at up to a third of the steps of healthy runs).
    """
    known = loss.high[(loss.steps <= step) & np.isfinite(loss.values)]
    before = known[-window:]
    if len(before) <= 1:
        return 1.0, False
    split = max(1, len(before) - LAST_MOMENTS)
    usual, last = float(np.median(before[:split])), float(before[split:].max())
    size = max(abs(usual), abs(float(known[0])))
    growth = 1.0 + max(0.0, last - usual) / size if size > 0 else 1.0
    return growth, last < usual


def _activation_growth(view: RunView, step: int, window: int) -> tuple[int, float, float]:
    """Return the layer whose root mean square grew most right before ``step``, with its size before and after."""
    end = int(np.searchsorted(view.first_steps, step, side="right"))
    if end == 0 or not view.layers:
        return -1, 0.0, 0.0
    # where steps are thinned, the same number of recorded ones may be half of the training: values grow in that time
    begin = int(np.searchsorted(view.last_steps, step - MOST_STEPS_BEFORE * window))
    rms = view.column("rms")[max(begin, end - window) : end]
    if len(rms) <= 1:
        return -1, 0.0, 0.0
    split = max(1, len(rms) - LAST_MOMENTS)
    with np.errstate(invalid="ignore", over="ignore"):
        before = np.array([_median(column) for column in rms[:split].T])
        after = np.max(np.nan_to_num(rms[split:], nan=0.0, posinf=math.inf), axis=0, initial=0.0)
        growth = np.divide(after, before, out=np.zeros_like(after), where=before > 0)
    index = int(np.argmax(growth))
    return index, float(before[index]), float(after[index])


def _median(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else 0.0


def _was_recorded(view: RunView, step: int) -> bool:
    """Tell whether that very step was recorded: no, where it lies in a bucket with thinned steps."""
    inside = (view.first_steps <= step) & (step <= view.last_steps)
    complete = view.num_recorded == view.last_steps - view.first_steps + 1
    return bool((inside & complete).any())


def _bad_share(view: RunView, step: int, position: int) -> float | None:
    """Return the share of a layer's values that were non-finite at ``step``; None where a wide bucket hides it."""
    inside = np.flatnonzero((view.first_steps <= step) & (step <= view.last_steps))
    if not inside.size:
        return None
    row = view.rows[inside[0], position]
    bad = float(row[Field.NAN] + row[Field.INF])
    total = bad + float(row[[Field.NEG_COUNT, Field.POS_COUNT, Field.ZEROS]].sum())
    per_step = total / float(view.num_recorded[inside[0]])
    # in a wide bucket the steps after the first bad one are as a rule bad throughout: the weights are NaN by then
    after = float(view.last_steps[inside[0]] - step) * per_step
    share = (bad - after) / per_step
    return min(share, 1.0) if share > 0 else None
