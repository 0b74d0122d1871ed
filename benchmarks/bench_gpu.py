"""Time `observe` on a CUDA device, against torch's own reductions and against memory, and what recording adds to a step.

    python benchmarks/bench_gpu.py [--out results-gpu.md] [--tune] [--quick]

A tensor: candidates take turns within each round, each called so often that a round takes about `ROUND_S`; time is between
two CUDA events. Where a kernel takes less time than its launch this is the time of the launch. `host` is what a call keeps
the host busy, with nothing else to do for the device. The floor is one reading of the tensor, at the speed of a reading that
does nothing else (`sum` of 2^27 float32).

A step: two or more trainings with the same seed, one plain and the others recorded, take turns in blocks of steps. A ratio
is of a block and the mean of its two plain neighbours, wall clock, the device waited for at both ends.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from _environment import machine, revision, say
from _models import VOCABULARY, SmallGPT, cross_entropy, resnet18
from torch import Tensor, nn

from actograph.layout.layer import FlatRegion, Nonlinearity, Side
from actograph.models.cnn import simple_cnn
from actograph.recording.recording import Recording
from actograph.runlog.schema import RunInfo
from actograph.runlog.store import RunWriter
from actograph.sketch import block as block_module
from actograph.sketch import cuda
from actograph.sketch.block import Block
from actograph.sketch.links import Slot

DEVICE = torch.device("cuda")
RELU = FlatRegion(Nonlinearity.RECTIFIER, Side.OUTPUT, ((-float("inf"), 0.0),))
SIZES = (1 << 12, 1 << 16, 1 << 20, 1 << 23, 1 << 26)
UNITS = 64
ROUND_S = 0.01
TUNINGS = [
    cuda.Tuning(*shape, num_programs, num_registers)
    for shape in ((1024, 4), (2048, 4), (2048, 8), (4096, 8))
    for num_registers in (None, 128)
    for num_programs in (256, 512, 1024)
]

Call = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the Markdown to this file too")
    parser.add_argument("--tune", action="store_true", help="try block sizes and numbers of programs first")
    parser.add_argument("--quick", action="store_true", help="few rounds: does everything run?")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device")
    lines = [*heading(), ""]

    def add(*new: str) -> None:
        lines.extend(new)
        print("\n".join(new), flush=True)
        if options.out is not None:
            options.out.write_text("\n".join(lines) + "\n")

    print("\n".join(lines))
    floor = bytes_per_s()
    add(f"Reading memory: {floor / 1e12:.2f} TB/s (`sum` of 2^27 float32).", "")
    if options.tune:
        add(*tune(), "")
    rounds = 3 if options.quick else 9
    add(*tensors(floor, rounds), "")
    pairs = 2 if options.quick else 12
    add("## A training step", "", STEP_HEAD, STEP_RULE)
    for case in CASES:
        add(*step_rows(case, pairs))


def heading() -> list[str]:
    import triton  # noqa: PLC0415

    card = torch.cuda.get_device_properties(0)
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, triton {triton.__version__}"
    return [
        "# Recording on CUDA",
        "",
        f"{card.name}, {card.multi_processor_count} processors, CUDA {torch.version.cuda}; {machine()}; {versions}; "
        f"revision {revision()}; load {os.getloadavg()[0]:.1f}",
    ]


# One tensor


def device_s(call: Call, num: int) -> float:
    """Return the device's time of one call of ``num`` in a row."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(num):
        call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3 / num


def host_s(call: Call, num: int = 50) -> float:
    """Return what a call keeps the host busy; so few calls fit into the device's queue."""
    torch.cuda.synchronize()
    began_s = time.perf_counter()
    for _ in range(num):
        call()
    elapsed_s = time.perf_counter() - began_s
    torch.cuda.synchronize()
    return elapsed_s / num


def repeats(call: Call) -> int:
    call()
    return max(3, min(500, int(ROUND_S / device_s(call, 3))))


def bytes_per_s() -> float:
    x = torch.ones(1 << 27, device=DEVICE)
    x.sum()
    return 4 * x.numel() / min(device_s(x.sum, 10) for _ in range(5))


def slot_for(*, marks: bool = False) -> Slot:
    block = Block()
    slot = block.add(DEVICE, RELU if marks else None, 1, UNITS)
    if marks:
        (device_rows,) = block._devices.values()
        device_rows.look_for_rectified(slot)
    return slot


def ours(x: Tensor, *, marks: bool = False, tuning: cuda.Tuning = cuda.TUNING) -> Call:
    target = slot_for(marks=marks).cuda_target
    if target is None:
        raise SystemExit("Triton does not run here")
    return partial(cuda.observe, x, target, tuning)


def torch_reductions(x: Tensor) -> Call:
    """Return what gives the same numbers but the near-zero share, not told apart by sign, in float32."""

    def call() -> None:
        torch.var_mean(x)
        torch.aminmax(x)
        torch.count_nonzero(x)
        x.isfinite().logical_not().sum()
        torch.histc(x.float(), 349)

    return call


def tensors(floor: float, rounds: int) -> list[str]:
    lines = [
        f"## One tensor, n = {rounds} rounds, median [quartiles] of the device's time",
        "",
        "| values | type | observe, us | and flags, us | its share of the floor's speed | var_mean, us | "
        "five reductions, us | observe / five | host, us: observe | host, us: five |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for dtype in (torch.float32, torch.bfloat16):
        for size in SIZES:
            x = torch.randn(size // UNITS // 64, UNITS, 8, 8, device=DEVICE).to(dtype)
            calls = [ours(x), ours(x, marks=True), partial(torch.var_mean, x), torch_reductions(x)]
            nums = [repeats(call) for call in calls]
            times = [
                [device_s(call, num) for call, num in zip(calls, nums, strict=True)] for _ in range(rounds)
            ]
            mine, flags, moments, five = zip(*times, strict=True)
            ratio = [a / b for a, b in zip(mine, five, strict=True)]
            least_s = x.numel() * x.element_size() / floor
            hosts = [host_s(calls[0]), host_s(calls[3])]
            lines.append(
                f"| {size:,} | {str(dtype)[6:]} | {spread(mine, 1e6)} | {spread(flags, 1e6)} | "
                f"{least_s / statistics.median(mine):.2f} | {spread(moments, 1e6)} | {spread(five, 1e6)} | "
                f"{spread(ratio)} | {1e6 * hosts[0]:.0f} | {1e6 * hosts[1]:.0f} |"
            )
            say(lines[-1])
    return lines


def tune() -> list[str]:
    lines = ["## Tuning: us for 2^25 values", "", "| tuning | float32 | bfloat16 |", "|---|---:|---:|"]
    plain = torch.randn(1 << 13, UNITS, 8, 8, device=DEVICE)
    for tuning in TUNINGS:
        calls = [
            ours(plain, tuning=tuning),
            ours(plain.bfloat16(), tuning=tuning),
        ]
        for call in calls:
            call()
        times = [min(device_s(call, 10) for _ in range(3)) for call in calls]
        lines.append(f"| {tuple(tuning)} | " + " | ".join(f"{1e6 * one:.0f}" for one in times) + " |")
        say(lines[-1])
    return lines


def spread(values: Sequence[float], factor: float = 1.0) -> str:
    low, middle, high = (factor * one for one in statistics.quantiles(values, n=4, method="inclusive"))
    digits = 3 if factor == 1.0 else 1
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


# A step


@dataclass(frozen=True)
class Case:
    """A network, a batch, and how many steps are in a block."""

    title: str
    build: Callable[[], nn.Module]
    batch: Callable[[], tuple[Tensor, Tensor]]
    steps: int
    dtype: torch.dtype | None = None
    with_reference: bool = False


def _images(num: int, channels: int, width: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(num, channels, width, width, device=DEVICE)
    return x, torch.randint(10, (num,), device=DEVICE)


def _tokens(num: int, context: int) -> tuple[Tensor, Tensor]:
    text = torch.randint(VOCABULARY, (num, context + 1), device=DEVICE)
    return text[:, :-1].contiguous(), text[:, 1:].contiguous()


CASES = [
    Case("simple_cnn, 64 x 1 x 28 x 28", partial(simple_cnn, 10), partial(_images, 64, 1, 28), 20, with_reference=True),
    Case("simple_cnn, 4096 x 1 x 28 x 28", partial(simple_cnn, 10), partial(_images, 4096, 1, 28), 20),
    Case("ResNet-18, 256 x 3 x 32 x 32, bfloat16", resnet18, partial(_images, 256, 3, 32), 10, torch.bfloat16),
    Case(
        "GPT of 12 blocks, width 768, 16 x 512 tokens, bfloat16",
        partial(SmallGPT, 768, 12, 12, 512),
        partial(_tokens, 16, 512),
        5,
        torch.bfloat16,
    ),
]
STEP_HEAD = (
    "| training | plain step, ms | recorded | step / plain [quartiles], of pairs | n | what the recorder's own clock says |"
)
STEP_RULE = "|---|---:|---|---:|---:|---:|"


class Training:
    """One training, perhaps recorded at every step."""

    def __init__(self, case: Case, **options: bool) -> None:
        torch.manual_seed(0)
        self.case = case
        self.model = case.build().to(DEVICE)
        self.batch = case.batch()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-5, momentum=0.9)
        self.recording: Recording | None = None
        if options:
            gradients = options.pop("parameters")
            self.recording = Recording(RunWriter(None, RunInfo("bench")), budget=None, **options)
            self.recording.attach(self.model)
            self.recording.optimizer(self.optimizer, gradients=gradients)

    def step(self) -> None:
        x, y = self.batch
        with nullcontext() if self.case.dtype is None else torch.autocast("cuda", self.case.dtype):
            loss = cross_entropy(self.model(x), y)
        if self.recording is not None:
            self.recording.loss(loss)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def block_s(self) -> float:
        torch.cuda.synchronize()
        began_s = time.perf_counter()
        for _ in range(self.case.steps):
            self.step()
        torch.cuda.synchronize()
        return (time.perf_counter() - began_s) / self.case.steps


def step_rows(case: Case, pairs: int) -> list[str]:
    plain = Training(case)
    trainings = {
        "outputs": Training(case, grad=False, parameters=False),
        "outputs, gradients by them, parameters": Training(case, grad=True, parameters=True),
    }
    for training in (plain, *trainings.values()):
        training.block_s()
    if case.with_reference:
        make_target, block_module.cuda.make_target = cuda.make_target, lambda *memory: None
        trainings["outputs, without Triton"] = Training(case, grad=False, parameters=False)
        trainings["outputs, without Triton"].block_s()
        block_module.cuda.make_target = make_target
    times: dict[str, list[float]] = {name: [] for name in trainings}
    plain_s: list[float] = []
    for _ in range(pairs):
        before_s = plain.block_s()
        plain_s.append(before_s)
        for name, training in trainings.items():
            recorded_s = training.block_s()
            after_s = plain.block_s()
            times[name].append(2 * recorded_s / (before_s + after_s))
            before_s = after_s
    rows = []
    for name, ratios in times.items():
        recording = trainings[name].recording
        assert recording is not None
        cost = recording.view().info.cost
        own = cost.recorder_s / max(cost.elapsed_s - cost.recorder_s, 1e-9)
        rows.append(
            f"| {case.title} | {1e3 * statistics.median(plain_s):.2f} | {name} | {spread(ratios)} | {pairs} | {own:.3f} |"
        )
        say(rows[-1])
    return rows


if __name__ == "__main__":
    main()
