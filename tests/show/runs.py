"""Synthetic runs that tests of `show` and of its commands share: a plausible one, a sick one, one with many layers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from actograph.layout.layer import LayerInfo
from actograph.runlog.schema import Cost
from actograph.runlog.store import RunWriter
from actograph.runlog.view import RunView
from actograph.testing.synthetic import RELU, TANH, SyntheticRun, layer

STEPS = 315
EPOCH_STEPS = 63
SEED = 7
NAN_STEPS = 30  # at the end of the sick run
PATTERN = 10  # layers of the deep run that differ


def conv_layers() -> list[LayerInfo]:
    layers = []
    for position, units in enumerate((8, 16, 32, 64)):
        layers.append(layer(f"layers.{position}.conv", "Conv2d", units))
        layers.append(layer(f"layers.{position}.act", "ReLU", units, RELU))
    return [*layers, layer("layers.4.conv", "Conv2d", 10)]


def healthy_run(steps: int = STEPS, directory: Path | None = None) -> RunView:
    """Five convolutions on a 1cycle schedule; spreads drift slowly, the loss falls."""
    random = np.random.default_rng(SEED)
    run = start(
        conv_layers(), "mnist-simple_cnn", directory, model="simple_cnn", data="mnist (4,000 + 1,000)"
    )
    for step in range(steps):
        _mark_epoch(run, step)
        progress = step / steps
        values = {}
        last = np.zeros(())
        for position, info in enumerate(run.writer.layers):
            if info.flat is None:
                spread = (0.4 + 0.25 * position) * (0.5 + 1.2 * progress + 0.3 * np.exp(-step / 20))
                last = random.normal(-0.15 * position * progress, spread, (64, info.num_units))
            values[info.name] = last if info.flat is None else np.maximum(last, 0)
        rate = _one_cycle(progress)
        loss = 2.3 * np.exp(-4.5 * progress) + 0.08 + random.gamma(2, 0.035)
        run.step(values, loss=loss, lr=0.006 * rate, momentum=0.95 - 0.1 * rate)
        if (step + 1) % EPOCH_STEPS == 0:
            run.writer.add_scalar("loss", step, 2.2 * np.exp(-4.3 * (progress + 0.003)) + 0.09, phase="valid")
            run.writer.add_scalar("accuracy", step, 0.985 - 0.6 * np.exp(-6 * progress), phase="valid")
    run.writer.info = replace(run.writer.info, cost=Cost(0.0284 * 40, 40.0, steps, steps, 0.03))
    return run.view()


def sick_run(steps: int = STEPS, directory: Path | None = None) -> RunView:
    """Units that die one by one, a tanh that saturates, spreads that explode, and NaN at the end."""
    random = np.random.default_rng(SEED)
    layers = [
        layer("stem.conv", "Conv2d", 16),
        layer("stem.relu", "ReLU", 16, RELU),
        layer("body.0.linear", "Linear", 32),
        layer("body.0.tanh", "Tanh", 32, TANH),
        layer("head", "Linear", 10),
    ]
    run = start(layers, "sick", directory, model="tanh_net", lr=0.9)
    dying = random.permutation(16)
    for step in range(steps):
        _mark_epoch(run, step)
        progress = step / steps
        stem = random.normal(0.2, 0.8, (64, 16))
        stem[:, dying[: int(12 * progress)]] -= 8
        linear = random.normal(0, 0.3 * np.exp(3.5 * progress), (64, 32))
        head = random.normal(0, 1e-3 * np.exp(14 * progress**2), (64, 10))
        num_bad = step - (steps - NAN_STEPS) + 1
        if num_bad > 0:
            head[random.random(head.shape) < num_bad / NAN_STEPS] = np.nan
        loss = np.nan if num_bad > 0 else 2.3 * np.exp(6 * progress**3) + random.gamma(2, 0.1)
        values = (stem, np.maximum(stem, 0), linear, np.tanh(linear), head)
        run.step(dict(zip([info.name for info in layers], values, strict=True)), loss=loss, lr=0.9)
    return run.view("failed")


def deep_run(num_layers: int = 50, steps: int = 400) -> RunView:
    """Many layers and enough steps that the long timeline has merged; what the first `PATTERN` hold, the others repeat."""
    random = np.random.default_rng(SEED)
    layers = [
        layer(f"blocks.{i}.conv", "Conv2d", 64) if i % 2 == 0 else layer(f"blocks.{i}.relu", "ReLU", 64, RELU)
        for i in range(num_layers)
    ]
    run = start(layers[:PATTERN], "deep", model="deep_net")
    for step in range(steps):
        base = random.normal(0, 0.5 + step / steps, (8, 64))
        values = [
            np.maximum(base, 0) if info.flat else base * (1 + i / 2)
            for i, info in enumerate(run.writer.layers)
        ]
        run.step(
            {info.name: value for info, value in zip(run.writer.layers, values, strict=True)},
            loss=2.0 - step / steps,
            lr=0.01,
        )
    view = run.view()
    repeats = num_layers // PATTERN
    buckets = tuple(
        replace(
            bucket,
            rows=np.tile(bucket.rows, (repeats, 1)),
            hist=np.tile(bucket.hist, (repeats, 1)),
            fired=np.tile(bucket.fired, repeats),
        )
        for bucket in view.buckets
    )
    return replace(view, layers=tuple(layers), buckets=buckets)


def start(
    layers: list[LayerInfo], name: str, directory: Path | None = None, /, **config: Any
) -> SyntheticRun:
    """Return a synthetic run that is stored in a directory, where one is given."""
    run = SyntheticRun(layers, name=name, **config)
    if directory is not None:
        run.writer = RunWriter(directory, run.writer.info)
        for info in layers:
            run.writer.add_layer(info)
    return run


def _one_cycle(progress: float) -> float:
    up = 0.25
    if progress < up:
        return float(0.04 + 0.96 * (1 - np.cos(np.pi * progress / up)) / 2)
    return float((1 + np.cos(np.pi * (progress - up) / (1 - up))) / 2)


def _mark_epoch(run: SyntheticRun, step: int) -> None:
    if step % EPOCH_STEPS == 0:
        run.writer.add_event(step, "phase", name="train", fit=0, epoch=step // EPOCH_STEPS)
