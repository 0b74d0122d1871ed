"""What the trials of `batch-size` say: which sizes are useful, at which rate, and what they cost.

No idea of how it was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from actograph.show import words
from actograph.study.batch_size_results import (
    EPOCHS,
    LINEAR,
    MEMORY,
    ROOT,
    SAME,
    STEPS,
    TIME,
    Sizes,
    noise_of,
    noise_scale,
    paces_of,
    trainings,
)
from actograph.study.batch_size_shown import MIB, POINT_NAMES, pictures, tables
from actograph.study.chapter import Chapter
from actograph.study.estimate import Estimate, difference_of
from actograph.study.setup import Setup
from actograph.study.study import Results
from actograph.study.tell import better, joined

if TYPE_CHECKING:
    from actograph.study.study import Study

WORTH = 1.1  # times the samples a second: less is no reason to double a batch


def batch_size_chapter(study: Study, setup: Setup, results: Results) -> Chapter:
    """Return the chapter of a study's results."""
    sizes = Sizes.of(results, setup.batch_size)
    paces = paces_of(results)
    memory = next(iter(results.of(MEMORY).values()), None)
    noise = noise_of(results)
    sentences = [
        *_use(sizes),
        *_budgets(sizes),
        *_rates(results, setup.batch_size),
        *_pace(paces),
        *_noise_told(noise, list(sizes.best[EPOCHS])),
        *_memory_told(memory),
    ]
    return Chapter(
        study.name,
        study.question,
        study.textbook,
        sentences,
        tables(sizes, paces, memory, results),
        list(pictures(sizes, paces, memory, noise)),
        _method(setup, results),
        results.failures,
        _facts(sizes, paces, memory, noise),
    )


# Sentences


def _use(sizes: Sizes) -> list[str]:
    """Say up to which size batches are useful when time is what counts."""
    known = list(sizes.best[TIME])
    if len(known) == 1:
        return ["Nothing can be said about equal time: no training came through."]
    best = max(known, key=lambda size: sizes.accuracy(TIME, size).value)
    looks = len(known) - 1
    behind = {size: sizes.difference(TIME, best, size, looks) for size in known if size != best}
    worse = [size for size, gap in behind.items() if gap.excludes_zero]
    first = next((size for size in known if size > best and size in worse), None)
    told = (
        f"In equal time batches of {best} reach the most, {_accuracy(sizes, TIME, best)} at a rate of "
        f"{_rate(sizes, TIME, best)}"
    )
    equal = [str(size) for size in behind if size not in worse]
    told += (
        f"; {joined(equal)} cannot be told from it."
        if equal
        else "; every other size is shown to reach less."
    )
    if first is not None:
        last = known[known.index(first) - 1]
        gap = behind[first]
        perhaps = f" (perhaps up to {last})" if last != best else ""
        return [
            f"Batches are useful up to {best} here{perhaps}, with a rate of {_rate(sizes, TIME, best)}: in equal time "
            f"{first} falls "
            f"{_points(gap.value)} points behind {best} ({_points(gap.low)} to {_points(gap.high)}).",
            told,
        ]
    if best == known[-1]:
        return [f"Batches are useful up to {best} at least, the largest that was tried.", told]
    return [
        "Up to which size batches are useful cannot be told: no larger size is shown to reach less in equal time.",
        told,
    ]


def _budgets(sizes: Sizes) -> list[str]:
    """Say what the largest and the smallest size gain and lose against the base at equal epochs and steps."""
    told = []
    for budget in (EPOCHS, STEPS):
        known = list(sizes.best[budget])
        ends = [size for size in dict.fromkeys((known[-1], known[0])) if size != sizes.base]
        gaps = {
            size: sizes.difference(budget, size, sizes.base, len(ends))
            for size in ends
            if sizes.base in known
        }
        told += [
            _upper(better(f"a batch of {size}", f"one of {sizes.base}", gap, f"accuracy at equal {budget}"))
            for size, gap in gaps.items()
        ]
    return told


def _rates(results: Results, base: int) -> list[str]:
    """Say for each size whether the rate that grows with the root of the batch is better than the same rate."""
    variants = {(o["budget"], int(o["size"]), o["rule"]): name for name, o in trainings(results).items()}
    pairs = {
        size: (name, variants[EPOCHS, size, SAME])
        for (budget, size, rule), name in variants.items()
        if budget == EPOCHS and rule == ROOT and (EPOCHS, size, SAME) in variants
    }
    told, open_sizes = [], []
    for size, (root, same) in pairs.items():
        gap = results.difference(root, same, "accuracy", num_looks=len(pairs))
        lr = {name: next(iter(results.of(name).values()))["lr"] for name in (root, same)}
        if not gap.excludes_zero:
            open_sizes.append(str(size))
            continue
        a = f"at equal epochs a batch of {size} with the rate {words.number(lr[root])} (by the root of the size)"
        told.append(_upper(better(a, f"with {words.number(lr[same])}, that of {base},", gap, "accuracy")))
    if open_sizes:
        told.append(
            f"Whether the rate should grow with the root of the batch cannot be told at equal epochs for "
            f"{joined(open_sizes)}."
        )
    for (_, size, rule), name in variants.items():
        failed, num = sum(v["is_guessing"] for v in results.of(name).values()), len(results.of(name))
        if rule == LINEAR and size > base and failed:
            told.append(
                f"A rate that grows like the batch itself leaves {failed} of {num} trainings with batches of "
                f"{size} guessing."
            )
    return told


def _pace(paces: Mapping[int, Estimate]) -> list[str]:
    """Say how the samples a second grow, and where doubling a batch stops to pay."""
    if not paces:
        return []
    sizes = list(paces)
    gains = {b: paces[b].value / paces[a].value for a, b in pairwise(sizes)}
    last = next((a for a, b in pairwise(sizes) if gains[b] < WORTH), sizes[-1])
    total = paces[sizes[-1]].value / paces[sizes[0]].value
    told = (
        f"A batch {sizes[-1] // sizes[0]} times as large goes through {words.number(total, 2)} times as many "
        "samples a second "
        f"({words.number(paces[sizes[0]].value)} with {sizes[0]}, {words.number(paces[sizes[-1]].value)} with "
        f"{sizes[-1]})"
    )
    if last == sizes[-1]:
        return [f"{told}; every doubling still gives more than {100 * (WORTH - 1):.0f} %."]
    after = last * 2
    return [
        f"{told}; doubling {last} is the first that gives less than {100 * (WORTH - 1):.0f} % ({_change(gains[after])})."
    ]


def _noise_told(noise: Sequence[Mapping[int, Mapping[str, Any]]], sizes: Sequence[int]) -> list[str]:
    """Say how the noise scale changes along the training, and which sizes lie above it."""
    scales = [noise_scale(point.values()) for point in noise]
    if not scales:
        return []
    if not all(scale.is_known for scale in scales):
        return [
            "The gradient noise scale cannot be told at every point of the training: there the gradient over all "
            "samples is "
            "too small beside its noise."
        ]
    named = [f"{_size_range(scale)} {when}" for scale, when in zip(scales, POINT_NAMES, strict=True)]
    told = [
        f"The gradient noise scale, the batch at which noise and gradient are of one size, is {joined(named)}: "
        + joined(
            [_way(a, b, where) for a, b, where in zip(noise, noise[1:], ("first", "then"), strict=False)]
        )
        + "."
    ]
    saved = [f"{words.percent(steps_saved(size, scales[-1].value))} at {size}" for size in sizes]
    told.append(
        f"With steps in proportion to 1 + scale / batch (McCandlish et al. 2018) doubling a batch saves "
        f"{joined(saved)} of "
        "the steps at the end; it costs twice the samples a step, so that 50 % would be for nothing."
    )
    return told


def steps_saved(size: int, scale: float) -> float:
    """Return the share of the steps that doubling a batch saves, where they go like 1 + scale / batch.

    >>> steps_saved(100, 100.0), round(steps_saved(1, 1e9), 3)
    (0.25, 0.5)
    """
    return 1 - (1 + scale / (2 * size)) / (1 + scale / size)


def _way(before: Mapping[int, Mapping[str, Any]], after: Mapping[int, Mapping[str, Any]], where: str) -> str:
    """Say how the noise scale goes from one point to the next, seeds paired."""
    growth = difference_of(
        *({seed: math.log(one["scale"]) for seed, one in point.items()} for point in (after, before))
    )
    if not growth.excludes_zero:
        return f"{where} it changes by an amount that the seeds do not tell"
    factor = words.number(math.exp(abs(growth.value)), 2)
    return f"{where} it {'grows' if growth.value > 0 else 'falls'} by a factor of {factor}"


def _memory_told(memory: Mapping[str, Any] | None) -> list[str]:
    """Say how far the prediction from what backward keeps is from the measured peak."""
    if memory is None:
        return []
    per_sample = memory["per_sample"]
    kept = f"Backward keeps {words.number(per_sample / 1024)} KiB of a sample"
    peaks = {int(size): float(peak) for size, peak in memory["peaks"].items()}
    if not peaks:
        return [f"{kept}; the peak was not measured ({memory['why_not'] or 'no size fitted its limit'})."]
    largest = max(peaks)
    ratio = peaks[largest] / (per_sample * largest)
    rest = (
        "kept tensors are not all that training takes; what the rest is was not measured."
        if ratio > WORTH
        else "so that the prediction holds."
        if ratio > 1 / WORTH
        else "less than predicted: memory that had been used before was used again."
    )
    return [
        f"{kept}; at {largest} that predicts {words.number(per_sample * largest / MIB)} MiB, and the peak rises by "
        f"{words.number(peaks[largest] / MIB)} MiB, {words.number(ratio, 2)} times as much: {rest}"
    ]


def _facts(
    sizes: Sizes,
    paces: Mapping[int, Estimate],
    memory: Mapping[str, Any] | None,
    noise: Sequence[Mapping[int, Mapping[str, Any]]],
) -> dict[str, Any]:
    accuracy = {
        budget: {str(size): sizes.accuracy(budget, size) for size in by_size}
        for budget, by_size in sizes.best.items()
    }
    rates = {
        budget: {str(size): sizes.rate(budget, size) for size in by_size}
        for budget, by_size in sizes.best.items()
    }
    told = zip(POINT_NAMES, noise, strict=False)
    return {
        "accuracy": accuracy,
        "rates": rates,
        "samples_per_s": {str(size): pace for size, pace in paces.items()},
        "noise_scale": {name: noise_scale(one.values()) for name, one in told},
        "memory": None if memory is None else dict(memory),
    }


def _method(setup: Setup, results: Results) -> str:
    pairs = next((one for point in noise_of(results) for one in point.values()), None)
    about_noise = (
        ""
        if pairs is None
        else (
            f" Noise scale (McCandlish et al. 2018, appendix A.1): {pairs['pairs']} pairs of a batch of "
            f"{pairs['big_size']} and of "
            f"its parts of {setup.batch_size}, at the weights after 5 %, half and all of the base's training; "
            "numerator and "
            "denominator are averaged before they are divided, the interval of the pairs is Fieller's, that of "
            "the chapter is "
            "over the seeds. In training mode, so that dropout's noise is in it; batch norms use the means over "
            "all data, for "
            "with their own the gradient of a big batch is not the mean of small ones'. It is the noise of the "
            "gradient itself, "
            "not of Adam's step."
        )
    )
    return (
        f"{setup.told_model} on {setup.told_data}, AdamW, one-cycle schedule over the length of each training. "
        "The base is "
        f"batches of {setup.batch_size} for {setup.epochs} epochs at a highest rate of {setup.lr:g}; each other "
        "size has as many "
        "epochs, as many steps, or the steps that take as long at the samples a second measured for the same "
        "seed, in one thread, alone on the "
        "machine and in turns with the other sizes. Rates: the same, times the root of the ratio of the sizes "
        "(Adam), and at equal "
        "epochs times the ratio; the base's, its half and its double. Of these the one with the best mean "
        "accuracy stands for "
        "a size, which favours none but makes all look better by a little. Batches of the same seed begin from "
        "the same weights. "
        "Memory: storages that backward keeps of batches of 16 and 32, each once, as a line; the peak is that of "
        "a process "
        "of its own under a memory limit, above its peak with two samples." + about_noise
    )


# Words


def _accuracy(sizes: Sizes, budget: str, size: int) -> str:
    return words.percent(sizes.accuracy(budget, size).value)


def _rate(sizes: Sizes, budget: str, size: int) -> str:
    return words.number(sizes.rate(budget, size))


def _points(difference: float) -> str:
    return f"{100 * difference:.1f}"


def _change(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.0f} %"


def _size_range(scale: Estimate) -> str:
    return f"{words.number(scale.value, 2)} ({words.number(scale.low, 2)} to {words.number(scale.high, 2)})"


def _upper(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
