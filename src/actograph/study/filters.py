"""Why double the filters after each stride-2 convolution? Doubling, constant, constant at equal compute, and no stride.

No idea of processes or pages.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from torch import nn

from actograph.data.loaders import Loaders
from actograph.errors import UsageError
from actograph.models.network import Network
from actograph.models.shapes import LayerShape
from actograph.models.table import layer_table
from actograph.show import words
from actograph.study import figures
from actograph.study.chapter import Chapter, Picture, Table
from actograph.study.estimate import Estimate, mean_of
from actograph.study.pace import Pacer, in_turns
from actograph.study.study import Results, Study, seeds_of
from actograph.study.tell import better, joined, share
from actograph.study.training import learner_for, result_of
from actograph.study.trial import Trial, Values

DOUBLING, CONSTANT, EQUAL, UNSTRIDED = (
    "doubling",
    "constant",
    "constant, equal compute",
    "doubling, no stride",
)
TRAINED = (DOUBLING, CONSTANT, EQUAL, UNSTRIDED)
FULL_UNSTRIDED = (
    "doubling, no stride, full width"  # too much compute to be trained here: its layers are listed
)
FAMILIES = ("simple_cnn", "simple_cnn_bn")
NARROWER = 4  # the unstrided network's widths are divided by it: its first layer then gives as many numbers as with stride
MAX_WIDTH = 1024  # filters; where the search for equal compute ends
LEVEL = 1.25  # times; two layers whose compute differs by less are called level
PACE = "pace"
PACE_ROUNDS = 3


class Filters(Study):
    """The same convolutions with filters that double, that stay, that stay at equal compute, and without strides."""

    name = "filters"
    question = "Why double the filters after each stride-2 convolution?"
    textbook = (
        "A stride of 2 quarters the grid; with twice the filters the compute of each layer stays level while "
        "features become "
        "richer."
    )
    default_epochs = 3

    def check(self) -> None:
        """Refuse networks whose filters cannot be varied here."""
        if self.setup.model not in FAMILIES:
            raise UsageError(
                f"filters varies the network's own widths, and cannot in {self.setup.told_model}: give --model "
                f"{' or '.join(FAMILIES)}"
            )

    def trials(self) -> Sequence[Trial]:
        """Return a training of each variant and seed, and the paces, measured in turns."""
        paces = [Trial(PACE, seed, is_timed=True) for seed in range(self.setup.seeds)]
        return [*seeds_of(self.setup, TRAINED), *paces]

    def measure(self, trial: Trial, folder: Path) -> Values:
        """Train the variant, or measure how fast all train."""
        loaders = self.setup.open(trial.seed)
        if trial.variant == PACE:
            pacers = {
                name: Pacer(
                    self.setup, self.setup.batch_size, trial.seed, self.build(name, trial.seed, loaders)
                )
                for name in TRAINED
            }
            return {"paces": in_turns(pacers, PACE_ROUNDS)}
        assert self.setup.epochs is not None
        model = self.build(trial.variant, trial.seed, loaders)
        learner = learner_for(self.setup, trial, folder, model=model, loaders=loaders)
        learner.fit_one_cycle(self.setup.epochs)
        return result_of(learner)

    def build(self, variant: str, seed: int, loaders: Loaders) -> nn.Module:
        """Build a variant's network."""
        doubling = self.setup.build(seed, loaders)
        assert isinstance(doubling, Network)
        assert doubling.config is not None
        widths = doubling.config.options["channels"]
        assert isinstance(widths, list)
        if variant == DOUBLING:
            return doubling
        if variant == CONSTANT:
            return self._with(seed, loaders, [widths[0]] * len(widths))
        if variant == EQUAL:
            wanted = total_macs(conv_rows(doubling, loaders))
            return self._with(seed, loaders, [self._width_of(wanted, len(widths), loaders)] * len(widths))
        narrower = 1 if variant == FULL_UNSTRIDED else NARROWER
        return without_stride(self._with(seed, loaders, [max(width // narrower, 1) for width in widths]))

    def _with(self, seed: int, loaders: Loaders, widths: list[int]) -> nn.Module:
        return self.setup.build(seed, loaders, channels=widths)

    def _width_of(self, wanted: int, depth: int, loaders: Loaders) -> int:
        """Return the constant width whose compute is nearest to what is wanted."""
        low, high = 1, MAX_WIDTH
        while high - low > 1:  # compute grows with the width
            middle = (low + high) // 2
            is_less = self._macs_of(middle, depth, loaders) <= wanted
            low, high = (middle, high) if is_less else (low, middle)
        return min((low, high), key=lambda width: abs(self._macs_of(width, depth, loaders) - wanted))

    def _macs_of(self, width: int, depth: int, loaders: Loaders) -> int:
        return total_macs(conv_rows(self._with(0, loaders, [width] * depth), loaders))

    def conclude(self, results: Results) -> Chapter:
        """Compare compute layer by layer, and accuracy and pace with doubling."""
        loaders = self.setup.open()
        rows = {name: conv_rows(self.build(name, 0, loaders), loaders) for name in (*TRAINED, FULL_UNSTRIDED)}
        macs = {name: total_macs(one) for name, one in rows.items()}
        paces = self._paces(results)
        names = [name for name in TRAINED if name in results.variants]
        accuracy = {name: results.mean(name, "accuracy") for name in names}
        return Chapter(
            self.name,
            self.question,
            self.textbook,
            [
                *level_told(rows[DOUBLING]),
                *self._costs(results, macs, paces),
                f"Without strides the same widths would take "
                f"{words.number(macs[FULL_UNSTRIDED] / macs[DOUBLING])} times the "
                f"compute: it is the stride that pays for the filters (not trained; with widths over {NARROWER} "
                "it still takes "
                f"{words.number(macs[UNSTRIDED] / macs[DOUBLING])} times).",
            ],
            [
                Table(
                    "Each variant: mean over the seeds with its 95 % interval, cost for one image",
                    [
                        "filters",
                        "widths",
                        "accuracy",
                        "validation loss",
                        "MACs",
                        "parameters",
                        "samples/s, of doubling's",
                    ],
                    [
                        [
                            name,
                            "-".join(str(row.window.filters) for row in rows[name] if row.window is not None),
                            accuracy.get(name),
                            results.mean(name, "valid_loss") if name in names else None,
                            macs[name],
                            sum(row.parameters for row in rows[name]),
                            paces.get(name),
                        ]
                        for name in rows
                    ],
                ),
                *(layer_tables(rows)),
            ],
            [
                Picture(
                    figures.curves(
                        {
                            name: (
                                list(range(1, len(one) + 1)),
                                [Estimate(float(row.macs), np.nan, np.nan, 1) for row in one],
                            )
                            for name, one in rows.items()
                        },
                        "convolution",
                        "multiply-accumulates for one image",
                        is_log_y=True,
                    )
                    .update_xaxes(dtick=1)
                    .update_yaxes(dtick=1)  # powers of ten
                    .update_layout(legend={"y": 1.02, "yanchor": "bottom"}),  # off the lines
                    "Compute of each convolution, from the first to the last: level is a horizontal line.",
                    "Multiply-accumulates of each convolution for each variant",
                ),
                Picture(
                    figures.intervals(accuracy, "accuracy on the validation data"),
                    "Accuracy of each variant.",
                    "Accuracy of each variant with its interval",
                ),
            ],
            f"{self.setup.epochs} epochs of {self.setup.told_model} on {self.setup.told_data}, AdamW, one-cycle "
            "up to a rate of "
            f"{self.setup.lr:g} (found for the doubling network, the same for all), batches of "
            f"{self.setup.batch_size}. Equal "
            "compute: the constant width whose multiply-accumulates are nearest to those of doubling. No stride: "
            "the same "
            f"kernels at stride 1, widths divided by {NARROWER}, pooled at the end only; it sees a smaller part "
            "of the image. "
            "Samples a second are measured in one thread, after all trainings, all variants in turns, as ratios within a "
            "round. Differences "
            "are between equal seeds.",
            results.failures,
            {
                "accuracy": accuracy,
                "macs": macs,
                "layer_macs": {name: [row.macs for row in one] for name, one in rows.items()},
                "pace_ratio": paces,
            },
        )

    def _paces(self, results: Results) -> dict[str, Estimate]:
        """Estimate the samples a second of each variant over those of doubling, in equal rounds; the median of each seed."""
        measured = [values["paces"] for values in results.of(PACE).values()]
        return {
            name: mean_of(
                [
                    statistics.median(a / b for a, b in zip(one[name], one[DOUBLING], strict=True))
                    for one in measured
                ]
            )
            for name in (TRAINED if measured else ())
        }

    def _costs(self, results: Results, macs: Mapping[str, int], paces: Mapping[str, Estimate]) -> list[str]:
        if DOUBLING not in results.variants:
            return ["Accuracy cannot be compared: no training of the doubling network came through."]
        others = [name for name in TRAINED if name != DOUBLING and name in results.variants]
        told = []
        for name in others:
            gap = results.difference(name, DOUBLING, "accuracy", num_looks=len(others))
            sentence = better(f"“{name}”", f"“{DOUBLING}”", gap, "accuracy")
            part = macs[name] / macs[DOUBLING]
            cost = (
                f"The network “{name}” takes {share(part)} of the compute"
                if part < 1
                else f"The network “{name}” takes {words.number(part)} times the compute"
            )
            pace = paces.get(name)
            if pace is not None:
                cost += f" and goes through {words.number(pace.value)} times as many samples a second"
                cost += (
                    ""
                    if (pace.is_known and (pace.low > 1 or pace.high < 1))
                    else " (not told apart from once)"
                )
            told.append(f"{sentence} {cost}.")
        return told


def conv_rows(model: nn.Module, loaders: Loaders) -> list[LayerShape]:
    """Return the convolutions of the network in order, for one image."""
    assert loaders.input_size is not None
    return [
        row
        for row in layer_table(model, loaders.input_size).rows
        if row.window is not None and row.window.filters
    ]


def total_macs(rows: Sequence[LayerShape]) -> int:
    """Sum the multiply-accumulates."""
    return sum(row.macs for row in rows)


def without_stride(model: nn.Module) -> nn.Module:
    """Set the stride of all convolutions to 1."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
    return model


def level_told(rows: Sequence[LayerShape]) -> list[str]:
    """Say between which neighbouring layers the compute stays level, and where and why it does not."""
    level, others = [], []
    for number, (before, after) in enumerate(pairwise(rows), start=1):
        ratio = after.macs / before.macs
        pair = f"from convolution {number} to {number + 1}"
        if 1 / LEVEL <= ratio <= LEVEL:
            level.append(f"{pair} ({words.number(ratio)} times)")
        else:
            others.append(f"{pair} it {_change(ratio)} ({_reason(before, after)})")
    told = (
        f"Compute stays level {joined(level)}"
        if level
        else "Compute stays level between no two neighbouring layers"
    )
    if others:
        told += f"; {joined(others)}"
    largest, least = max(row.macs for row in rows), min(row.macs for row in rows)
    return [
        f"{told}. The largest layer takes {words.number(largest / least)} times the compute of the smallest."
    ]


def _change(ratio: float) -> str:
    return f"grows {words.number(ratio)} times" if ratio > 1 else f"falls to {share(ratio)}"


def _reason(before: LayerShape, after: LayerShape) -> str:
    """Take the change apart: grid positions, inputs of a window, filters."""
    assert before.window is not None
    assert after.window is not None
    parts = {
        "positions": (before.positions, after.positions),
        "inputs of a window": (before.window.inputs, after.window.inputs),
        "filters": (before.window.filters, after.window.filters),
    }
    return ", ".join(f"{name} {a} to {b}" for name, (a, b) in parts.items())


def layer_tables(rows: Mapping[str, Sequence[LayerShape]]) -> list[Table]:
    """Return the layers of each variant: grid by formula and real, compute, parameters, activations."""
    return [
        Table(
            f"Layers of “{name}”, for one image",
            [
                "layer",
                "grid by (n + 2p - k) // s + 1",
                "real grid",
                "filters",
                "MACs",
                "parameters",
                "activation bytes",
            ],
            [
                [
                    row.name,
                    _grid(row.predicted_grid),
                    _grid(row.grid),
                    row.window.filters if row.window is not None else None,
                    row.macs,
                    row.parameters,
                    row.activation_bytes,
                ]
                for row in one
            ],
        )
        for name, one in rows.items()
    ]


def _grid(grid: tuple[int, ...] | None) -> str | None:
    return None if grid is None else words.TIMES.join(map(str, grid))
