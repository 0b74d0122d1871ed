"""How long merging the files of many ranks takes: linear in their number, or not.

    python benchmarks/bench_ranks.py [--ranks 64 256 1024] [--layers 10] [--steps 300]

The files are copies of one synthetic run in a temporary folder. Prints seconds, seconds per rank and peak memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import shutil
import sqlite3
import tempfile
import time
from pathlib import Path

import numpy as np
from _environment import machine, revision

from actograph.layout.bins import NUM_BINS
from actograph.layout.layer import LayerInfo
from actograph.layout.row import Field, empty_rows
from actograph.runlog.buckets import Bucket
from actograph.runlog.reader import read_run
from actograph.runlog.schema import RunInfo, database_of
from actograph.runlog.store import RunWriter

UNITS = 64


def write_first(folder: Path, num_layers: int, num_steps: int, world_size: int) -> None:
    rng = np.random.default_rng(0)
    writer = RunWriter(folder, RunInfo("ranks", world_size=world_size, launch="bench"))
    for index in range(num_layers):
        writer.add_layer(LayerInfo(f"layer{index}", "Linear", (32, UNITS), "float32", 1, UNITS))
    for step in range(num_steps):
        rows = empty_rows(num_layers)
        rows[:, [Field.NEG_COUNT, Field.POS_COUNT]] = 16 * UNITS
        rows[:, [Field.NEG_MEAN, Field.NEG_M2, Field.POS_MEAN, Field.POS_M2]] = rng.random((num_layers, 4))
        hist = rng.poisson(6, (num_layers, NUM_BINS)).astype(np.uint32)
        writer.add_block(Bucket(step, step, 1, rows, hist, np.zeros(0, np.uint8)))
        for name in ("loss", "lr", "momentum"):
            writer.add_scalar(name, step, rng.random())
    writer.close("finished")


def copy_to_rank(folder: Path, rank: int) -> None:
    database = folder / database_of(rank)
    shutil.copy(folder / database_of(0), database)
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE info SET value = ? WHERE key = 'rank'", (json.dumps(rank),))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    print(f"{machine()}; {revision()}")
    for num_ranks in sorted(options.ranks):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "run"
            write_first(folder, options.layers, options.steps, num_ranks)
            for rank in range(1, num_ranks):
                copy_to_rank(folder, rank)
            began_s, cpu_s = time.perf_counter(), time.process_time()
            view = read_run(folder)
            took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
            assert len(view.ranks) == num_ranks
            assert (view.moments.num[view.num_recorded == 1] == num_ranks * 32 * UNITS).all()
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{num_ranks:5d} ranks  {took_s:7.2f} s ({cpu_s:.2f} of CPU)  {1e3 * took_s / num_ranks:6.2f} ms a rank  "
            f"peak {peak_mb:.0f} MB"
        )


if __name__ == "__main__":
    main()
