"""What a run's database tells of the writer's memory: the bounded timelines as they were, not yet joined to one view.

No idea of who goes on with them.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from actograph.layout.layer import LayerInfo
from actograph.layout.parameter import ParameterInfo
from actograph.runlog.buckets import Bucket, ParameterBucket
from actograph.runlog.flags import FlagBucket
from actograph.runlog.packing import unpack_parameters
from actograph.runlog.reader import _exact, _read_buckets, _scalar_bucket
from actograph.runlog.scalars import ScalarBucket
from actograph.runlog.schema import Cost, Event

WAL_MARK, PLAIN_MARK = (
    slice(18, 20),
    b"\x01\x01",
)  # sqlite.org/fileformat.html: the file format version numbers


@dataclass(frozen=True)
class Backup:
    """A run's parts, each as its writer holds it."""

    cost: Cost
    layers: list[LayerInfo]
    parameters: list[ParameterInfo]
    events: list[Event]
    buckets: Mapping[str, tuple[list[Bucket], list[Bucket]]]  # by phase: the long view and the recent one
    flags: Mapping[int, tuple[list[FlagBucket], list[FlagBucket]]]  # by layer
    parameter_buckets: tuple[list[ParameterBucket], list[ParameterBucket]]
    scalars: Mapping[tuple[str, str], tuple[list[ScalarBucket], list[tuple[int, float]]]]


def database_bytes(source: sqlite3.Connection) -> bytes:
    """Return a copy of the database as the bytes of a file that is not in WAL mode."""
    copy = sqlite3.connect(":memory:")
    try:
        source.backup(copy)
        data = bytearray(copy.serialize())
    finally:
        copy.close()
    data[WAL_MARK] = PLAIN_MARK  # a database in memory has no WAL, and would not open (sqlite3_deserialize)
    return bytes(data)


def open_bytes(data: bytes) -> sqlite3.Connection:
    """Return the database of `database_bytes`, in memory."""
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    connection.deserialize(data)
    return connection


def read_backup(connection: sqlite3.Connection) -> Backup:
    """Read all parts of a run that was stored to its last step."""
    info = dict(connection.execute("SELECT key, value FROM info"))
    layers = connection.execute("SELECT data FROM layer ORDER BY position")
    parameters = connection.execute("SELECT data FROM parameter ORDER BY position")
    events = connection.execute("SELECT step, kind, data FROM event ORDER BY id")
    phases = connection.execute("SELECT DISTINCT phase FROM bucket").fetchall()
    return Backup(
        Cost(**json.loads(info["cost"])),
        [LayerInfo.from_json(json.loads(data)) for (data,) in layers],
        [ParameterInfo.from_json(json.loads(data)) for (data,) in parameters],
        [Event(step, kind, json.loads(data)) for step, kind, data in events],
        {
            phase: (_read_buckets(connection, "long", phase), _read_buckets(connection, "recent", phase))
            for (phase,) in phases
        },
        _flags(connection),
        (_parameter_buckets(connection, "long"), _parameter_buckets(connection, "recent")),
        {key: _scalars(connection, key) for key in _scalar_keys(connection)},
    )


def _flags(connection: sqlite3.Connection) -> dict[int, tuple[list[FlagBucket], list[FlagBucket]]]:
    found: defaultdict[int, tuple[list[FlagBucket], list[FlagBucket]]] = defaultdict(lambda: ([], []))
    query = "SELECT layer, view, first_step, last_step, num_steps, data FROM flag_bucket ORDER BY first_step"
    for layer, view, first, last, num, data in connection.execute(query):
        found[layer][view == "recent"].append(FlagBucket(first, last, num, np.frombuffer(data, np.uint8)))
    return dict(found)


def _parameter_buckets(connection: sqlite3.Connection, view: str) -> list[ParameterBucket]:
    query = "SELECT first_step, last_step, num_steps, data FROM parameter_bucket WHERE view = ? ORDER BY first_step"
    return [
        unpack_parameters((first, last, num), data)
        for first, last, num, data in connection.execute(query, (view,))
    ]


def _scalar_keys(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    return connection.execute("SELECT DISTINCT phase, name FROM scalar").fetchall()


def _scalars(
    connection: sqlite3.Connection, key: tuple[str, str]
) -> tuple[list[ScalarBucket], list[tuple[int, float]]]:
    buckets = connection.execute(
        "SELECT first_step, last_step, num_steps, mean, low, high, first_non_finite FROM scalar_bucket"
        " WHERE phase = ? AND name = ? ORDER BY position",
        key,
    )
    exact = connection.execute(
        "SELECT step, value FROM scalar WHERE phase = ? AND name = ? ORDER BY step", key
    )
    return [_scalar_bucket(entry) for entry in buckets], [_exact(entry) for entry in exact]
