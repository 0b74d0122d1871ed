"""The tables of a run's database, read: each as what its writer holds.

No idea of who asks, nor of how the parts make up a run.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np

from actograph.layout.layer import LayerInfo
from actograph.layout.parameter import ParameterInfo
from actograph.runlog.buckets import Bucket, ParameterBucket
from actograph.runlog.facts import Fact, FactKind
from actograph.runlog.flags import FlagBucket
from actograph.runlog.packing import unpack, unpack_parameters
from actograph.runlog.scalars import ScalarBucket
from actograph.runlog.schema import Event

Scalars: TypeAlias = tuple[list[ScalarBucket], list[tuple[int, float]]]  # buckets, and the exact last steps


def read_info(connection: sqlite3.Connection) -> dict[str, Any]:
    """Return what is known of the run as a whole, as plain data."""
    return {key: json.loads(value) for key, value in connection.execute("SELECT key, value FROM info")}


def read_layers(connection: sqlite3.Connection) -> list[LayerInfo]:
    """Return the layers in their order."""
    entries = connection.execute("SELECT data FROM layer ORDER BY position")
    return [LayerInfo.from_json(json.loads(data)) for (data,) in entries]


def read_parameters(connection: sqlite3.Connection) -> list[ParameterInfo]:
    """Return the parameters in their order."""
    entries = connection.execute("SELECT data FROM parameter ORDER BY position")
    return [ParameterInfo.from_json(json.loads(data)) for (data,) in entries]


def read_events(connection: sqlite3.Connection) -> list[Event]:
    """Return the events in the order in which they happened."""
    entries = connection.execute("SELECT step, kind, data FROM event ORDER BY id")
    return [Event(step, kind, json.loads(data)) for step, kind, data in entries]


def read_facts(connection: sqlite3.Connection) -> list[Fact]:
    """Return the facts; those of a kind that is not known here are left out."""
    entries = connection.execute(
        "SELECT kind, subject, first_step, since, last_step, num_steps, data FROM fact ORDER BY first_step"
    )
    known = {kind.value for kind in FactKind}
    return [
        Fact(FactKind(kind), subject, first, since, last, num, json.loads(data))
        for kind, subject, first, since, last, num, data in entries
        if kind in known
    ]


def read_buckets(connection: sqlite3.Connection, view: str, phase: str = "train") -> list[Bucket]:
    """Return the ``view``, "long" or "recent", of a phase."""
    entries = connection.execute(
        "SELECT first_step, last_step, num_steps, is_compressed, num_layers, kind, data FROM bucket"
        " WHERE phase = ? AND view = ? ORDER BY first_step",
        (phase, view),
    )
    return [
        unpack((first, last, num), num_layers, kind, data, compressed=bool(is_compressed))
        for first, last, num, is_compressed, num_layers, kind, data in entries
    ]


def read_parameter_buckets(connection: sqlite3.Connection, view: str) -> list[ParameterBucket]:
    """Return the ``view``, "long" or "recent", of the parameters."""
    query = "SELECT first_step, last_step, num_steps, data FROM parameter_bucket WHERE view = ? ORDER BY first_step"
    return [
        unpack_parameters((first, last, num), data)
        for first, last, num, data in connection.execute(query, (view,))
    ]


def read_flags(connection: sqlite3.Connection) -> dict[int, tuple[list[FlagBucket], list[FlagBucket]]]:
    """Return the flags of the layers that have them apart, by position: long view and recent one."""
    found: defaultdict[int, tuple[list[FlagBucket], list[FlagBucket]]] = defaultdict(lambda: ([], []))
    query = "SELECT layer, view, first_step, last_step, num_steps, data FROM flag_bucket ORDER BY first_step"
    for layer, view, first, last, num, data in connection.execute(query):
        found[layer][view == "recent"].append(FlagBucket(first, last, num, np.frombuffer(data, np.uint8)))
    return dict(found)


def read_scalars(connection: sqlite3.Connection) -> dict[tuple[str, str], Scalars]:
    """Return all scalars by phase and name."""
    keys = connection.execute("SELECT DISTINCT phase, name FROM scalar").fetchall()
    return {key: _read_scalar(connection, key) for key in keys}


def _read_scalar(connection: sqlite3.Connection, key: tuple[str, str]) -> Scalars:
    buckets = connection.execute(
        "SELECT first_step, last_step, num_steps, mean, low, high, first_non_finite FROM scalar_bucket"
        " WHERE phase = ? AND name = ? ORDER BY position",
        key,
    )
    exact = connection.execute(
        "SELECT step, value FROM scalar WHERE phase = ? AND name = ? ORDER BY step", key
    )
    return [_scalar_bucket(entry) for entry in buckets], [(step, _number(value)) for step, value in exact]


def _scalar_bucket(entry: Iterable[Any]) -> ScalarBucket:
    first_step, last_step, num_steps, mean, low, high, first_non_finite = entry
    numbers = _number(mean), _number(low), _number(high)
    return ScalarBucket(first_step, last_step, num_steps, *numbers, first_non_finite)


def _number(value: float | None) -> float:
    """Return what was stored; SQLite has no NaN and keeps NULL in its place."""
    return math.nan if value is None else value
