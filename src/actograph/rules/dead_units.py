"""The rule `dead-units`: rectifier units that no longer fire on any sample.

No idea of entry sparsity: a ReLU layer with 90 % zeros whose every unit fires now and then is healthy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actograph.layout.layer import LayerInfo, Nonlinearity
from actograph.rules.advice import lower_learning_rate, names, number, percent
from actograph.rules.between import onset_between
from actograph.rules.layers import Sick, first_of, others
from actograph.rules.losses import MIN_BLOCK, LossCurve, loss_curve
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.view import DEAD_WINDOW, RunView


@dataclass(frozen=True)
class DeadUnits(Rule):
    """Units of a ReLU layer stopped firing for good: their output is 0 for every sample.

    A unit that is 0 on every sample gets no gradient, so it cannot come back by itself. Usual reasons are a learning rate so
    high that one step pushed the bias far below zero, or a bias that began there.
    """

    id: ClassVar[str] = "dead-units"
    leads_to: ClassVar[tuple[str, ...]] = ("labels-misaligned", "vanishing-gradients")
    measured: ClassVar[str] = (
        "For each unit (channel) of a rectifier layer the run log knows whether it fired on at least one sample of"
        " each recorded step. A unit is dead when it has not fired since some step up to the end, over at least the"
        " window of steps and samples (a short one where almost the whole layer is silent). The onset is the step"
        " since which half of the units have been silent. Half of a"
        " layer dead is a warning, almost all an error; one notch less where the loss came down well all the same."
    )
    silent_on: ClassVar[str] = (
        "Zeros as such (a healthy ReLU layer has 50-90 %); units that rest for a while and fire again; a minority of dead"
        " units; half a layer dead in a network that learns well (a note); LeakyReLU, ELU (a small gradient remains) and"
        " GELU, SiLU, softplus (not a trap)."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Lower the learning rate by 10 (or warm it up) where units died during training.",
        "Initialise the layer in front again: He weights, bias 0, where they were dead from the start.",
        "Use LeakyReLU or GELU in that layer, so that a silent unit still gets a gradient.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Lu et al. 2019, Dying ReLU and initialization; Sokar et al. 2023, The dormant neuron phenomenon (threshold"
        " 0)",
    )

    share: float = threshold(
        0.5, "share of units", "our choice: healthy nets had 0-30 %, a few 50 % (hence the look at the loss)"
    )
    almost_all: float = threshold(0.95, "share of units", "DLCheck's threshold for a dead layer")
    learned: float = threshold(
        0.5, "share of the loss at the start", "our choice: a loss that fell by half, the network learns well"
    )
    lost: float = threshold(
        0.25, "share of the gain", "our choice: so much of the gain given back since the onset is harm"
    )
    window: float = threshold(float(DEAD_WINDOW), "recorded steps", "RunView.dead: 1,280 samples at batch 64")
    samples: float = threshold(
        1024.0, "samples", "silent on about 1,000 inputs; fewer take rare features for dead units"
    )

    few: float = threshold(
        5.0, "recorded steps", "for a layer almost all of which is silent: no chance any more"
    )
    few_samples: float = threshold(128.0, "samples", "likewise")

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find layers at least half of whose units are dead at the end."""
        if not len(view.buckets):
            yield self.abstain("no activations were recorded")
            return
        curve = loss_curve(view)
        sick: list[Sick] = []
        unsure: list[str] = []
        for position, info in enumerate(view.layers):
            if (
                info.flat is None
                or info.flat.nonlinearity is not Nonlinearity.RECTIFIER
                or not info.num_units
            ):
                continue
            judged = self._judge(view, position, info, curve)
            if isinstance(judged, Sick):
                sick.append(judged)
            elif judged is not None:
                unsure.append(judged)
        if unsure:
            yield self.abstain(f"too few recorded steps for {names(unsure)}")
        if sick:
            yield self._finding(view, sick)

    def _judge(self, view: RunView, position: int, info: LayerInfo, curve: LossCurve) -> Sick | str | None:
        """Return the layer as sick, its name where it cannot be judged, None where it is well."""
        present = np.flatnonzero(view.was_called(position))
        ends = np.cumsum(view.num_recorded[present])
        batch = max(info.shape[0], 1) if info.shape else 1
        if not present.size:
            return info.name
        fired = view.fired(position)[present]  # (T, U)
        last = np.where(fired.any(axis=0), len(fired) - 1 - np.argmax(fired[::-1], axis=0), -1)  # (U,)
        silent = ends[-1] - np.where(last >= 0, ends[last], 0)
        window = max(self.window, math.ceil(self.samples / batch))
        dead = silent >= window
        if (
            dead.mean() < self.share
        ):  # a whole layer that is silent is no chance, where steps are thinned either
            ended = view.last_steps[present]
            silent_steps = ended[-1] - np.where(last >= 0, ended[last], -1)  # of all steps, recorded or not
            dead = (silent >= max(self.few, math.ceil(self.few_samples / batch))) & (silent_steps >= window)
            if dead.mean() < self.almost_all:
                # dead or not is open only where something is silent at all
                return info.name if ends[-1] < window and (silent == ends[-1]).any() else None
        share = float(dead.mean())
        needed = math.ceil(self.share * info.num_units)
        onset = int(np.sort(last[dead] + 1)[needed - 1])
        first_step = int(view.first_steps[present[onset]])
        if onset:
            first_step = onset_between(view, int(view.last_steps[present[onset - 1]]), first_step)
        words, evidence, died = self._what_came_in(view, position, present, onset)
        known = {"dead_units": float(dead.sum()), "num_units": float(info.num_units), "dead_share": share}
        samples = float(silent[dead].min()) * (info.shape[0] if info.shape else 1)
        return Sick(
            position=position,
            name=info.name,
            severity=self._severity(share, curve, first_step),
            first_step=first_step,
            share=share,
            evidence={**known, "silent_samples": samples, **evidence},
            words=words,
            remedies=self._remedies(view, position, first_step, died=died),
        )

    def _severity(self, share: float, curve: LossCurve, step: int) -> Severity:
        """One notch less where the loss shows no harm: width to spare, or another path around the layer."""
        harm = len(curve) < MIN_BLOCK or curve.shows_harm(step, self.learned, self.lost)
        if share >= self.almost_all:
            return Severity.ERROR if harm else Severity.WARNING
        return Severity.WARNING if harm else Severity.NOTE

    def _what_came_in(
        self, view: RunView, position: int, present: np.ndarray[tuple[int], np.dtype[np.intp]], onset: int
    ) -> tuple[str, dict[str, float | str], bool]:
        """Tell what the layer in front gave at the end, and whether the units died during training."""
        died = onset > 0
        if position == 0:
            return "", {}, died
        front = view.layers[position - 1]
        q95 = float(view.quantile(position - 1, 0.95)[present[-1]])
        if not math.isfinite(q95) or q95 > 0:
            return "", {}, died
        evidence: dict[str, float | str] = {"layer_in_front": front.name, "q95_in_front": q95}
        return f" 95 % of what {front.name} in front of it gives are below {number(q95)}.", evidence, died

    def _remedies(self, view: RunView, position: int, step: int, *, died: bool) -> tuple[Remedy, ...]:
        name = view.layers[position].name
        front = view.layers[position - 1].name if position else name
        restart = Remedy("initialise again", front, None, "He weights, bias 0")
        other = Remedy("use LeakyReLU instead of ReLU", name, "ReLU", "LeakyReLU(0.01)")
        calmer = lower_learning_rate(view, step)
        return (calmer, restart, other) if died else (restart, calmer, other)

    def _finding(self, view: RunView, sick: list[Sick]) -> Finding:
        first = first_of(sick, view.num_steps)
        dead, units = int(first.evidence["dead_units"]), int(first.evidence["num_units"])
        since = "from the first step" if first.first_step == 0 else f"since step {first.first_step}"
        so = (
            "Nothing passes through this layer any more, forward or backward."
            if first.share >= self.almost_all
            else "The layer works with what is left."
        )
        if first.severity is Severity.NOTE:
            so = "The loss came down well all the same: the layer has width to spare."
        rest = [layer.name for layer in sick if layer is not first]
        also = f" The same holds for {names(rest)}." if rest else ""
        return Finding(
            rule=self.id,
            severity=first.severity,
            layer=first.name,
            first_step=first.first_step,
            last_step=int(view.last_steps[-1]),
            evidence={**first.evidence, **others(sick, first)},
            message=(
                f"{dead} of the {units} units of {first.name} ({percent(first.share)}) have been 0 for every sample"
                f" {since}: at least {first.evidence['silent_samples']:,.0f} samples. A unit that is 0 for"
                f" every sample gets no gradient and stays dead. {so}{first.words}{also}"
            ),
            remedies=first.remedies,
            reference=self.reference,
        )
