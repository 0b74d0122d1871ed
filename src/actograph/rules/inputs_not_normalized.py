"""The rule `inputs-not-normalized`: the input's numbers are far from a spread of 1, and the training suffers from it.

No idea of the data; it compares scales, and asks what they did.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actograph.rules.advice import number
from actograph.rules.given import InputScale, input_scale, is_normalized_first, is_normalized_input
from actograph.rules.losses import MIN_BLOCK, LossCurve, loss_curve
from actograph.rules.outcomes import chance_loss
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.facts import FactKind
from actograph.runlog.view import RunView

NOTHING_RECORDED = "no input of floating-point numbers was recorded"


@dataclass(frozen=True)
class _Scale:
    """What is wrong with the scale of an input."""

    words: str
    old: str
    size: float  # root mean square
    evidence: dict[str, float | str]
    is_large: bool
    is_uneven: bool = False  # one feature beside the others


@dataclass(frozen=True)
class InputsNotNormalized(Rule):
    """The inputs are not standardized, and it shows: their numbers are large, tiny, or of very different size.

    Weights are initialized for inputs of mean 0 and standard deviation 1. Large inputs make large outputs and gradients,
    tiny ones hide behind the biases, and one large feature hides the others.
    """

    id: ClassVar[str] = "inputs-not-normalized"
    leads_to: ClassVar[tuple[str, ...]] = (
        "learning-rate-too-high",
        "exploding-gradients",
        "dead-units",
        "saturated-activations",
        "non-finite-loss",
        "vanishing-gradients",
        "initialization-too-large",
        "initialization-too-small",
        "learning-rate-too-low",
        "labels-misaligned",
        "label-noise",
    )
    measured: ClassVar[str] = (
        "Root mean square of all values of the first model's input, and the spread of each column of a table. Off: above"
        " `large`, below `small`, or one column `uneven` times the middle one. Harm: the loss became non-finite; it began at"
        " a multiple of chance, or a good part of the run was spent above it or near it."
    )
    silent_on: ClassVar[str] = (
        "A norm before the first nonlinearity; numbers off 1 by less than a factor of five; inputs that are whole numbers"
        " (tokens); a training that goes well all the same."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Subtract the mean of the training data and divide by their standard deviation, feature by feature in a table.",
        "Or put a BatchNorm (affine=False) in front of the first layer.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "LeCun et al. 1998, Efficient BackProp, section 4.3; Braiek and Khomh 2023, TheDeepChecker (unnormalized features)",
    )

    large: float = threshold(
        5.0, "root mean square", "our choice: [0, 255] has about 100, standardized data 1"
    )
    small: float = threshold(
        0.05, "root mean square", "our choice: [0, 1] divided by 255 has 0.002, by 10 still 0.05"
    )
    uneven: float = threshold(50.0, "times the median column's spread", "our choice: money beside shares")
    above: float = threshold(
        0.05, "share of the run", "our choice: standardized inputs spend none above chance"
    )
    near: float = threshold(
        0.25, "share of the run", "our choice: in that time a tuned training has learned most"
    )
    learned: float = threshold(
        0.3, "share of the loss of chance", "our choice: a loss that fell below it went well"
    )
    raw: float = threshold(
        20.0, "root mean square", "our choice: nobody means such inputs; [0, 255] has about 100"
    )
    well: float = threshold(
        0.04, "share of the loss of chance", "our choice: below it even raw inputs do no harm that shows"
    )
    min_steps: float = threshold(
        50.0, "steps with a loss", "our choice: less is not enough to learn anything"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find inputs off scale in a training that suffers."""
        scale = input_scale(view)
        if scale is None:
            yield self.abstain(NOTHING_RECORDED)
            return
        off = self._off(view, scale)
        if off is None or _is_mended(view, scale, off):
            return
        bad = view.scalar("loss").first_non_finite
        curve = loss_curve(view)
        if bad is None and len(curve) < self.min_steps:
            yield self.abstain(
                f"only {len(curve)} steps with a finite loss; at least {self.min_steps:.0f} are needed"
            )
            return
        harm = f"The loss was not finite at step {bad}." if bad is not None else self._harm(view, curve, off)
        if not harm:
            return
        layer = view.layers[0].name if view.layers else None
        first = next((info.name for info in view.layers if info.num_parameters), layer)
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING,
            layer=first,
            first_step=0,
            last_step=view.final_step,
            evidence={"mean": scale.mean, "std": scale.std, **off.evidence},
            message=f"The inputs are not standardized: {off.words}. {harm}",
            remedies=(
                Remedy(
                    "standardize the inputs: subtract their mean, divide by their standard deviation",
                    "input",
                    off.old,
                    "mean 0, std 1",
                ),
            ),
            reference=self.reference,
        )

    def _off(self, view: RunView, scale: InputScale) -> _Scale | None:
        old = f"mean {number(scale.mean)}, std {number(scale.std)}"
        for fact in view.facts.of(FactKind.FEATURES)[:1]:
            ratio = fact.number("largest_std") / max(fact.number("median_std"), 1e-30)
            if ratio >= self.uneven and fact.number("largest_std") >= 1.0:
                column = int(fact.number("largest"))
                words = (
                    f"feature {column} has a standard deviation {number(ratio)} times that of the median one"
                )
                return _Scale(
                    words,
                    words,
                    scale.rms,
                    {"feature": float(column), "times_the_median": ratio},
                    is_large=True,
                    is_uneven=True,
                )
        if scale.rms >= self.large:
            return _Scale(
                f"their root mean square is {number(scale.rms)} ({old})", old, scale.rms, {}, is_large=True
            )
        if 0 < scale.rms <= self.small:
            return _Scale(
                f"their root mean square is only {number(scale.rms)} ({old})",
                old,
                scale.rms,
                {},
                is_large=False,
            )
        return None

    def _harm(self, view: RunView, curve: LossCurve, off: _Scale) -> str:
        """Return how the training suffers in words, empty where it does not."""
        chance = chance_loss(view) or abs(float(np.median(curve.values[:MIN_BLOCK])))
        smooth = curve.smooth()
        above = float(np.mean(smooth > TOLERATED * chance))
        if (
            off.is_large
            and float(curve.values[:MIN_BLOCK].max()) > TOLERATED * chance
            and above >= self.above
        ):
            return f"For {100 * above:.0f} % of the run the loss was above that of chance, {number(chance)}."
        reached = np.flatnonzero(smooth <= self.learned * chance)
        learned = self.learned if off.size < self.raw else self.well
        if curve.final > learned * chance:
            return f"The loss ends at {number(curve.final)}, where chance has {number(chance)}."
        if not off.is_large and reached.size and reached[0] >= self.near * len(smooth):
            share = 100 * reached[0] / len(smooth)
            return f"It took {share:.0f} % of the run until the loss had fallen to {number(self.learned * chance)}."
        return ""


RECURRENT = ("LSTM", "GRU", "RNN")
KEPT = (
    0.1,
    10.0,
)  # what a fresh layer makes of the root mean square of its input: torch's own initialization 0.6
USUAL = 0.3  # root mean square of the output of a layer with standardized inputs, at the least
TOLERATED = 1.5  # times the loss of chance: where fresh networks with standardized inputs begin at the most


def _is_mended(view: RunView, scale: InputScale, off: _Scale) -> bool:
    """Tell whether the model makes its input's scale good itself.

    A norm behind the first layer does, unless one feature has drowned the others in that layer's sums already.
    """
    if off.is_uneven:
        return is_normalized_input(view)
    return is_normalized_first(view) or _is_scaled_inside(view, scale, is_large=off.is_large)


def _is_scaled_inside(view: RunView, scale: InputScale, *, is_large: bool) -> bool:
    """Tell whether the model changes the input's scale by itself before its first layer: seen by that layer's output."""
    first = next((index for index, info in enumerate(view.layers) if info.num_parameters), None)
    if first is None or not len(view.buckets) or view.layers[first].kind in RECURRENT:
        return False
    output = float(view.column("rms")[0, first])
    if is_large:
        return output < KEPT[0] * scale.rms
    return output > max(KEPT[1] * scale.rms, USUAL)
