"""What should be recorded about each layer? A healthy and a sick training, and which number tells them apart, when.

No idea of sentences: ``activations_words.py`` has them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actograph.layout.row import Field, Floats
from actograph.learner import DEFAULT_OPTIMIZER
from actograph.observe.watch import watch
from actograph.recording.new_run import MEMORY
from actograph.runlog.schema import DATABASE
from actograph.runlog.statistic import ratio
from actograph.runlog.view import RunView
from actograph.show.layers import color_dim
from actograph.study import activations_words as words
from actograph.study.activations_words import COST, HEALTHY, SICK, STATISTICS_TOLD
from actograph.study.chapter import Chapter
from actograph.study.noise_scale import endless
from actograph.study.setup import Setup
from actograph.study.study import Results, Study, seeds_of
from actograph.study.training import learner_for, result_of, view_of
from actograph.study.trial import Trial, Values

SICK_BY = 6.0  # times the setup's rate, constant from the first step: fails often (docs/fastai.md)
COST_ROUNDS = 15
COST_STEPS = 20  # in a round, of each kind


class Activations(Study):
    """The setup's rate and six times of it, every step recorded; and what recording costs."""

    name = "activations"
    question = "What should be recorded about each layer's activations?"
    textbook = "Their mean, their standard deviation, and how many of them are near zero."
    default_epochs = 2

    def trials(self) -> Sequence[Trial]:
        """Return a healthy and a sick training for each seed, and a measurement of the cost for each."""
        costs = [replace(trial, is_timed=True) for trial in seeds_of(self.setup, [COST])]
        return [*seeds_of(self.setup, [HEALTHY, SICK]), *costs]

    def measure(self, trial: Trial, folder: Path) -> Values:
        """Train and keep what the rows tell, step by step."""
        if trial.variant == COST:
            return cost_of_recording(self.setup, trial.seed)
        assert self.setup.lr is not None
        assert self.setup.epochs is not None
        rate = self.setup.lr * (SICK_BY if trial.variant == SICK else 1.0)
        learner = learner_for(self.setup, trial, folder, lr=rate)
        learner.fit(self.setup.epochs)
        view = view_of(learner)
        size_bytes = sum(file.stat().st_size for file in folder.glob(f"{DATABASE}*"))
        return {
            **result_of(learner),
            "losses": learner.recorder.losses.tolist(),
            **told_by(view),
            "bytes_on_disk": size_bytes,
            "picture": json.loads(color_dim(view, busiest(view)).to_json()),
        }

    def conclude(self, results: Results) -> Chapter:
        """Find out when each number leaves what healthy trainings have, and what mean and spread alone do not show."""
        sentences, facts = words.verdict(results)
        return Chapter(
            self.name,
            self.question,
            self.textbook,
            sentences,
            words.tables(results),
            words.pictures(results),
            f"{self.setup.told_model} on {self.setup.told_data}, AdamW, batches of {self.setup.batch_size}, "
            f"{self.setup.epochs} epochs at the constant rate {self.setup.lr:g} (healthy) and {SICK_BY:g} times of it "
            "(sick), every step and layer recorded. A number separates a sick training where it is outside of the range "
            "that the healthy ones have at the same step and layer, widened by its own width to both sides, for "
            f"{words.HELD} steps in a row; healthy trainings are held against the others in the same way, so that with few "
            "seeds the range is narrow, and a healthy one leaves it sooner. Cost: training steps with and without "
            f"recording in turns of {COST_STEPS}, {COST_ROUNDS} rounds, one thread, the run in memory.",
            results.failures,
            facts,
        )


def told_by(view: RunView) -> dict[str, Any]:
    """Return names of layers, steps, and the statistics over time of every layer, lists (T, L)."""
    series = {name: view.column(name).tolist() for name in STATISTICS_TOLD if name != words.ONE_SIDED}
    return {
        "layers": [layer.name for layer in view.layers],
        "steps": view.first_steps.tolist(),
        "series": {**series, words.ONE_SIDED: one_sided_near_zero(view).tolist()},
    }


def one_sided_near_zero(view: RunView) -> Floats:
    """Return the share of values that are at most 0.05 (T, L), as fastai counts near zero: every negative is one."""
    rows = view.rows
    above = rows[..., Field.NEAR_ZERO] - rows[..., Field.NEAR_ZERO_NEG]  # from 0 to 0.05
    return ratio(rows[..., Field.NEG_COUNT] + above, view.moments.num)


def busiest(view: RunView) -> str:
    """Return the layer to draw: the last one whose units can die, or else the last."""
    units = [layer.name for layer in view.layers if layer.num_flags]
    return units[-1] if units else view.layers[-1].name


def cost_of_recording(setup: Setup, seed: int) -> dict[str, Any]:
    """Return how many times as long a step takes with every layer recorded, round by round, and its plain length."""
    loaders = setup.open(seed)
    device, loss_func = setup.torch_device, setup.loss_func
    kinds = []
    for is_recorded in (False, True):
        model = setup.build(seed, loaders).to(device).train()
        optimizer = DEFAULT_OPTIMIZER(model.parameters(), lr=0.0)
        recording = watch(model, optimizer, MEMORY, budget=None) if is_recorded else None
        kinds.append((model, optimizer, endless(loaders.train), recording))
    rounds = []
    for number in range(COST_ROUNDS + 1):
        seconds = []
        for model, optimizer, batches, _ in kinds:
            began_s = time.perf_counter()
            for _ in range(COST_STEPS):
                x, y = next(batches)
                loss_func(model(x.to(device)), y.to(device)).backward()
                optimizer.step()
                optimizer.zero_grad()
            if device.type != "cpu":
                torch.accelerator.synchronize(device)  # sync: the clock must not stop before the device
            seconds.append((time.perf_counter() - began_s) / COST_STEPS)
        if number:  # the first one warms up
            rounds.append(seconds)
    for *_, recording in kinds:
        if recording is not None:
            recording.close()
    plain, recorded = np.array(rounds).T
    return {
        "ratio": float(np.median(recorded / plain)),
        "plain_s": float(np.median(plain)),
    }
