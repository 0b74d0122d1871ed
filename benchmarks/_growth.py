"""How a process grows while a trainer trains the linear model: run in a process of its own, prints JSON.

    python benchmarks/_growth.py TRAINER FIRST_STEP LAST_STEP

The figures are those of the resident set at the two steps, and the slope of a line through all samples between them.
"""

from __future__ import annotations

import gc
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from _jobs import linear
from _memory import SAMPLES, resident_bytes
from _trainers import TRAINERS, Batch

NUM_BATCHES = 8  # used in turn


class SampledBatches:
    """An epoch of ``last`` batches that takes a sample of the resident set now and then."""

    def __init__(self, batches: list[Batch], first: int, last: int) -> None:
        self.batches = batches
        self.first = first
        self.last = last
        self.samples: list[tuple[int, int]] = []  # step, bytes

    def __len__(self) -> int:
        return self.last

    def __iter__(self) -> Iterator[Batch]:
        every = max((self.last - self.first) // SAMPLES, 1)
        for step, batch in zip(range(self.last), itertools.cycle(self.batches), strict=False):
            if step >= self.first and (step - self.first) % every == 0:
                gc.collect()  # garbage in cycles is not growth
                self.samples.append((step, resident_bytes()))
            yield batch


def main() -> None:
    key, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    job = linear(NUM_BATCHES)
    feed = SampledBatches(job.first(NUM_BATCHES), first, last)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        trainer = TRAINERS[key](job, feed, Path(folder))
        trainer.begin()
        gc.collect()
        gc.freeze()  # collections look at what training makes, not at all that was imported
        trainer.run()
    steps, sizes = np.array(feed.samples, np.float64).T
    slope = np.polyfit(steps - first, sizes, 1)[0]
    growth = (sizes[-1] - sizes[0]) / (steps[-1] - steps[0])
    print(json.dumps({"growth": growth, "slope": slope, "resident": sizes[-1]}))


if __name__ == "__main__":
    main()
