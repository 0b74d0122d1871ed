"""Time `observe` in C against reading the same tensor (`x.sum()`) and against histograms of torch and numpy.

    python benchmarks/bench_observe.py [--rounds 15]

All candidates take turns within each round, in one process. A figure is the median of the rounds with its quartiles; the
ratio is that of the same round. `sum` runs on one thread: it is the speed of reading memory on one core.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from actograph.layout.bins import NUM_BINS
from actograph.layout.layer import FlatRegion, Nonlinearity, Side
from actograph.layout.row import empty_rows
from actograph.sketch import native

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
RELU = FlatRegion(Nonlinearity.RECTIFIER, Side.OUTPUT, ((-np.inf, 0.0),))
SHORTEST_S = 0.002  # a timing repeats its call until it takes about this long

Call = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds: int = parser.parse_args().rounds
    if native.EXTENSION is None:
        raise SystemExit("the C back end was not built; run `pip install -e .` where there is a C compiler")
    print(
        f"{machine()}; Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"
    )
    print(f"load {os.getloadavg()[0]:.1f} at the start; n = {rounds} rounds; median [quartiles]")
    for kernel in native.EXTENSION.kernels():
        native.EXTENSION.use(kernel)
        print(f"\n== kernel {kernel}: time of a call with one value {call_overhead_us():.2f} us")
        for dtype in DTYPES:
            for size in SIZES:
                report(size, dtype, rounds)


def machine() -> str:
    """Return the processor's name, its number and torch's own choice of instructions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} x {os.cpu_count()}, {torch.backends.cpu.get_cpu_capability()}"


def make_target(flat: FlatRegion | None, units: int) -> native.Target:
    return native.Target(
        torch.from_numpy(empty_rows()),
        torch.zeros(NUM_BINS, dtype=torch.int64),
        torch.zeros(units, dtype=torch.bool),
        flat,
        1 if units else None,
    )


def call_overhead_us() -> float:
    x, target = torch.randn(1), make_target(None, 0)
    return min(seconds(lambda: native.observe(x, target), 5000) for _ in range(15)) * 1e6


def candidates(x: Tensor) -> dict[str, tuple[int, Call]]:
    """Return for each name the number of torch threads and what to time."""
    plain = make_target(None, 0)
    image = x.reshape(-1, 50, 200).relu()  # 50 units
    with_units = make_target(RELU, 50)
    found: dict[str, tuple[int, Call]] = {
        "x.sum()": (1, x.sum),
        "observe": (1, lambda: native.observe(x, plain)),
        "observe, 2 threads": (2, lambda: native.observe(x, plain)),
        "observe, ReLU units": (1, lambda: native.observe(image, with_units)),
        "observe_flat": (1, lambda: native.observe_flat(image, with_units)),
    }
    if x.dtype == torch.float32:
        array = x.numpy()
        found["torch.histc"] = (1, lambda: torch.histc(x, 349, -4, 4))
        found["np.histogram"] = (1, lambda: np.histogram(array, 349, (-4, 4)))
    return found


def report(size: int, dtype: torch.dtype, rounds: int) -> None:
    x = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(dtype)
    timed: dict[str, list[float]] = {}
    repeats: dict[str, int] = {}
    for round_index in range(rounds + 1):  # the first warms up and says how often to repeat
        for name, (threads, call) in candidates(x).items():
            torch.set_num_threads(threads)
            taken = seconds(call, repeats.get(name, 1))
            if round_index:
                timed.setdefault(name, []).append(taken)
            else:
                repeats[name] = max(1, round(SHORTEST_S / seconds(call, 1)))
    size_bytes = size * x.element_size()
    print(f"-- {size:.0e} {str(dtype).removeprefix('torch.')}, {size_bytes / 1e6:g} MB")
    for name, times in timed.items():
        low, middle, high = statistics.quantiles(times, n=4)
        share = statistics.median(s / t for s, t in zip(timed["x.sum()"], times, strict=True))
        print(
            f"   {name:22s} {middle * 1e6:10.1f} us [{low * 1e6:.1f}, {high * 1e6:.1f}]"
            f" {size_bytes / middle / 1e9:7.2f} GB/s {size / middle / 1e9:6.2f} values/ns  1/{1 / share:.1f} of sum"
        )


def seconds(call: Call, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


if __name__ == "__main__":
    main()
