"""How a process grows while a recorder records `simple_cnn` at batch 64: run in a process of its own, prints JSON.

    python benchmarks/_memory.py RECORDER FIRST_STEP LAST_STEP

The figures are those of the resident set at the two steps, and the slope of a line through all samples between them.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from _models import CASES, Batch, Training
from _recorders import RECORDERS

SAMPLES = 80


def main() -> None:
    key, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)  # several of these run side by side, and nothing is timed
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        training = Training(CASES["cnn64"])
        recorder = RECORDERS[key](training, Path(folder))
        recorder.begin()
        samples: list[tuple[int, int]] = []
        recorder.train(_sampled_batches(training, first, last, samples))
        recorder.end()
    steps, sizes = np.array(samples, np.float64).T
    slope = np.polyfit(steps - first, sizes, 1)[0]
    growth = (sizes[-1] - sizes[0]) / (last - first)
    print(json.dumps({"growth": growth, "slope": slope, "resident": sizes[-1]}))


def _sampled_batches(
    training: Training, first: int, last: int, samples: list[tuple[int, int]]
) -> Iterator[Batch]:
    every = max((last - first) // SAMPLES, 1)
    for step, batch in enumerate(itertools.cycle(training.batches)):
        if step >= first and (step - first) % every == 0:
            gc.collect()  # garbage in cycles is not growth
            samples.append((step, resident_bytes()))
        if step == last:
            return
        yield batch


def resident_bytes() -> int:
    """Return the resident set of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
