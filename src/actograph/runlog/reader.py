"""`read_run`: a run directory as a `RunView`, finished or still being written.

No idea of who writes it.
"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from actograph.errors import RunNotFoundError
from actograph.layout.layer import LayerInfo, Quantity
from actograph.layout.parameter import ParameterInfo
from actograph.runlog import schema
from actograph.runlog.buckets import Bucket
from actograph.runlog.flags import FlagBucket, WideFlags
from actograph.runlog.packing import unpack, unpack_parameters
from actograph.runlog.parameters import ParameterView
from actograph.runlog.scalars import ScalarBucket, ScalarSeries
from actograph.runlog.schema import Event, RunInfo
from actograph.runlog.timeline import joined
from actograph.runlog.view import RunView, split_quantities


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
    if version not in range(1, schema.SCHEMA_VERSION + 1):
        raise ValueError(
            f"schema version {version}, this actograph reads versions 1 to {schema.SCHEMA_VERSION}"
        )
    has_all = sketches and version >= schema.FIRST_WITH_PARAMETERS
    entries = connection.execute("SELECT data FROM layer ORDER BY position")
    layers = [LayerInfo.from_json(json.loads(data)) for (data,) in entries]
    events = connection.execute("SELECT step, kind, data FROM event ORDER BY id")
    both = joined(_read_buckets(connection, "long"), _read_buckets(connection, "recent")) if sketches else []
    parts = split_quantities(layers, both)
    return RunView(
        RunInfo.from_json(info),
        *parts[Quantity.ACTIVATION],
        scalars=dict(_read_scalars(connection)),
        events=tuple(Event(step, kind, json.loads(data)) for step, kind, data in events),
        parameters=_read_parameters(connection) if has_all else ParameterView(),
        wide_flags=_read_flags(connection, layers) if has_all else {},
        gradient_layers=parts[Quantity.GRADIENT][0],
        gradient_buckets=parts[Quantity.GRADIENT][1],
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


def _read_flags(connection: sqlite3.Connection, layers: Sequence[LayerInfo]) -> dict[str, WideFlags]:
    """Return the flags of the layers that have them apart, by name."""
    found: defaultdict[tuple[int, str], list[FlagBucket]] = defaultdict(list)
    entries = connection.execute(
        "SELECT layer, view, first_step, last_step, num_steps, data FROM flag_bucket ORDER BY first_step"
    )
    for layer, view, first, last, num, data in entries:
        found[layer, view].append(FlagBucket(first, last, num, np.frombuffer(data, np.uint8)))
    return {
        layers[layer].name: WideFlags(tuple(found[layer, "long"]), tuple(found[layer, "recent"]))
        for layer, _ in list(found)
    }


def _read_parameters(connection: sqlite3.Connection) -> ParameterView:
    entries = connection.execute("SELECT data FROM parameter ORDER BY position")
    parameters = tuple(ParameterInfo.from_json(json.loads(data)) for (data,) in entries)
    query = "SELECT first_step, last_step, num_steps, data FROM parameter_bucket WHERE view = ? ORDER BY first_step"
    long, recent = (
        [
            unpack_parameters((first, last, num), data)
            for first, last, num, data in connection.execute(query, (view,))
        ]
        for view in ("long", "recent")
    )
    return ParameterView(parameters, tuple(joined(long, recent)))


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
