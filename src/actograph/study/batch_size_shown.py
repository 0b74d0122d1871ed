"""The tables and figures of `batch-size`.

No idea of how it was measured, nor of what follows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from actograph.show import words
from actograph.study import figures
from actograph.study.batch_size_results import BUDGETS, EPOCHS, TIME, Sizes, noise_of, noise_scale, trainings
from actograph.study.chapter import Picture, Table
from actograph.study.estimate import Estimate
from actograph.study.study import Results

MIB = 2**20  # bytes
POINT_NAMES = ("after 5 % of the training", "half-way", "at the end")


def tables(
    sizes: Sizes, paces: Mapping[int, Estimate], memory: Mapping[str, Any] | None, results: Results
) -> list[Table]:
    shown = [
        Table(
            "Batch sizes, each at the best of its rates: mean over the seeds with its 95 % interval",
            [
                "batch",
                *(f"accuracy, equal {budget}" for budget in BUDGETS),
                "samples/s",
                "rate, equal epochs",
                "rate, equal time",
            ],
            [
                [
                    size,
                    *(
                        sizes.accuracy(budget, size) if size in sizes.best[budget] else None
                        for budget in BUDGETS
                    ),
                    paces.get(size),
                    sizes.rate(EPOCHS, size),
                    sizes.rate(TIME, size) if size in sizes.best[TIME] else None,
                ]
                for size in sizes.best[EPOCHS]
            ],
        ),
        Table(
            "Every training: its rate, its steps, and how often it ended at guessing",
            ["training", "rate", "steps", "epochs", "accuracy", "validation loss", "guessing"],
            [
                [
                    name,
                    (one := next(iter(results.of(name).values())))["lr"],
                    int(one["steps"]),
                    float(one["epochs_seen"]),
                    results.mean(name, "accuracy"),
                    results.mean(name, "valid_loss"),
                    f"{sum(v['is_guessing'] for v in results.of(name).values())} of {len(results.of(name))}",
                ]
                for name in trainings(results)
            ],
        ),
    ]
    rows = [
        [
            f"{name}, seed {seed}",
            one["step"],
            one["signal"],
            one["noise"],
            one["scale"],
            f"{words.number(one['low'])} to {words.number(one['high']) if math.isfinite(one['high']) else 'no end'}",
        ]
        for name, by_seed in zip(POINT_NAMES, noise_of(results), strict=False)
        for seed, one in by_seed.items()
    ]
    heads = [
        "weights",
        "step",
        "squared gradient",
        "variance of a sample's",
        "noise scale",
        "95 % interval of the pairs",
    ]
    shown += [Table("Gradient noise scale at the same weights", heads, rows)] if rows else []
    return shown + ([_memory_table(memory, paces)] if memory is not None else [])


def _memory_table(memory: Mapping[str, Any], paces: Mapping[int, Estimate]) -> Table:
    peaks = {int(size): float(peak) for size, peak in memory["peaks"].items()}
    return Table(
        "Memory of a training step in MiB, and samples a second",
        [
            "batch",
            "kept for backward (predicted)",
            "with parameters and optimizer",
            "peak raised by (measured)",
            "samples/s",
        ],
        [
            [
                size,
                memory["per_sample"] * size / MIB,
                (memory["fixed"] + memory["per_sample"] * size) / MIB,
                peaks[size] / MIB if size in peaks else None,
                paces.get(size),
            ]
            for size in sorted({*peaks, *paces})
        ],
    )


def pictures(
    sizes: Sizes,
    paces: Mapping[int, Estimate],
    memory: Mapping[str, Any] | None,
    noise: Sequence[Mapping[int, Mapping[str, Any]]],
) -> Iterable[Picture]:
    series = {
        f"equal {budget}": (list(map(float, known)), [sizes.accuracy(budget, size) for size in known])
        for budget, known in sizes.best.items()
    }
    yield Picture(
        _at_sizes(
            figures.curves(series, "batch size", "accuracy on the validation data", is_log_x=True),
            sizes.best[EPOCHS],
        ),
        "What a larger batch is worth depends on what is held equal: the samples seen, the steps made, or the "
        "time taken.",
        "Accuracy over batch size at equal epochs, equal steps and equal time",
    )
    if paces:
        smallest = next(iter(paces))
        ideal = [Estimate(paces[smallest].value * size / smallest, math.nan, math.nan, 1) for size in paces]
        xs = list(map(float, paces))
        yield Picture(
            _at_sizes(
                figures.curves(
                    {"measured": (xs, list(paces.values())), "if a step took the same time": (xs, ideal)},
                    "batch size",
                    "samples a second",
                    is_log_x=True,
                    is_log_y=True,
                ),
                paces,
            ),
            "Samples a second: above the bend a batch only takes longer.",
            "Samples a second over batch size, beside a line that grows in proportion",
        )
    if noise and noise[0]:
        scales = {f"{name}": noise_scale(one.values()) for name, one in zip(POINT_NAMES, noise, strict=False)}
        yield Picture(
            figures.intervals(scales, "gradient noise scale (samples)", is_log=True),
            "The batch size at which noise and gradient are of one size, at three points of the training with "
            "the base size.",
            "Gradient noise scale at the beginning, the middle and the end of the training",
        )
    if memory is not None and memory["peaks"]:
        peaks = {int(size): float(peak) / MIB for size, peak in memory["peaks"].items()}
        xs = list(map(float, peaks))
        kept = [Estimate(memory["per_sample"] * size / MIB, math.nan, math.nan, 1) for size in peaks]
        measured = [Estimate(peak, math.nan, math.nan, 1) for peak in peaks.values()]
        yield Picture(
            _at_sizes(
                figures.curves(
                    {"measured peak": (xs, measured), "kept for backward": (xs, kept)},
                    "batch size",
                    "MiB above the smallest batch",
                    is_log_x=True,
                    is_log_y=True,
                ),
                peaks,
            ),
            "Memory grows in proportion to the batch; what backward keeps is a part of it.",
            "Measured peak and memory kept for backward over batch size",
        )


def _at_sizes(figure: Any, sizes: Iterable[int]) -> Any:
    """Label the axis of sizes with these, and keep the legend off the largest, where the lines end."""
    known = list(sizes)
    figure.update_layout(legend={"y": 1.02, "yanchor": "bottom"})
    return figure.update_xaxes(tickvals=known, ticktext=[str(size) for size in known])
