"""What a run's database tells of the writer's memory: the bounded timelines as they were, not yet joined to one view.

No idea of who goes on with them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from actograph.layout.layer import LayerInfo
from actograph.layout.parameter import ParameterInfo
from actograph.runlog import tables
from actograph.runlog.buckets import Bucket, ParameterBucket
from actograph.runlog.facts import Fact
from actograph.runlog.flags import FlagBucket
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
    scalars: Mapping[tuple[str, str], tables.Scalars]
    facts: list[Fact]


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
    phases = connection.execute("SELECT DISTINCT phase FROM bucket").fetchall()
    read, read_parameters = tables.read_buckets, tables.read_parameter_buckets
    return Backup(
        Cost(**tables.read_info(connection)["cost"]),
        tables.read_layers(connection),
        tables.read_parameters(connection),
        tables.read_events(connection),
        {phase: (read(connection, "long", phase), read(connection, "recent", phase)) for (phase,) in phases},
        tables.read_flags(connection),
        (read_parameters(connection, "long"), read_parameters(connection, "recent")),
        tables.read_scalars(connection),
        tables.read_facts(connection),
    )
