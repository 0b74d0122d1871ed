"""Synthetic runs for the tests of rules: a small ReLU or tanh network whose values and losses are made up.

No idea of rules or torch. Every maker takes a seed, so that chance can be tried many times.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actograph.layout.layer import FlatRegion, Nonlinearity, Side
from actograph.runlog.view import RunView
from actograph.testing.synthetic import RELU, SIGMOID, TANH, SyntheticRun, layer
from tests.unmeasured import unmeasured

Array = NDArray[np.float64]
Values = Callable[[np.random.Generator, int], Array]  # of step: what comes into the middle activation
STEPS, BATCH, UNITS = 120, 64, 20
LEAKY = FlatRegion(Nonlinearity.LOW_SLOPE, Side.OUTPUT, ((-np.inf, 0.0),))
GELU = FlatRegion(Nonlinearity.SOFT_RECTIFIER, Side.OUTPUT, ((-np.inf, 0.0),))
ACTS: dict[str, tuple[FlatRegion, Callable[[Array], Array]]] = {
    "ReLU": (RELU, lambda x: np.maximum(x, 0)),
    "LeakyReLU": (LEAKY, lambda x: np.where(x > 0, x, 0.01 * x)),
    "GELU": (GELU, lambda x: np.maximum(x, 0)),
    "Tanh": (TANH, np.tanh),
    "Sigmoid": (SIGMOID, lambda x: 1 / (1 + np.exp(-np.clip(x, -50, 50)))),
}


@unmeasured()
def run_of(
    act: str = "ReLU",
    losses: Array | None = None,
    values: Values | None = None,
    seed: int = 0,
    head_act: str | None = None,
    name: str = "run",
    lr: Array | float | None = 0.01,
    steps: int = STEPS,
    batch: int = BATCH,
) -> RunView:
    """Return a run of layers in -> act -> fc -> act2 -> head, with ``values`` coming into act2 (normal by default)."""
    random = np.random.default_rng(seed)
    flat, apply = ACTS[act]
    layers = [
        layer("in", "Linear", UNITS, batch=batch),
        layer("act", act, UNITS, flat, batch=batch),
        layer("fc", "Linear", UNITS, batch=batch),
        layer("act2", act, UNITS, flat, batch=batch),
        layer("head", "Linear", 10, batch=batch),
    ]
    if head_act is not None:
        layers.append(layer("prob", head_act, 10, ACTS[head_act][0], batch=batch))
    run = SyntheticRun(layers, name=name)
    losses = falling(seed, steps) if losses is None else losses
    for step in range(len(losses)):
        first = random.normal(0, 1, (batch, UNITS))
        middle = random.normal(0, 1, (batch, UNITS)) if values is None else values(random, step)
        head = random.normal(0, 4, (batch, 10))
        rows: dict[str, Any] = {
            "in": first,
            "act": apply(first),
            "fc": middle,
            "act2": apply(middle),
            "head": head,
        }
        if head_act is not None:
            rows["prob"] = ACTS[head_act][1](100 * head)  # a sure output
        scalars = {} if lr is None else {"lr": float(lr if isinstance(lr, float) else np.asarray(lr)[step])}
        run.step(rows, loss=float(losses[step]), **scalars)
    return run.view()


@unmeasured()
def losses_only(losses: Array, lr: Array | None = None, name: str = "losses") -> RunView:
    """Return a run of which only the loss (and the learning rate) was recorded."""
    run = SyntheticRun([], name=name)
    for step, loss in enumerate(losses):
        run.step({}, loss=float(loss), **({} if lr is None else {"lr": float(lr[step])}))
    return run.view()


def noise(seed: int, steps: int, spread: float) -> Array:
    """Return factors around 1 as batches of classification losses scatter: gamma, skewed to the high side."""
    shape = 1 / spread**2
    return np.random.default_rng(seed).gamma(shape, 1 / shape, steps)


def falling(
    seed: int = 0, steps: int = STEPS, spread: float = 0.15, start: float = 2.3, end: float = 0.1
) -> Array:
    progress = np.arange(steps) / steps
    return (end + (start - end) * np.exp(-6 * progress)) * noise(seed, steps, spread)


def flat(seed: int = 0, steps: int = STEPS, level: float = 2.3, spread: float = 0.02) -> Array:
    return level * noise(seed, steps, spread)


def bump(seed: int = 0, steps: int = 300, height: float = 1.5) -> Array:
    """1cycle: at its peak, a quarter into the run, the loss rises to ``height`` times what it was, then falls on."""
    progress = np.arange(steps) / steps
    peak = 1 + (height - 1) * np.exp(-(((progress - 0.3) / 0.06) ** 2))
    return falling(seed, steps) * peak


def restarts(seed: int = 0, steps: int = 400) -> Array:
    """Cosine restarts: after each the loss jumps to half of the start and comes down again."""
    cycle = (np.arange(steps) % (steps // 4)) / (steps // 4)
    return falling(seed, steps, end=0.2) + 0.5 * np.exp(-8 * cycle) * (np.arange(steps) >= steps // 4)


def plateau(seed: int = 0, steps: int = 400) -> Array:
    """Converged for the second half, trembling near zero."""
    progress = np.minimum(np.arange(steps) / steps, 0.5)
    decay: Array = np.exp(-14 * progress)
    return 2.3 * decay * noise(seed, steps, 0.6)


def single_samples(seed: int = 0, steps: int = 600) -> Array:
    """Batches of one: most losses tiny, some large; the mean falls."""
    return falling(seed, steps, spread=1.5)


def negative(seed: int = 0, steps: int = 300) -> Array:
    """A negative log likelihood that falls through zero and stays negative."""
    random = np.random.default_rng(seed)
    return 1.4 - 4.4 * (1 - np.exp(-6 * np.arange(steps) / steps)) + random.normal(0, 0.3, steps)


def label_smoothing(seed: int = 0, steps: int = 200) -> Array:
    """The floor is 0.5, not 0."""
    return falling(seed, steps, spread=0.05, end=0.55)


def warm_up(seed: int = 0, steps: int = 300) -> Array:
    """Nothing happens for a quarter of the run."""
    progress = np.maximum(np.arange(steps) / steps - 0.25, 0) / 0.75
    return (0.1 + 2.2 * np.exp(-6 * progress)) * noise(seed, steps, 0.05)


HEALTHY_LOSSES: dict[str, Callable[[int], Array]] = {
    "falling": falling,
    "1cycle bump": bump,
    "restarts": restarts,
    "plateau": plateau,
    "single samples": single_samples,
    "negative": negative,
    "label smoothing": label_smoothing,
    "warm-up": warm_up,
    "noisy": lambda seed: falling(seed, 300, spread=0.5),
    "hard task": lambda seed: falling(seed, 300, spread=0.1, end=1.7),
    "few steps": lambda seed: falling(seed, 60),
    "fine-tuning": lambda seed: falling(seed, 200, spread=0.2, start=0.5, end=0.3),
}


def dies_at(step0: int, units: int = UNITS) -> Values:
    """From ``step0`` on the first ``units`` units get only negative values."""

    def values(random: np.random.Generator, step: int) -> Array:
        x = random.normal(0, 1, (BATCH, UNITS))
        x[:, :units] -= 30 * (step >= step0)
        return x

    return values


def sparse(share: float) -> Values:
    """Each unit fires on a share of the samples only: many zeros, no dead unit."""

    def values(random: np.random.Generator, step: int) -> Array:
        return np.where(random.random((BATCH, UNITS)) < share, 1.0, -1.0) * random.random((BATCH, UNITS))

    return values


def spread_of(spread: Callable[[int], float]) -> Values:
    """Normal values whose standard deviation depends on the step."""
    return lambda random, step: random.normal(0, spread(step), (BATCH, UNITS))
