"""How many samples a second training goes through, at several batch sizes side by side.

No idea of what the network learns.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import torch
from torch import nn

from actograph.data.loaders import Batch
from actograph.learner import DEFAULT_OPTIMIZER
from actograph.study.noise_scale import endless
from actograph.study.setup import Setup

Name = TypeVar("Name")

WARM_UP = 2  # steps
TURN_S = 0.15  # how long a size runs when it has its turn: a hundred times what starting and reading the clock take


class Pacer:
    """Training steps of one batch size, to be timed turn by turn; data are read as in training."""

    def __init__(self, setup: Setup, size: int, seed: int, model: nn.Module | None = None) -> None:
        loaders = setup.open(seed, size)
        self._loss_func, self._device = setup.loss_func, setup.torch_device
        network = setup.build(seed, loaders) if model is None else model
        self._model = network.to(self._device).train()
        self._optimizer = DEFAULT_OPTIMIZER(self._model.parameters(), lr=0.0)
        self._batches: Iterator[Batch] = endless(loaders.train)
        self.run(WARM_UP)
        seconds, _ = self.run(1)
        self._num_steps = max(math.ceil(TURN_S / max(seconds, 1e-9)), 1)

    def run(self, num_steps: int) -> tuple[float, int]:
        """Train; return the seconds it took and the samples it went through."""
        began_s = time.perf_counter()
        num_samples = 0
        for _ in range(num_steps):
            x, y = next(self._batches)
            self._loss_func(self._model(x.to(self._device)), y.to(self._device)).backward()
            self._optimizer.step()
            self._optimizer.zero_grad()
            num_samples += len(y)
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)  # sync: the clock must not stop before the device
        return time.perf_counter() - began_s, num_samples

    def turn(self) -> float:
        """Return the samples a second of one turn."""
        seconds, num_samples = self.run(self._num_steps)
        return num_samples / seconds


def measure_paces(setup: Setup, sizes: Sequence[int], seed: int, num_rounds: int) -> dict[int, list[float]]:
    """Return the samples a second of each size in each round."""
    return in_turns({size: Pacer(setup, size, seed) for size in sizes}, num_rounds)


def in_turns(pacers: Mapping[Name, Pacer], num_rounds: int) -> dict[Name, list[float]]:
    """Return the samples a second of each in each round; all have a turn in every round, so that they meet one load."""
    rounds = [[pacer.turn() for pacer in pacers.values()] for _ in range(num_rounds)]
    return {name: list(column) for name, column in zip(pacers, zip(*rounds, strict=True), strict=True)}
