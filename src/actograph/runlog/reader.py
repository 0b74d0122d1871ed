"""`read_run`: a run directory as a `RunView`, finished or still being written.

No idea of who writes it.
"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from actograph.errors import RunNotFoundError
from actograph.layout.layer import LayerInfo
from actograph.runlog import schema
from actograph.runlog.packing import unpack
from actograph.runlog.scalars import ScalarBucket, ScalarSeries
from actograph.runlog.schema import Event, RunInfo
from actograph.runlog.timeline import Bucket, joined
from actograph.runlog.view import RunView


def read_run(path: Path | str, *, sketches: bool = True) -> RunView:
    """Read a run directory, or its ``run.db``, finished or still being written.

    Without ``sketches`` only info, layers, scalars and events are read: fast, for lists of runs.

    Raises RunNotFoundError when there is none or it cannot be read.
    """
    database = Path(path)
    database = database / schema.DATABASE if database.is_dir() else database
    if not database.is_file():
        raise RunNotFoundError(
            f"no run at {path}: expected a folder that holds {schema.DATABASE}; see `actograph ls`"
        )
    try:
        with contextlib.closing(
            sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
        ) as connection:
            return _read(connection, sketches=sketches)
    except (sqlite3.DatabaseError, ValueError, KeyError, TypeError, zlib.error) as error:
        raise RunNotFoundError(
            f"{database} is not a readable run ({error}); it may be damaged or foreign"
        ) from error


def find_runs(directory: Path) -> list[Path]:
    """Return the run directories right below (or at) ``directory``, oldest first by name."""
    if not directory.is_dir():
        return []
    return sorted(
        database.parent for pattern in ("", "*/") for database in directory.glob(pattern + schema.DATABASE)
    )


def _read(connection: sqlite3.Connection, *, sketches: bool) -> RunView:
    info = {key: json.loads(value) for key, value in connection.execute("SELECT key, value FROM info")}
    version = info.pop("schema", None)
    if version != schema.SCHEMA_VERSION:
        raise ValueError(f"schema version {version}, this actograph reads version {schema.SCHEMA_VERSION}")
    layers = connection.execute("SELECT data FROM layer ORDER BY position")
    events = connection.execute("SELECT step, kind, data FROM event ORDER BY id")
    return RunView(
        info=RunInfo.from_json(info),
        layers=tuple(LayerInfo.from_json(json.loads(data)) for (data,) in layers),
        buckets=tuple(joined(_read_buckets(connection, "long"), _read_buckets(connection, "recent")))
        if sketches
        else (),
        scalars=dict(_read_scalars(connection)),
        events=tuple(Event(step, kind, json.loads(data)) for step, kind, data in events),
    )


def _read_buckets(connection: sqlite3.Connection, view: str, phase: str = "train") -> list[Bucket]:
    entries = connection.execute(
        "SELECT first_step, last_step, num_steps, is_compressed, num_layers, kind, data FROM bucket"
        " WHERE phase = ? AND view = ? ORDER BY first_step",
        (phase, view),
    )
    return [_bucket(entry) for entry in entries]


def _bucket(entry: Iterable[Any]) -> Bucket:
    first_step, last_step, num_steps, is_compressed, num_layers, kind, data = entry
    return unpack((first_step, last_step, num_steps), num_layers, kind, data, compressed=bool(is_compressed))


def _read_scalars(connection: sqlite3.Connection) -> Iterator[tuple[tuple[str, str], ScalarSeries]]:
    keys = connection.execute("SELECT DISTINCT phase, name FROM scalar").fetchall()
    for key in keys:
        buckets = connection.execute(
            "SELECT first_step, last_step, num_steps, mean, low, high, first_non_finite FROM scalar_bucket"
            " WHERE phase = ? AND name = ? ORDER BY position",
            key,
        )
        exact = connection.execute(
            "SELECT step, value FROM scalar WHERE phase = ? AND name = ? ORDER BY step", key
        )
        yield (
            key,
            ScalarSeries.join(
                [_scalar_bucket(entry) for entry in buckets], [_exact(entry) for entry in exact]
            ),
        )


def _scalar_bucket(entry: Iterable[Any]) -> ScalarBucket:
    first_step, last_step, num_steps, mean, low, high, first_non_finite = entry
    mean, low, high = (math.nan if value is None else value for value in (mean, low, high))
    return ScalarBucket(first_step, last_step, num_steps, mean, low, high, first_non_finite)


def _exact(entry: tuple[int, float | None]) -> tuple[int, float]:
    step, value = entry
    return step, math.nan if value is None else value
