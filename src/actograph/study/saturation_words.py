"""What the numbers of the saturation study say, in sentences.

No idea of how they were measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from actograph.show.words import number
from actograph.study.estimate import Estimate, difference_of, mean_of
from actograph.study.study import Results
from actograph.study.tell import better, joined, share

BySeed = Mapping[int, float]

NEAR_BEST = 0.1  # of accuracy below the best network's: among the good ones
WELL_BELOW = 0.5  # of the best network's accuracy: lost
FEW = 0.05  # share of values: hardly any
UNEVEN = 1.0  # orders of magnitude: of gradients that have vanished or exploded


def verdict(
    results: Results, first: Mapping[str, BySeed], during: Mapping[str, BySeed]
) -> tuple[list[str], dict[str, Any]]:
    """Return the sentences, and their numbers by name."""
    told, culprit = _culprit(first)
    sentences = [
        *told,
        *_healthy(results),
        *_lost(results),
        *_starts(results),
        *_norm(results),
        *_dead(results, during),
    ]
    facts = {
        "strongest": culprit,
        "at_first_step": {name: mean_of(list(one.values())) for name, one in first.items() if one},
        "over_training": {name: mean_of(list(one.values())) for name, one in during.items() if one},
    }
    return sentences, facts


def _culprit(first: Mapping[str, BySeed]) -> tuple[list[str], str | None]:
    """Say what at the first step goes with lost accuracy, where the seeds tell it from the next."""
    looks = len(first)
    known = {name: mean_of(list(one.values()), num_looks=looks) for name, one in first.items() if one}
    if not known:
        return ["Nothing can be told: no number varied together with the accuracy."], None
    ranked = sorted(known, key=lambda name: known[name].value)
    top = ranked[0]
    if not (known[top].excludes_zero and known[top].value < 0):
        return [
            "No property of the first step goes with lost accuracy beyond what seeds differ: the strongest is "
            f"“{top}” ({_rank(known[top])})."
        ], None
    rest = [f"“{name}” {_rank(known[name])}" for name in ranked[1:]]
    level = [name for name in ranked[1:] if not _weaker(first[name], first[top], looks)]
    if level:
        return [
            f"What goes with lost accuracy most is “{top}” (rank correlation {_rank(known[top])}), but the seeds do not "
            f"tell it from {joined([f'“{name}” ({_rank(known[name])})' for name in level])}."
        ], None
    against = f"; the others are {joined(rest)}" if rest else ""
    return [
        f"What goes with lost accuracy, as it stands at the first step, is “{top}” (rank correlation "
        f"{_rank(known[top])}){against}."
    ], top


def _weaker(one: BySeed, top: BySeed, looks: int) -> bool:
    difference = difference_of(one, top, num_looks=looks)
    return difference.excludes_zero and difference.value > 0


def _rank(estimate: Estimate) -> str:
    if not estimate.is_known:
        return f"{estimate.value:.2f}"
    return f"{estimate.value:.2f}, between {max(estimate.low, -1):.2f} and {min(estimate.high, 1):.2f}"


def _best(results: Results) -> float:
    return max(results.mean(name, "accuracy").value for name in results.variants)


def _healthy(results: Results) -> list[str]:
    """Name the good network with the most values flat at zero, and that with most in the tails."""
    best = _best(results)
    good = [name for name in results.variants if results.mean(name, "accuracy").value >= best - NEAR_BEST]
    told = []
    for column, where in (("zero", "flat at zero"), ("tails", "in the saturated tails")):
        most = max(good, key=lambda name: results.mean(name, column).value)
        value = results.mean(most, column).value
        if value > FEW:
            told.append(
                f"“{most}” has {share(value)} of its values {where} and is among the best (accuracy "
                f"{number(results.mean(most, 'accuracy').value)}, best {number(best)}): so much of it alone does no harm."
            )
    return told


def _lost(results: Results) -> list[str]:
    """Name the network that lost with fewest values that are flat or near zero at the first step."""
    best = _best(results)
    lost = [name for name in results.variants if results.mean(name, "accuracy").value < WELL_BELOW * best]
    if not lost:
        return ["No network lost half of the best one's accuracy: here nothing vanished for good."]

    def marked(name: str) -> float:
        return sum(
            results.mean(name, column).value for column in ("tails_start", "zero_start", "near_zero_start")
        )

    least = min(lost, key=marked)
    if marked(least) >= FEW:
        return [
            f"Of the {len(lost)} networks that lost half of the best accuracy, all had many values flat or near zero at the "
            f"first step (least “{least}”)."
        ]
    ratio = results.mean(least, "ratio_start").value
    blocks = len(next(iter(results.of(least).values()))["gradients"])
    factor = 10 ** (ratio / (blocks - 1))
    why = (
        f"its gradients change by a factor of {number(factor)} from block to block on the way down, {number(10**ratio)} "
        "over all of them"
        if abs(ratio) >= UNEVEN
        else "nor do its gradients vanish: the first step does not show why"
    )
    bound = (
        " (the slope of a sigmoid is at most 1/4, also where it is steepest)"
        if least.startswith("sigmoid") and factor < 1
        else ""
    )
    return [
        f"“{least}” begins with hardly a value flat or near zero ({share(marked(least))}) and reaches an accuracy of "
        f"{number(results.mean(least, 'accuracy').value)} only: {why}{bound}."
    ]


def _starts(results: Results) -> list[str]:
    """Compare three starts of the same network: the experiment behind the correlation."""
    told = []
    for act in ("relu", "tanh", "sigmoid"):
        plain, kept, outward = (
            _started(results, act, kind) for kind in ("", ", signal kept", ", pushed outward")
        )
        if plain and kept:
            gain = results.difference(kept, plain, "accuracy", num_looks=2)
            zeros = [share(results.mean(name, "zero_start").value) for name in (plain, kept)]
            extra = f" Flat at zero are {zeros[0]} and {zeros[1]} of the values." if act == "relu" else ""
            told.append(
                better(
                    f"{act} whose weights are set so that the signal keeps its size",
                    "the same net as torch starts it",
                    gain,
                    "accuracy",
                )
                + extra
            )
        if kept and outward:
            loss = results.difference(outward, kept, "accuracy", num_looks=2)
            tails = results.mean(outward, "tails_start").value
            where = f" ({share(tails)} in the tails)" if tails > FEW else " (no tails to be in)"
            told.append(better(f"{act} with ten times larger inputs{where}", "that", loss, "accuracy"))
    return told


def _started(results: Results, act: str, kind: str) -> str | None:
    """Return the name of the network of this start, None where no training of it came through."""
    depths = {
        one.trial.options["depth"] for one in results.outcomes if one.trial.options["start"] is not None
    }
    names = [f"{act}, depth {depth}{kind}" for depth in depths]
    return next((name for name in names if name in results.variants), None)


def _norm(results: Results) -> list[str]:
    """Tell what BatchNorm does to gradients and accuracy of the deepest networks."""
    depth = max(one.trial.options["depth"] for one in results.outcomes)
    acts = list(dict.fromkeys(one.trial.options["act"] for one in results.outcomes))
    pairs = [(f"{act}, depth {depth}", f"{act}, depth {depth}, BatchNorm") for act in acts]
    pairs = [pair for pair in pairs if set(pair) <= set(results.variants)]
    if not pairs:
        return []
    before, after = ([results.mean(pair[side], "ratio_start").value for pair in pairs] for side in (0, 1))
    gains = {
        pair[0]: results.difference(pair[1], pair[0], "accuracy", num_looks=len(pairs)) for pair in pairs
    }
    higher = [name for name, gain in gains.items() if gain.excludes_zero and gain.value > 0]
    lower = [name for name, gain in gains.items() if gain.excludes_zero and gain.value < 0]
    open_ = [name for name in gains if name not in (*higher, *lower)]
    effects = [
        f"{what} for {joined([name.split(',')[0] for name in names])}"
        for what, names in (
            ("raises accuracy", higher),
            ("lowers it", lower),
            ("shows no effect that the seeds tell", open_),
        )
        if names
    ]
    return [
        f"At depth {depth} the first block's gradient is {_span(before)} that of the last without BatchNorm, "
        f"{_span(after)} with it; it {joined(effects)}."
    ]


def _span(logs: Sequence[float]) -> str:
    low, high = number(10 ** min(logs), 2), number(10 ** max(logs), 2)
    return f"{low} to {high} times" if low != high else f"{low} times"


def _dead(results: Results, during: Mapping[str, BySeed]) -> list[str]:
    most = max(results.variants, key=lambda name: results.mean(name, "dead").value)
    value = results.mean(most, "dead").value
    if value <= FEW:
        return [f"Dead units are rare: “{most}” has most, {share(value)} at the end."]
    known = during.get("dead units")
    relation = mean_of(list(known.values())) if known else None
    tail = (
        f", over all networks their rank correlation with accuracy is {_rank(relation)}" if relation else ""
    )
    return [
        f"“{most}” ends with most dead units, {share(value)} (accuracy "
        f"{number(results.mean(most, 'accuracy').value)}){tail}."
    ]
