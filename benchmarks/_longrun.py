"""A recording of very many steps, written through `RunWriter` without any training: how long it takes, how big it is,
how fast it opens.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from actograph import open_run
from actograph.layout.bins import NUM_BINS
from actograph.layout.layer import FlatRegion, LayerInfo, Nonlinearity, Side
from actograph.layout.row import Field, empty_rows
from actograph.runlog.buckets import Bucket
from actograph.runlog.reader import read_run
from actograph.runlog.schema import RunInfo
from actograph.runlog.store import RunWriter

NUM_LAYERS, NUM_UNITS, NUM_VALUES = 4, 64, 1 << 16  # values of a layer in a step
TRIAL_STEPS = 10_000
FALLBACK = 10  # times fewer steps where all would take too long
OPENINGS = 5
RELU = FlatRegion(Nonlinearity.RECTIFIER, Side.OUTPUT, ((-np.inf, 0.0),))
ROW = {
    Field.ZEROS: NUM_VALUES // 2,
    Field.POS_COUNT: NUM_VALUES // 2,
    Field.POS_MEAN: 0.5,
    Field.POS_M2: 3000.0,
}


@dataclass(frozen=True)
class LongRun:
    num_steps: int
    append_us: float  # a step's block and scalars, flushes included
    size_bytes: int
    read_s: float  # `read_run`: the file as columns
    open_s: float  # `open_run` and the first statistic


def long_run(folder: Path, num_steps: int, limit_s: float) -> LongRun:
    """Write the steps, a tenth of them if all would take longer than ``limit_s``, and open them."""
    writer = _writer(folder / "trial")
    seconds_a_step = _feed(writer, TRIAL_STEPS) / TRIAL_STEPS
    writer.close("finished")
    if seconds_a_step * num_steps > limit_s:
        num_steps //= FALLBACK
    path = folder / "long"
    writer = _writer(path)
    elapsed_s = _feed(writer, num_steps)
    writer.close("finished")
    size = sum(file.stat().st_size for file in path.iterdir())
    read_s = _median_s(lambda: read_run(path))
    open_s = _median_s(lambda: open_run(path).view.column("mean"))
    return LongRun(num_steps, elapsed_s / num_steps * 1e6, size, read_s, open_s)


def _writer(path: Path) -> RunWriter:
    writer = RunWriter(path, RunInfo("synthetic"))
    for index in range(NUM_LAYERS):
        writer.add_layer(LayerInfo(f"act{index}", "ReLU", (64, NUM_UNITS), "float32", 1, NUM_UNITS, RELU))
    return writer


def _feed(writer: RunWriter, num_steps: int) -> float:
    """Append steps whose numbers differ from each other as those of a training do; return the seconds it took."""
    random = np.random.default_rng(0)
    fired = random.integers(0, 256, NUM_LAYERS * NUM_UNITS // 8).astype(np.uint8)
    variants = []
    for _ in range(64):
        rows = empty_rows(NUM_LAYERS)
        for field, value in ROW.items():
            rows[:, field] = value * random.uniform(0.9, 1.1)
        rows[:, Field.MIN], rows[:, Field.MAX] = 0.0, random.uniform(3, 5)
        spectrum = np.exp(-(((np.arange(NUM_BINS) - 0.8 * NUM_BINS) / 12) ** 2)) * NUM_VALUES / 40
        variants.append((rows, random.poisson(np.tile(spectrum, (NUM_LAYERS, 1))).astype(np.uint32)))
    start_s = time.perf_counter()
    for step in range(num_steps):
        rows, hist = variants[step % len(variants)]
        writer.add_block(Bucket(step, step, 1, rows, hist, fired))
        writer.add_scalar("loss", step, 1.0 / (step + 1))
        writer.add_scalar("lr", step, 0.01)
        writer.flush_if_due()
    return time.perf_counter() - start_s


def _median_s(call: Callable[[], object]) -> float:
    times = []
    for _ in range(OPENINGS):
        start_s = time.perf_counter()
        call()
        times.append(time.perf_counter() - start_s)
    return statistics.median(times)
