"""`new_run`: the run directory every driver begins with.

No idea of hooks, rows or files.
"""

from __future__ import annotations

import itertools
import os
import platform
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from actograph.errors import RunInUseError
from actograph.recording.shared_run import join_run
from actograph.runlog.schema import RUNS, RunInfo, database_of
from actograph.runlog.store import RunWriter
from actograph.train.distributed import this_rank

MEMORY = ":memory:"


def new_run(
    name: str, out: str | Path | None = None, device: str = "cpu", config: Mapping[str, Any] | None = None
) -> RunWriter:
    """Make a run directory, or join that of rank 0, and return this process's writer.

    ``out`` None makes ``runs/<date>-<time>-<name>``, ":memory:" none.
    Raises RunInUseError when it is taken, UsageError when several processes cannot agree on one.
    """
    now = datetime.now().astimezone()
    rank = this_rank()
    info = RunInfo(
        name=name,
        created=now.isoformat(timespec="seconds"),
        pid=os.getpid(),
        host=platform.node(),
        environment={"python": platform.python_version(), "torch": torch.__version__, "device": device},
        config=dict(config or {}),
        rank=rank.rank,
        world_size=rank.world_size,
    )

    def begin(info: RunInfo) -> RunWriter:
        if out is not None:
            return RunWriter(Path(out), info)
        return _in_fresh_directory(f"{now:%Y%m%d-%H%M%S}-{_file_name(name)}", info)

    if out == MEMORY:
        return RunWriter(None, info)
    return begin(info) if rank.world_size == 1 else join_run(info, out, begin)


def free_directory(out: str | Path | None) -> str | Path | None:
    """Return ``out`` for a run that goes on from a checkpoint; where it holds one already, ``out-2``, ``out-3``, ..."""
    if out is None or out == MEMORY:
        return out
    path, database = Path(out), database_of(this_rank().rank)
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(free for free in itertools.chain([path], numbered) if not (free / database).exists())


def _in_fresh_directory(stem: str, info: RunInfo) -> RunWriter:
    """Two runs of one name may begin within a second: the later ones get a number."""
    for attempt in range(1, 100):
        try:
            return RunWriter(RUNS / (stem if attempt == 1 else f"{stem}-{attempt}"), info)
        except RunInUseError:
            if not (RUNS / stem).is_dir():  # not taken, but not writable
                raise
    raise RunInUseError(f"{RUNS / stem} and 98 numbered variants are taken; choose an output folder")


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"
