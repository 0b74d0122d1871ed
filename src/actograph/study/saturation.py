"""What is wrong with activations that saturate or sit near zero? Five of them, four depths, with and without BatchNorm.

No idea of sentences: `saturation_words` has them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from actograph.errors import UsageError
from actograph.layout.layer import Nonlinearity
from actograph.layout.row import Floats
from actograph.models.blocks import Norm
from actograph.models.network import Network
from actograph.runlog.view import RunView
from actograph.study import saturation_figures as figures
from actograph.study import saturation_words as words
from actograph.study.chapter import Chapter, Picture, Table
from actograph.study.estimate import Estimate, mean_of
from actograph.study.ladder import WIDTH, ladder, set_input_scale
from actograph.study.study import Results, Study, seeds_of
from actograph.study.training import learner_for, result_of, view_of
from actograph.study.trial import Trial, Values

ACTS = ("relu", "leaky_relu", "gelu", "tanh", "sigmoid")
DEPTHS = (2, 4, 8, 16)
NORMS: Mapping[str, Norm] = {"": None, ", BatchNorm": "batch"}
# standard deviation of what goes into each activation at the first step
STARTS = {"": None, ", signal kept": 1.0, ", pushed outward": 10.0}
START_DEPTH = 8
RATE_SHARE = (
    1 / 3
)  # of the setup's rate, which suits a network of fewer layers: at all of it deep ReLU nets died
TINY = 1e-30  # stands for a gradient of zero: float32 ends at 1e-38
# what might go with lost accuracy -> the number of a training, at its first step and over its steps
SUSPECTS: Mapping[str, tuple[str | None, str]] = {
    "in the saturated tails": ("tails_start", "tails"),
    "flat at zero": ("zero_start", "zero"),
    "near zero": ("near_zero_start", "near_zero"),
    "dead units": (None, "dead"),
    "gradients that shrink or grow over the blocks": ("uneven_start", "uneven"),
}


class Saturation(Study):
    """Five activations, four depths, with and without BatchNorm; and starts that push the activations where wanted."""

    name = "saturation"
    question = "What is wrong with activations that saturate, or sit near zero?"
    textbook = (
        "A saturated sigmoid or tanh has no slope, and a ReLU at zero passes nothing on: either way gradients vanish, "
        "and the layers in front do not learn."
    )
    default_epochs = 1

    def check(self) -> None:
        """Refuse a network of the user's own: its parts cannot be varied."""
        if not self.setup.is_built_in:
            raise UsageError(
                f"saturation varies activation and depth, and cannot in {self.setup.told_model}: leave --model out, it asks "
                "its question on your data; what your own network's layers do `actograph run` records"
            )

    def trials(self) -> Sequence[Trial]:
        """Return the ladder of each activation, depth and norm, then the starts at one depth, for each seed."""
        plain = [
            (variant(act, depth, norm), {"act": act, "depth": depth, "norm": NORMS[norm], "start": None})
            for norm in NORMS
            for act in ACTS
            for depth in DEPTHS
        ]
        started = [
            (
                variant(act, START_DEPTH, start),
                {"act": act, "depth": START_DEPTH, "norm": None, "start": STARTS[start]},
            )
            for start in list(STARTS)[1:]
            for act in ACTS
        ]
        return seeds_of(self.setup, [*plain, *started])

    def measure(self, trial: Trial, folder: Path) -> Values:
        """Train one ladder with its activations and the gradients by them recorded."""
        assert self.setup.lr is not None
        assert self.setup.epochs is not None
        learner = learner_for(
            self.setup,
            trial,
            folder,
            model=self.network(trial),
            select="*.act",
            with_output_gradients=True,
        )
        learner.fit_one_cycle(self.setup.epochs, RATE_SHARE * self.setup.lr)
        return {**result_of(learner), **flatness_of(view_of(learner))}

    def network(self, trial: Trial) -> Network:
        """Return the ladder of a trial with weights of its seed."""
        loaders = self.setup.open(trial.seed)
        assert loaders.num_classes is not None
        assert loaders.input_size is not None
        act, depth, norm, start = (trial.options[name] for name in ("act", "depth", "norm", "start"))
        width = max(round(WIDTH * self.setup.width), 1)
        model = ladder(loaders.num_classes, loaders.input_size, act, depth, norm, width)
        if start is not None:
            set_input_scale(model, next(iter(loaders.train))[0], start)
        return model

    def conclude(self, results: Results) -> Chapter:
        """Rank what could go with lost accuracy, and compare the starts, seeds paired."""
        related = {
            when: {name: relation(results, columns[position]) for name, columns in SUSPECTS.items()}
            for position, when in enumerate(("at the first step", "over the training"))
        }
        sentences, facts = words.verdict(results, related["at the first step"], related["over the training"])
        return Chapter(
            self.name,
            self.question,
            self.textbook,
            sentences,
            [_relations(related), _starts(results), _variants(results)],
            self._pictures(results),
            self._method(),
            results.failures,
            facts,
        )

    def _pictures(self, results: Results) -> list[Picture]:
        depth = max(DEPTHS)
        return [
            Picture(
                figures.suspects(results),
                "Each point is a network, its height the accuracy it ended with (mean over the seeds). What explains lost "
                "accuracy would make the points fall from one side to the other; filled: no norm, open: BatchNorm, cross: "
                "weights set for the signal to be kept, x: weights that push the activations outward.",
                "Accuracy against four properties of the first step, a point for each network",
            ),
            Picture(
                figures.by_block(results, "gradients", depth, "gradient, over that of the last block"),
                f"Gradients by the blocks' outputs at the first step, {depth} blocks, over that of the last block: solid "
                "without, dashed with BatchNorm.",
                "Root mean square of the gradients by block",
            ),
            Picture(
                figures.by_block(results, "flat_layers", depth, "share in the flat region", is_log=False),
                f"Share of each block's values where the slope of its activation is below 0.05, {depth} blocks, mean "
                "over the training: solid without, dashed with BatchNorm. For tanh and sigmoid these are the tails; for the "
                "others it is the side of zero.",
                "Share in the flat region by block",
            ),
        ]

    def _method(self) -> str:
        assert self.setup.lr is not None
        epochs, rate = self.setup.epochs, RATE_SHARE * self.setup.lr
        return (
            f"Networks of this study's own on {self.setup.told_data}: a convolution brings the image to a grid of 7 to 13 "
            f"cells, then 3×3 convolutions of {max(round(WIDTH * self.setup.width), 1)} filters at stride 1, all outputs of "
            "one shape, a linear classifier on 4×4 cells. Weights as torch starts them (uniform, variance 1 / (3 inputs)), "
            "which is what makes signals shrink in deep nets; “signal kept” and “pushed outward” scale them, block by "
            "block, so that what goes into the activations has standard deviation 1 and 10. AdamW, one cycle over "
            f"{epochs} epoch{'s' if epochs != 1 else ''} to {rate:.2g} (a third of the setup's rate, as these nets are "
            f"deeper), batches of {self.setup.batch_size}, every step recorded. Rank correlations (Spearman) are over the "
            "networks, for each seed; their intervals, over seeds, share the 5 % of error. The networks are these, not a "
            "sample of all: another choice gives other correlations. “Shrink or grow” is the size of log10 of the first "
            "over the last block's gradient. Classifier, epochs and rate were chosen by trainings on the digits with "
            "seed 0."
        )


def variant(act: str, depth: int, kind: str = "") -> str:
    """Return a variant's name; ``kind`` is a key of `NORMS` or `STARTS`."""
    return f"{act}, depth {depth}{kind}"


def flatness_of(view: RunView) -> dict[str, Any]:
    """Return where the activations of a run were, at its first step and over its steps, and the gradients by them.

    Shares are means over the layers. Tails are the flat region of sigmoid and tanh, zero that of the others.
    """
    saturates = np.array(
        [one.flat is not None and one.flat.nonlinearity is Nonlinearity.SATURATING for one in view.layers]
    )
    flat, near_zero, dead = (np.nan_to_num(view.column(name)) for name in ("flat", "near_zero", "dead"))
    tails, zero = np.where(saturates, flat, 0.0), np.where(saturates, 0.0, flat)
    gradients = view.gradients.column("rms")  # (T, L): one for each layer, in the same order
    assert [one.name for one in view.gradients.layers] == [one.name for one in view.layers]
    ratio = log_ratio(gradients)
    return {
        "tails_start": float(tails[0].mean()),
        "tails": float(tails.mean()),
        "zero_start": float(zero[0].mean()),
        "zero": float(zero.mean()),
        "near_zero_start": float(near_zero[0].mean()),
        "near_zero": float(near_zero.mean()),
        "dead": float(dead[-1].mean()),
        "ratio_start": float(ratio[0]),
        "ratio": float(ratio.mean()),
        "uneven_start": float(abs(ratio[0])),
        "uneven": float(np.abs(ratio).mean()),
        "flat_layers": flat.mean(axis=0).tolist(),
        "gradients": (gradients[0] / max(float(gradients[0, -1]), TINY)).tolist(),
    }


def log_ratio(gradients: Floats) -> Floats:
    """Return log10 of the first layer's gradients over the last layer's: (T,) of (T, L); NaN where one is not finite."""
    sizes = np.log10(np.maximum(gradients, TINY))
    known: Floats = np.where(
        np.isfinite(gradients[:, 0] + gradients[:, -1]), sizes[:, 0] - sizes[:, -1], np.nan
    )
    return known


def relation(results: Results, column: str | None) -> dict[int, float]:
    """Return the rank correlation of a number with the accuracy over all variants, by seed.

    Trainings whose number is not finite are left out; seeds where one of the two does not vary are, too.
    """
    if column is None:
        return {}
    found = {}
    for seed in sorted({one.trial.seed for one in results.outcomes if one.error is None}):
        pairs = np.array(
            [
                (one.values[column], one.values["accuracy"])
                for one in results.outcomes
                if one.error is None and one.trial.seed == seed and math.isfinite(one.values[column])
            ]
        )
        if len(pairs) > 2 and np.ptp(pairs[:, 0]) > 0 and np.ptp(pairs[:, 1]) > 0:  # noqa: PLR2004 - two are always in line
            found[seed] = float(stats.spearmanr(pairs[:, 0], pairs[:, 1]).statistic)
    return found


def _relations(related: Mapping[str, Mapping[str, Mapping[int, float]]]) -> Table:
    looks = len(SUSPECTS)
    rows = [[name, *(_told(when[name], looks) for when in related.values())] for name in SUSPECTS]
    title = "Rank correlation with the accuracy over all networks: -1 goes with lost accuracy throughout, 0 not at all"
    return Table(title, ["share or size", *related], rows)


def _told(by_seed: Mapping[int, float], looks: int) -> Estimate | None:
    return mean_of(list(by_seed.values()), num_looks=looks) if by_seed else None


def _starts(results: Results) -> Table:
    """Tell what another start of the same networks does."""
    rows: list[list[object]] = []
    for act in ACTS:
        for start in STARTS:
            name = variant(act, START_DEPTH, start)
            if name in results.variants:
                rows.append([name, *(results.mean(name, column) for column in _START_COLUMNS)])
    heads = [
        "network",
        "accuracy",
        "tails, first step",
        "near zero, first step",
        "log10 gradient first / last",
    ]
    return Table(f"The same networks of {START_DEPTH} blocks, started in three ways", heads, rows)


_START_COLUMNS = ("accuracy", "tails_start", "near_zero_start", "ratio_start")


def _variants(results: Results) -> Table:
    columns = {
        "accuracy": "accuracy",
        "tails": "tails",
        "zero": "flat at zero",
        "near_zero": "near zero",
        "dead": "dead units",
        "ratio_start": "log10 gradient first / last, first step",
        "ratio": "over the training",
    }
    rows = [[name, *(results.mean(name, column).value for column in columns)] for name in results.variants]
    return Table("All networks, means over the seeds and steps", ["network", *columns.values()], rows)
