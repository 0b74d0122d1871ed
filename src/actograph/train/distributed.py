"""One of several processes that train together: which one this is, its part of each batch, and its step through torch's DDP.

No idea of models or of recording. Processes are started by ``torchrun`` and talk through torch alone; one process by itself
is rank 0 of 1, for which nothing here does anything.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from actograph.data.loaders import Batch, Loaders, TensorLoader
from actograph.errors import UsageError
from actograph.train.step import LossFunction, Supervised

AGREEMENT = timedelta(
    minutes=10
)  # to wait for what another process has to say: it may have data to prepare first


@dataclass(frozen=True)
class Rank:
    """Which of ``world_size`` processes this is; the first one, rank 0, prints and writes for all."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0


def this_rank() -> Rank:
    """Return this process's rank: that of torch's process group, else what ``torchrun`` has put into the environment."""
    if dist.is_available() and dist.is_initialized():
        return Rank(dist.get_rank(), dist.get_world_size())
    rank, world_size = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))
    if rank.isdecimal() and world_size.isdecimal() and int(rank) < int(world_size):
        return Rank(int(rank), int(world_size))
    return Rank()


@contextlib.contextmanager
def joined() -> Iterator[Rank]:
    """Join torch's process group while the block runs, where there are several processes and none of them did so yet."""
    rank = this_rank()
    if rank.world_size == 1 or dist.is_initialized():
        yield rank
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local < torch.cuda.device_count():
        torch.cuda.set_device(local)  # "cuda" is a GPU of its own for each process
    dist.init_process_group()
    try:
        yield rank
    finally:
        dist.destroy_process_group()


class Store(Protocol):
    """What processes tell each other: values by key."""

    def set(self, key: str, value: str, /) -> None:
        """Tell a value."""

    def get(self, key: str, /) -> bytes:
        """Return a value; wait until it is told."""

    def add(self, key: str, number: int, /) -> int:
        """Add to a number that begins as 0, and return it."""


def shared_store() -> Store | None:
    """Return the key-value store that all processes of one start share; None where there is none.

    Asking it is not a collective call: who does not ask is not waited for.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store: Store = dist.TCPStore(host, port, is_master=False, timeout=AGREEMENT)  # type: ignore[attr-defined]
    elif dist.is_available() and dist.is_initialized():
        store = dist.distributed_c10d._get_default_store()
    else:
        return None
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    prefixed: Store = dist.PrefixStore(f"actograph/{attempt}", store)  # type: ignore[attr-defined, arg-type]
    return prefixed


def data_parallel(model: nn.Module, loss_func: LossFunction, optimizer: torch.optim.Optimizer) -> Supervised:
    """Return the plain step through torch's DDP: gradients are averaged over the processes, so all make the same update.

    Give it as ``Learner(step=data_parallel)``, with loaders from `shared_out`. Raises UsageError outside of a process group.
    """
    if not dist.is_initialized():
        raise UsageError("torch's process group is not there: train inside of `joined()`, or in one process")
    return Supervised(DistributedDataParallel(model), loss_func, optimizer)


def shared_out(loaders: Loaders, rank: Rank) -> Loaders:
    """Return loaders that give each rank its part of every training batch; all ranks validate on everything.

    Raises UsageError for a train loader that is no `TensorLoader`, or whose batches are smaller than the number of ranks.
    """
    if rank.world_size == 1:
        return loaders
    if not isinstance(loaders.train, TensorLoader):
        raise UsageError(
            f"the train loader is a {type(loaders.train).__name__}; only batches of a TensorLoader can be shared out: "
            "give torch's DataLoader a DistributedSampler instead"
        )
    return replace(loaders, train=BatchParts(loaders.train, rank))


class BatchParts:
    """One rank's part of each batch of a loader that is the same on all ranks.

    All parts of a batch have the same size, so the mean of the ranks' gradients is the gradient of the batch, and the
    training is that of one process. At most ``world_size - 1`` samples at the end of an epoch's last batch are left out.

    >>> loader = TensorLoader(torch.arange(7.0), torch.arange(7), batch_size=4)
    >>> [[y.tolist() for _, y in BatchParts(loader, Rank(rank, 2))] for rank in (0, 1)]
    [[[0, 2], [4]], [[1, 3], [5]]]
    """

    def __init__(self, loader: TensorLoader, rank: Rank) -> None:
        if loader.batch_size < rank.world_size:
            raise UsageError(
                f"batch_size is {loader.batch_size} for {rank.world_size} processes; give at least one sample for each"
            )
        self.loader = loader
        self.rank = rank

    def __len__(self) -> int:
        """Return the number of batches in an epoch, the same on all ranks."""
        loader = self.loader
        last = len(loader.x) - (len(loader) - 1) * loader.batch_size
        return len(loader) - (last < self.rank.world_size)

    def __iter__(self) -> Iterator[Batch]:
        """Begin the next epoch."""
        for x, y in self.loader:
            size = len(x) // self.rank.world_size * self.rank.world_size
            if size:
                part = slice(self.rank.rank, size, self.rank.world_size)
                yield x[part], y[part]

    def state_dict(self) -> Mapping[str, Any]:
        """Return where the loader stands, which is the same on all ranks."""
        return self.loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned on any rank."""
        self.loader.load_state_dict(state)


def plain_model(model: nn.Module) -> nn.Module:
    """Return the model inside of torch's DDP, or of a DataParallel that makes no copies of it; any other as it is."""
    is_wrapper = isinstance(model, DistributedDataParallel) or (
        isinstance(model, nn.DataParallel) and not makes_copies(model)
    )
    inside = model.module if is_wrapper else model
    assert isinstance(inside, nn.Module)
    return inside


def makes_copies(model: nn.DataParallel[nn.Module]) -> bool:
    """Tell whether a DataParallel calls copies of its model: not with one device, nor with none, as on the CPU."""
    return len(model.device_ids) > 1
