"""The rule `fp16-overflow`: a number became larger than float16 can hold.

No idea of training that explodes: where the loss had grown right before, float32 would have overflowed a little later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actograph.layout.row import Field, Floats
from actograph.rules.advice import number
from actograph.rules.losses import MIN_BLOCK
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.facts import Fact, FactKind
from actograph.runlog.view import RunView

LARGEST = 65504.0  # of float16
HALF = "float16"


@dataclass(frozen=True)
class Fp16Overflow(Rule):
    """The output of a layer that computes in float16 passed 65,504, the largest number it has, and became infinite.

    In bfloat16 or float32 the same numbers would have been nothing special.
    """

    id: ClassVar[str] = "fp16-overflow"
    leads_to: ClassVar[tuple[str, ...]] = (
        "labels-misaligned",
        "non-finite-loss",
        "learning-rate-too-high",
        "dead-units",
        "saturated-activations",
    )
    measured: ClassVar[str] = (
        "The first layer in forward order, among those that were the first to hold infinities, computes in float16, and the"
        " finite values beside them, or those it had before, come near the largest number of float16. Or: a gradient scaler"
        " left out one update after the other up to the end."
    )
    silent_on: ClassVar[str] = (
        "Updates that a gradient scaler left out and after which training went on; infinities of an attention mask; a"
        " training that exploded (the loss grew many times over right before, see non-finite-loss)."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Compute in bfloat16 (it has the range of float32), or under autocast, which keeps sums in float32.",
        "Make the values smaller: normalise the inputs, put a norm in front of the layer, scale the logits.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Micikevicius et al. 2018, Mixed precision training; Hugging Face DebugUnderflowOverflow",
    )

    near: float = threshold(
        4094.0, "largest finite |value|", "a sixteenth of 65,504: four doublings are left"
    )
    loss_growth: float = threshold(4.0, "times", "fastai's learning-rate finder stops at 4x the best")
    window: float = threshold(20.0, "steps", "long against the 3 to 8 steps of explosions seen in tests")
    skipped: float = threshold(
        10.0, "updates in a row", "a scale of 65,536 is 64 after ten; healthy runs: 1-3"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find the first overflow in float16."""
        if not len(view.buckets) and view.facts.looked(FactKind.SKIPPED_UPDATE) is None:
            yield self.abstain("no activations were recorded")
            return
        stuck = [
            fact for fact in view.facts.of(FactKind.SKIPPED_UPDATE) if fact.number("in_a_row") >= self.skipped
        ]
        if stuck:
            yield self._all_skipped(view, stuck[0])
            return
        position = self._first_layer(view)
        if position is not None:
            yield self._finding(view, *position)
        elif self._is_unseen(view):
            yield self._unseen(view)

    def _first_layer(self, view: RunView) -> tuple[int, int, float] | None:
        """Return position and step of the first layer that overflowed, and the largest value that was still finite."""
        if not len(view.buckets):
            return None
        steps = np.array(view.rows[:, :, Field.FIRST_NON_FINITE])
        for fact in view.facts.of(FactKind.SKIPPED_UPDATE):
            tried_again = fact.data.get("steps")
            steps[np.isin(steps, tried_again if isinstance(tried_again, list) else [])] = np.inf
        first = steps.min(axis=0, initial=np.inf)
        if not np.isfinite(first).any():
            return None
        step = int(first.min())
        position = int(np.flatnonzero(first == step)[0])
        if view.layers[position].dtype != HALF:
            return None
        bucket = int(np.flatnonzero(steps[:, position] == step)[0])
        if not view.rows[bucket, position, Field.INF]:
            return None
        largest = float(_magnitude(view, position)[: bucket + 1].max())
        if largest < self.near or self._had_exploded(view, step):
            return None
        return position, step, largest

    def _had_exploded(self, view: RunView, step: int) -> bool:
        loss = view.scalar("loss")
        known = loss.values[(loss.steps < step) & np.isfinite(loss.values)][-int(self.window) :]
        if len(known) <= MIN_BLOCK:
            return False
        usual = max(abs(float(np.median(known[:MIN_BLOCK]))), abs(float(loss.values[0])))
        return bool(known[-1] >= self.loss_growth * usual)

    def _is_unseen(self, view: RunView) -> bool:
        """Tell whether the loss of a network in float16 was lost, out of nothing, in a step that was not recorded."""
        step = view.scalar("loss").first_non_finite
        if step is None or view.facts.of(FactKind.NON_FINITE_INPUT):
            return False
        weighty = [info for info in view.layers if info.num_parameters]
        recorded = (view.first_steps <= step) & (step <= view.last_steps)
        return (
            bool(weighty)
            and all(info.dtype == HALF for info in weighty)
            and view.facts.looked(FactKind.SKIPPED_UPDATE) is None
            and not (recorded & (view.num_recorded == view.last_steps - view.first_steps + 1)).any()
            and not self._had_exploded(view, step)
        )

    def _unseen(self, view: RunView) -> Finding:
        loss = view.scalar("loss")
        step = int(loss.first_non_finite or 0)
        known = loss.values[(loss.steps < step) & np.isfinite(loss.values)]
        before = {"loss_before": float(known[-1])} if known.size else {}
        return Finding(
            rule=self.id,
            severity=Severity.ERROR,
            layer=None,
            first_step=step,
            last_step=max(view.num_steps - 1, step),
            evidence={"loss_step": float(step), "dtype": HALF, **before},
            message=(
                f"The loss became NaN or infinite at step {step} though it had not grown, and all layers compute in float16,"
                " whose largest number is 65,504, without a gradient scaler. That step was not recorded, so the layer is not"
                " known: record every step (budget=None) to see it."
            ),
            remedies=(
                Remedy("compute in bfloat16", "model", HALF, "bfloat16"),
                Remedy(
                    "use torch.autocast with a GradScaler and keep weights in float32",
                    "model",
                    HALF,
                    "float32",
                ),
            ),
            reference=self.reference,
        )

    def _finding(self, view: RunView, position: int, step: int, largest: float) -> Finding:
        name = view.layers[position].name
        magnitude = _magnitude(view, position)
        loss = view.scalar("loss")
        lost = loss.first_non_finite is not None
        remedy = Remedy("compute in bfloat16", name, HALF, "bfloat16")
        end = int(view.last_steps[-1])
        return Finding(
            rule=self.id,
            severity=Severity.ERROR if lost else Severity.WARNING,
            layer=name,
            first_step=step,
            last_step=max(step, end),
            evidence={
                "largest_finite": largest,
                "largest_of_float16": LARGEST,
                "largest_at_first": float(magnitude[0]),
                "dtype": HALF,
            },
            message=(
                f"At step {step} outputs of {name} passed 65,504, the largest number of float16, and became infinite: the"
                f" largest that was still finite is {number(largest)}."
                f" {'The loss followed.' if lost else 'The loss stayed finite.'}"
            ),
            remedies=(
                remedy,
                Remedy("put a norm in front of it, or scale its inputs down", name),
                Remedy("use torch.autocast and keep weights and sums in float32", "model", HALF, "float32"),
            ),
            reference=self.reference,
        )

    def _all_skipped(self, view: RunView, fact: Fact) -> Finding:
        step = min(fact.since, view.final_step)
        num = fact.number("in_a_row")
        return Finding(
            rule=self.id,
            severity=Severity.ERROR,
            layer=None,
            first_step=step,
            last_step=max(view.num_steps - 1, step),
            evidence={"skipped": fact.number("skipped"), "in_a_row": num, "scale": fact.number("scale")},
            message=(
                f"The gradient scaler left out the last {num:.0f} updates: gradients are not finite even at a scale of"
                f" {number(fact.number('scale'))}, so the weights do not move any more."
            ),
            remedies=(
                Remedy("compute in bfloat16, without a scaler", "autocast", HALF, "bfloat16"),
                Remedy(
                    "look for NaN in the data and for divisions by 0 in the loss", "data and loss function"
                ),
            ),
            reference=self.reference,
        )


def _magnitude(view: RunView, position: int) -> Floats:
    """Return the largest finite magnitude of a layer's outputs in each bucket (T,), 0 where there is none."""
    extremes = view.rows[:, position, [Field.MIN, Field.MAX]]
    largest: Floats = np.abs(np.where(np.isfinite(extremes), extremes, 0.0)).max(axis=1)
    return largest
