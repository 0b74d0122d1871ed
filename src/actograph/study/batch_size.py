"""What are the benefits and drawbacks of larger batches? Sizes compared at equal epochs, equal steps and equal time.

No idea of sentences: ``batch_size_chapter.py`` concludes.
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from torch import nn

from actograph.data.loaders import Batch
from actograph.errors import UsageError
from actograph.study.batch_size_chapter import batch_size_chapter
from actograph.study.batch_size_results import (
    DOUBLE,
    EPOCHS,
    HALF,
    LINEAR,
    MEMORY,
    PACE,
    ROOT,
    SAME,
    STEPS,
    TIME,
)
from actograph.study.chapter import Chapter
from actograph.study.memory import measured_peaks, predict
from actograph.study.noise_scale import as_trained, endless, gradient_norms
from actograph.study.pace import measure_paces
from actograph.study.study import Results, Study
from actograph.study.training import learner_for, result_of
from actograph.study.trial import Outcome, Trial, Values
from actograph.train.batches import length
from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop

# By what the rate is multiplied where a batch is r times as large as the base: SAME not at all; ROOT by the root, as Adam
# asks for (Malladi et al. 2022, "On the SDEs and scaling rules for adaptive gradient algorithms"); LINEAR by r, as SGD does
# (Goyal et al. 2017). The base has HALF and DOUBLE, so that it has as many rates to choose from.
RULES = {EPOCHS: (SAME, ROOT, LINEAR), STEPS: (SAME, ROOT), TIME: (SAME, ROOT)}
FACTOR = 4  # between two sizes that are trained
SMALLER, LARGER = 1, 2  # sizes below and above the base
LEAST_STEPS = 3  # in an epoch of the largest size
PACE_ROUNDS = 3
POINTS = (
    0.05,
    0.5,
    1.0,
)  # shares of a training at which the noise scale is measured: not before the first steps
# Pairs of batches for one noise scale: as many as say how far they spread, of which the larger leaves little noise
PAIRS_A_PASS, PASSES = 4, 2
GUESSING = 0.95  # of the loss of guessing, ln(classes): a training that ends above it has learned nothing
PREDICTED_FROM = 32  # samples, and half of them


class BatchSize(Study):
    """Sizes a factor of 4 apart at several rates: accuracy for equal epochs, steps and time; pace, memory, noise."""

    name = "batch-size"
    question = "What are the benefits and drawbacks of larger batches?"
    textbook = (
        "Larger batches give more accurate gradients and use the hardware better, but there are fewer updates in "
        "an epoch, and "
        "they need more memory; scale the learning rate with the batch."
    )
    default_epochs = 2

    def check(self) -> None:
        """Refuse data without a length, that have no room for two sizes, or whose batches do not follow the size."""
        loader = self.setup.open(0, 1).train
        if length(loader) is None:
            raise UsageError(
                "the train loader has no length, and epochs are compared: give data of known length"
            )
        _, y = next(iter(loader))
        if len(y) != 1:
            raise UsageError(
                f"{self.setup.told_data} gave a batch of {len(y)} where 1 was asked for: it has to follow batch_size"
            )
        most = self.num_samples // LEAST_STEPS
        if self.setup.batch_size > most or len(self.sizes) == 1:
            raise UsageError(
                f"batch_size {self.setup.batch_size} leaves no other size: {self.num_samples} training samples allow up to "
                f"{most}; give less"
            )

    @property
    def num_samples(self) -> int:
        """Samples to train with."""
        return length(self.setup.open(0, 1).train) or 0

    @property
    def sizes(self) -> list[int]:
        """The batch sizes that are trained, rising: the base, one below it, and those above that leave a few steps."""
        base, num_samples = self.setup.batch_size, self.num_samples
        below = [base // FACTOR**k for k in range(SMALLER, 0, -1)]
        above = [base * FACTOR**k for k in range(LARGER + 1)]
        return [size for size in (*below, *above) if 1 < size <= num_samples // LEAST_STEPS]

    def trials(self) -> Sequence[Trial]:
        """Return trainings at equal epochs and steps, the memory, and then, one at a time, paces and equal times."""
        seeds = range(self.setup.seeds)
        return [
            *(
                trial
                for rule in (SAME, HALF, DOUBLE)
                for trial in self._trainings(EPOCHS, self.setup.batch_size, rule)
            ),
            *self._others(EPOCHS),
            *self._others(STEPS),
            Trial(MEMORY, 0),
            *(Trial(PACE, seed, is_timed=True) for seed in seeds),
            *self._others(TIME),
        ]

    def _others(self, budget: str) -> Iterator[Trial]:
        for size in self.sizes:
            if size != self.setup.batch_size:
                for rule in RULES[budget]:
                    yield from self._trainings(budget, size, rule)

    def _trainings(self, budget: str, size: int, rule: str) -> Iterator[Trial]:
        options = {"budget": budget, "size": size, "rule": rule}
        for seed in range(self.setup.seeds):
            # equal times are known only when the paces are, and these are measured when nothing else runs
            yield Trial(f"{size}, equal {budget}, {rule} rate", seed, options, is_timed=budget == TIME)

    def measure(self, trial: Trial, folder: Path) -> Values:
        """Train, or measure what the trial is called after."""
        if trial.variant == MEMORY:
            return self._memory()
        if trial.variant == PACE:
            return {"paces": _named(measure_paces(self.setup, self._paced(), trial.seed, PACE_ROUNDS))}
        size, rule = trial.options["size"], trial.options["rule"]
        num_steps = self._num_steps(trial, folder)
        lr = self.rate_of(size, rule)
        loaders = self.setup.open(trial.seed, size)
        loaders = replace(
            loaders, train=FirstBatches(loaders.train, num_steps)
        )  # one epoch, and one validation at its end
        is_base = size == self.setup.batch_size and rule == SAME
        snapshots = Snapshots([max(round(share * num_steps), 1) for share in POINTS if is_base])
        learner = learner_for(self.setup, trial, folder, loaders=loaders, lr=lr, callbacks=[snapshots])
        learner.fit_one_cycle(1)
        result = result_of(learner)
        assert loaders.num_classes is not None
        return {
            **result,
            "size": size,
            "lr": lr,
            "epochs_seen": num_steps * size / self.num_samples,
            "is_guessing": not result["valid_loss"] < GUESSING * math.log(loaders.num_classes),
            "noise": [self._noise(model, trial.seed, step) for step, model in snapshots.models.items()],
        }

    def conclude(self, results: Results) -> Chapter:
        """Return the chapter."""
        return batch_size_chapter(self, self.setup, results)

    def rate_of(self, size: int, rule: str) -> float:
        """Return the highest rate of a training with this size by this rule."""
        ratio = size / self.setup.batch_size
        assert self.setup.lr is not None
        return (
            self.setup.lr * {SAME: 1.0, ROOT: math.sqrt(ratio), LINEAR: ratio, HALF: 0.5, DOUBLE: 2.0}[rule]
        )

    def _num_steps(self, trial: Trial, folder: Path) -> int:
        """Return how many steps the trial's size has for the same epochs, steps or time as the base."""
        base, size = self.setup.batch_size, int(trial.options["size"])
        assert self.setup.epochs is not None
        in_base = self.setup.epochs * math.ceil(self.num_samples / base)
        if trial.options["budget"] == STEPS:
            return in_base
        if trial.options["budget"] == EPOCHS:
            return self.setup.epochs * math.ceil(self.num_samples / size)
        pace = Outcome.load(folder.parent / Trial(PACE, trial.seed).folder)
        if pace is None or pace.error is not None:
            raise UsageError("the pace was not measured, so that equal times are not known")
        paces = {int(key): statistics.median(rounds) for key, rounds in pace.values["paces"].items()}
        num_steps: int = round(in_base * (base / paces[base]) / (size / paces[size]))
        return max(num_steps, 1)

    def _paced(self) -> list[int]:
        """Return the sizes whose pace is measured: doubling, so that one sees where it ends."""
        lowest, highest = self.sizes[0], self.sizes[-1]
        return [lowest * 2**k for k in range(int(math.log2(highest // lowest)) + 1)]

    def _memory(self) -> dict[str, Any]:
        loaders = self.setup.open(0, min(PREDICTED_FROM, self.num_samples))
        model = self.setup.build(0, loaders).to(self.setup.torch_device).train()
        line = predict(model, self.setup.loss_func, *next(iter(loaders.train)))
        peaks = measured_peaks(self.setup, loaders, self._paced(), line)
        told = {"fixed": line.fixed, "per_sample": line.per_sample}
        if isinstance(peaks, str):
            return {**told, "peaks": {}, "why_not": peaks}
        return {**told, "peaks": _named(peaks), "why_not": None}

    def _noise(self, model: nn.Module, seed: int, step: int) -> dict[str, Any]:
        """Measure the noise scale at the weights of a copy of the model."""
        small, num_samples = self.setup.batch_size, self.num_samples
        num_small = max(num_samples // PAIRS_A_PASS // small, 2)
        loader = self.setup.open(seed + self.setup.seeds, small).train  # an order that no training had
        network = as_trained(model, loader)
        norms = gradient_norms(
            network,
            self.setup.loss_func,
            loader,
            small_size=small,
            num_small=num_small,
            num_samples=num_samples,
            num_passes=PASSES,
        )
        scale = norms.scale
        return {
            "step": step,
            "signal": statistics.fmean(norms.signal),
            "noise": statistics.fmean(norms.noise),
            "scale": scale.value,
            "low": scale.low,
            "high": scale.high,
            "pairs": scale.num,
            "big_size": norms.big_size,
        }


class FirstBatches:
    """The first batches of a loader, gone over again and again: one epoch of any number of steps."""

    def __init__(self, loader: Iterable[Batch], num_batches: int) -> None:
        self._loader = loader
        self._num_batches = num_batches

    def __len__(self) -> int:
        """Return the number of batches."""
        return self._num_batches

    def __iter__(self) -> Iterator[Batch]:
        """Begin with the loader's next pass."""
        return islice(endless(self._loader), self._num_batches)


class Snapshots(Callback):
    """Copies of the model after the given steps."""

    stage = Stage.MEASURE

    def __init__(self, steps: Sequence[int]) -> None:
        self.steps = steps
        self.models: dict[int, nn.Module] = {}

    def after_step(self, loop: Loop) -> None:
        """Copy the model where its turn has come."""
        if loop.progress.step in self.steps:
            self.models[loop.progress.step] = copy.deepcopy(loop.model)


def _named(table: Mapping[int, Any]) -> dict[str, Any]:
    """Return the table with keys that JSON has."""
    return {str(key): value for key, value in table.items()}
