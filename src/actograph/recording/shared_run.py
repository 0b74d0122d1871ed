"""`join_run`: one run directory for all processes that train together, each with a file of its own in it.

No idea of what is recorded. Rank 0 says where the run is, through the key-value store that the processes share anyway: no
collective call, so a rank that records nothing is not waited for.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch.distributed as dist

from actograph.errors import RunInUseError, UsageError
from actograph.runlog.schema import RunInfo
from actograph.runlog.store import RunWriter
from actograph.train.distributed import AGREEMENT, Store, shared_store


def join_run(info: RunInfo, out: str | Path | None, begin: Callable[[RunInfo], RunWriter]) -> RunWriter:
    """Make the run directory with ``begin`` on rank 0, and write into it on the others.

    Raises RunInUseError on all ranks when it is taken, UsageError when they cannot agree on one.
    """
    store = shared_store()
    if store is None:
        if out is None:
            raise UsageError(
                f"{info.world_size} processes cannot agree on a run directory before torch's process group is there: "
                "give an output folder, or start them with torchrun"
            )
        return RunWriter(Path(out), info)
    number = store.add(f"{info.name}/asked by {info.rank}", 1)  # a process may begin several runs of one name
    key = f"{info.name}/{number}"
    if info.rank == 0:
        return _begin(store, key, replace(info, launch=uuid.uuid4().hex), begin)
    return _follow(store, key, info)


def _begin(store: Store, key: str, info: RunInfo, begin: Callable[[RunInfo], RunWriter]) -> RunWriter:
    """Make the run directory and tell the other ranks where it is, or why there is none."""
    try:
        writer = begin(info)
    except Exception as error:
        store.set(key, json.dumps({"error": str(error)}))
        raise
    store.set(key, json.dumps({"directory": str(writer.directory), "launch": info.launch}))
    return writer


def _follow(store: Store, key: str, info: RunInfo) -> RunWriter:
    """Wait for what rank 0 says."""
    try:
        said = json.loads(store.get(key))
    except dist.DistError as error:
        raise UsageError(
            f"rank {info.rank} records a run {info.name!r}, but rank 0 has begun none within "
            f"{AGREEMENT.total_seconds():.0f} s: record on all ranks, or on rank 0 alone"
        ) from error
    if "error" in said:
        raise RunInUseError(said["error"])
    return RunWriter(Path(said["directory"]), replace(info, launch=said["launch"]))
