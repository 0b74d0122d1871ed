"""Memory of a training step: predicted from what backward keeps, and measured in a process of its own under a limit.

No idea of studies.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from actograph.data.loaders import Loaders
from actograph.learner import DEFAULT_OPTIMIZER
from actograph.study.executor import Processes
from actograph.study.setup import Setup
from actograph.train.device import device_of

if sys.platform == "linux":  # Windows has no such module
    import resource

LINUX = "linux"  # the only system whose limit and unit of the peak are known here
KIB = 1024  # bytes; Linux tells the peak in these
COPIES = 4  # of the parameters: themselves, gradients, and two moments of Adam
LEAST = 2  # samples: a batch norm needs two
STEPS = 2  # of each size: the first may still prepare
# What a process may take beyond what it has: several times the prediction, and room for stacks and the allocator's reserve
LIMIT_TIMES, LIMIT_SPARE_BYTES = 16, 512 * 2**20


@dataclass(frozen=True)
class MemoryLine:
    """Bytes of a training step over the samples in a batch: ``fixed + per_sample * samples``."""

    fixed: float
    per_sample: float

    def at(self, num_samples: int) -> float:
        """Return the bytes at a batch of so many samples."""
        return self.fixed + self.per_sample * num_samples

    @classmethod
    def through(cls, a: tuple[int, float], b: tuple[int, float]) -> MemoryLine:
        """Return the line through two points (samples, bytes).

        >>> MemoryLine.through((2, 110.0), (4, 210.0))
        MemoryLine(fixed=10.0, per_sample=50.0)
        """
        slope = (b[1] - a[1]) / (b[0] - a[0])
        return cls(a[1] - slope * a[0], slope)


def predict(model: nn.Module, loss_func: nn.Module, x: Tensor, y: Tensor) -> MemoryLine:
    """Predict the bytes of a training step from what backward keeps of a half and of the whole of this batch.

    Added are parameters, gradients, the two moments of Adam, and buffers. What a layer needs only while it computes is not
    in it.
    """
    half, whole = len(y) // 2, len(y)
    kept = MemoryLine.through(
        (half, float(saved_bytes(model, loss_func, x[:half], y[:half]))),
        (whole, float(saved_bytes(model, loss_func, x, y))),
    )
    parameters = sum(parameter.nbytes for parameter in model.parameters())
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    return MemoryLine(kept.fixed + COPIES * parameters + buffers, kept.per_sample)


def saved_bytes(model: nn.Module, loss_func: nn.Module, x: Tensor, y: Tensor) -> int:
    """Return the bytes of the memory that a forward pass keeps for backward; each once, parameters and buffers not."""
    device = device_of(model)
    own = {one.untyped_storage().data_ptr() for one in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}  # holding them keeps their addresses from being used again

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    x, y = x.to(device, copy=True), y.to(device, copy=True)  # a slice would bring the whole batch's memory
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss_func(model(x), y)
    return sum(storage.nbytes() for storage in kept.values())


@dataclass(frozen=True)
class PeakJob:
    """What a process needs to know to measure peaks; ``limits`` are the bytes it may take beyond what it has, by size."""

    setup: Setup
    num_classes: int
    input_size: tuple[int, ...]
    limits: Mapping[int, int]  # rising


def measured_peaks(
    setup: Setup, loaders: Loaders, sizes: Iterable[int], line: MemoryLine
) -> dict[int, float] | str:
    """Return by how many bytes training steps of each size raise the peak of a process, or why that was not measured.

    Counted from the peak of steps with `LEAST` samples. A size that does not fit its limit, or that of this machine, is
    left out.
    """
    assert loaders.num_classes is not None
    assert loaders.input_size is not None
    if sys.platform != LINUX or setup.torch_device.type != "cpu":
        return "peaks are measured on the CPU of Linux only"
    free = available_bytes()
    limits = {size: int(LIMIT_TIMES * line.at(size)) + LIMIT_SPARE_BYTES for size in sorted(sizes)}
    fitting = {size: min(limit, free) for size, limit in limits.items() if line.at(size) < free / 2}
    job = PeakJob(setup, loaders.num_classes, loaders.input_size, fitting)
    ((_, peaks),) = Processes(1).run(peaks_of, [job])
    return str(peaks) if isinstance(peaks, BrokenProcessPool) else peaks


def peaks_of(job: PeakJob) -> dict[int, float]:
    """Train with batches of each size, rising, and return how far each raised the peak: to be run in a fresh process."""
    step = _step(job)
    step(LEAST)
    least = peak_bytes()
    peaks: dict[int, float] = {}
    for size, limit in job.limits.items():
        with _limited(limit):
            try:
                step(size)
            except (RuntimeError, MemoryError) as error:
                if "memory" not in str(error) and not isinstance(error, MemoryError):
                    raise
                break
        peaks[size] = float(peak_bytes() - least)
    return peaks


def _step(job: PeakJob) -> Callable[[int], None]:
    """Return what trains on made-up samples: their values do not matter to the memory, reading data would."""
    model = job.setup.build(0, Loaders((), num_classes=job.num_classes, input_size=job.input_size)).train()
    optimizer = DEFAULT_OPTIMIZER(model.parameters(), lr=0.0)

    def run(size: int) -> None:
        for _ in range(STEPS):
            x, y = torch.zeros(size, *job.input_size), torch.zeros(size, dtype=torch.long)
            job.setup.loss_func(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()

    return run


class _limited:  # noqa: N801 - reads as a function
    """Let this process take only so many bytes more than it has, until the block is left."""

    def __init__(self, more_bytes: int) -> None:
        self.more_bytes = more_bytes
        self._old = resource.getrlimit(resource.RLIMIT_DATA)

    def __enter__(self) -> None:
        soft = _status_bytes("VmData") + self.more_bytes
        hard = self._old[1]
        resource.setrlimit(
            resource.RLIMIT_DATA, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard)
        )

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_DATA, self._old)


def peak_bytes() -> int:
    """Return the most memory this process has had in use so far.

    Not getrusage's ru_maxrss: that begins with the peak of the process that started this one.
    """
    return _status_bytes("VmHWM")


def available_bytes() -> int:
    """Return the memory that could be taken without swapping."""
    return _field_bytes(Path("/proc/meminfo"), "MemAvailable")


def _status_bytes(name: str) -> int:
    return _field_bytes(Path("/proc/self/status"), name)


def _field_bytes(path: Path, name: str) -> int:
    lines = path.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * KIB


def measured_line(peaks: Mapping[int, float]) -> MemoryLine | None:
    """Return the line through the two largest peaks, None where there are not two."""
    largest: Sequence[tuple[int, float]] = sorted(peaks.items())[-2:]
    return MemoryLine.through(*largest) if len(largest) == 2 else None  # noqa: PLR2004 - a line has two points
