"""A study that trains nothing, and a small setup: what the tests of the machinery run."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from actograph.data.loaders import Loaders, TensorLoader
from actograph.errors import UsageError
from actograph.study import figures
from actograph.study.chapter import Chapter, Picture, Table
from actograph.study.setup import Setup
from actograph.study.study import Results, Study, seeds_of
from actograph.study.trial import Trial, Values

NUM_CLASSES, SIDE = 3, 8
BROKEN = "variant that fails"


def small_data(batch_size: int, seed: int, num: int = 60) -> Loaders:
    """Images that tell their class by a bright row, and noise: learned in a few steps."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(num) % NUM_CLASSES
    x = 0.3 * torch.randn(num, 1, SIDE, SIDE, generator=generator)
    x[torch.arange(num), 0, 2 * y] += 2.0
    train, valid = slice(0, num * 2 // 3), slice(num * 2 // 3, num)
    return Loaders(
        TensorLoader(x[train], y[train], batch_size, shuffle=True, seed=seed),
        TensorLoader(x[valid], y[valid], batch_size),
        num_classes=NUM_CLASSES,
        class_names=("a", "b", "c"),
        input_size=(1, SIDE, SIDE),
    )


def small_model(num_classes: int, input_size: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 8), nn.ReLU(), nn.Linear(8, num_classes))


def small_setup(seeds: int = 2, epochs: int | None = 1, lr: float | None = 0.05) -> Setup:
    return Setup(small_data, "simple_cnn", seeds=seeds, epochs=epochs, batch_size=10, lr=lr)


class Counting(Study):
    """Measures its own seed, and counts in a file how often it was run."""

    name = "counting"
    question = "How often does it run?"
    textbook = "Once."
    default_epochs = 1
    variants: ClassVar[Sequence[str]] = ("one", "two")

    def trials(self) -> Sequence[Trial]:
        return seeds_of(self.setup, self.variants)

    def measure(self, trial: Trial, folder: Path) -> Values:
        with (folder.parents[1] / "runs.txt").open("a") as file:
            file.write(f"{trial.folder}\n")
        if trial.variant == BROKEN and not (folder.parents[1] / "mended").exists():
            raise UsageError("it was meant to fail")
        return {
            "seed": trial.seed,
            "random": float(torch.rand(())),
            "nan": float("nan"),
            "threads": torch.get_num_threads(),
        }

    def conclude(self, results: Results) -> Chapter:
        estimates = {name: results.mean(name, "seed") for name in results.variants}
        table = Table("Seeds", ["variant", "seed"], [[name, one] for name, one in estimates.items()])
        picture = Picture(figures.intervals(estimates, "seed"), "Seeds.", "Seeds of each variant")
        facts = {name: list(results.by_seed(name, "random").values()) for name in results.variants}
        sentences = [f"{len(results.outcomes)} trials."]
        return Chapter(
            self.name, self.question, self.textbook, sentences, [table], [picture], "It counts.", results.failures, facts
        )  # fmt: skip


class Failing(Counting):
    variants = ("one", BROKEN)


class AllFailing(Counting):
    variants = (BROKEN,)


class Dying(Counting):
    """One of its trials ends its process."""

    variants = ("one", "dies", "two")

    def measure(self, trial: Trial, folder: Path) -> Values:
        if trial.variant == "dies" and trial.seed == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().measure(trial, folder)


class Timed(Counting):
    """Reports how many threads it has, alone and among others."""

    def trials(self) -> Sequence[Trial]:
        return [Trial("timed", is_timed=True), Trial("not timed")]
