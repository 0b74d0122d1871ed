"""What each of two processes runs: some trainings, each recorded into one run directory shared by both.

``python -m tests.distributed.program FOLDER`` with RANK and WORLD_SIZE in the environment. Activations are gathered as well,
by hooks that keep the tensors, and saved beside the runs.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from actograph.observe.watch import watch
from actograph.recording.new_run import new_run
from actograph.recording.recording import Recording

WORLD_SIZE = 2
STEPS = 6
BATCH = 12  # of both ranks together
SHORT = 100  # steps that the rank makes which dies in `short`, of twice as many
EVERY = 3  # steps that rank 1 leaves between two recorded ones in `thinned`


def make_model() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 5), nn.Tanh(), nn.Linear(5, 1))


def batches(num: int, rank: int = 0, world_size: int = 1) -> Iterator[Tensor]:
    """Yield a rank's part of each batch; one process has the whole."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(num):
        yield torch.randn(BATCH, 4, generator=generator)[rank::world_size]


def keep_outputs(model: nn.Module) -> dict[str, list[Tensor]]:
    kept: dict[str, list[Tensor]] = {}
    for name, module in model.named_modules():
        if not list(module.children()):
            kept[name] = []
            module.register_forward_hook(
                lambda _m, _i, output, to=kept[name]: to.append(output.detach().clone())
            )
    return kept


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, recording: Recording, data: Iterable[Tensor]
) -> None:
    for x in data:
        loss = model(x).square().mean()
        recording.loss(loss)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.3)
        optimizer.step()
        optimizer.zero_grad()


def ddp(folder: Path, rank: int) -> None:
    """Train with DDP, gradients and all; keep the outputs."""
    plain = make_model()
    kept = keep_outputs(plain)
    model = DistributedDataParallel(plain)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with watch(
        model, optimizer, folder / "ddp", name="ddp", budget=None, grad=True, gradients=True
    ) as recording:
        train(model, optimizer, recording, batches(STEPS, rank, WORLD_SIZE))
    save(folder / f"ddp{rank}.pt", kept)


def fsdp(folder: Path, rank: int) -> None:
    """Train with FSDP2."""
    model = make_model()
    kept = keep_outputs(model)
    fully_shard(model[0])
    fully_shard(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with watch(model, optimizer, folder / "fsdp", name="fsdp", budget=None, gradients=True) as recording:
        train(model, optimizer, recording, batches(STEPS, rank, WORLD_SIZE))
    save(folder / f"fsdp{rank}.pt", kept)


def thinned(folder: Path, rank: int) -> None:
    """Train with DDP where one rank records each step and the other every third."""
    model = DistributedDataParallel(make_model())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    writer = new_run("thinned", folder / "thinned")
    with Recording(writer, budget=None, every=EVERY if rank else 1) as recording:
        recording.attach(model)
        recording.optimizer(optimizer)
        train(model, optimizer, recording, batches(10, rank, WORLD_SIZE))


def alone(folder: Path, rank: int) -> None:
    """Record on one rank only, as scripts do that log on rank 0."""
    model = DistributedDataParallel(make_model())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if rank == 0:
        with watch(model, optimizer, folder / "alone", name="alone", budget=None) as recording:
            train(model, optimizer, recording, batches(3, rank, WORLD_SIZE))
    else:
        for x in batches(3, rank, WORLD_SIZE):
            model(x).square().mean().backward()


def default_folder(folder: Path, rank: int) -> None:
    """Let both find a run directory; the slower one must not find another."""
    os.chdir(folder)
    for _ in range(2):
        time.sleep(1.1 * rank)
        model = make_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with watch(model, optimizer, name="named", budget=None) as recording:
            train(model, optimizer, recording, batches(2, rank, WORLD_SIZE))


def taken(folder: Path, rank: int) -> None:
    """Ask for a directory that holds a run: all ranks are told."""
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    try:
        watch(model, optimizer, folder / "ddp", name="taken")
    except Exception as error:
        (folder / f"taken{rank}.txt").write_text(f"{type(error).__name__}: {error}")


def short(folder: Path, rank: int) -> None:
    """Train without DDP, so that nobody waits for the rank that dies."""
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recording = watch(model, optimizer, folder / "short", name="short", budget=None)
    dist.destroy_process_group()
    train(model, optimizer, recording, batches(SHORT - 1, rank, WORLD_SIZE))
    time.sleep(1.1)  # so that the next step stores what there is
    train(model, optimizer, recording, batches(1, rank, WORLD_SIZE))
    if rank:
        os._exit(0)
    train(model, optimizer, recording, batches(SHORT, rank, WORLD_SIZE))
    recording.close()


def save(path: Path, kept: dict[str, list[Tensor]]) -> None:
    torch.save({name: torch.stack(outputs) for name, outputs in kept.items()}, path)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD_SIZE)
    for scenario in (ddp, fsdp, thinned, alone, taken, default_folder, short):
        scenario(folder, rank)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
