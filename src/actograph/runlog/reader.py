"""`read_run`: a run directory as a `RunView`, finished or still being written.

No idea of who writes it.
"""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Sequence
from pathlib import Path

from actograph.errors import RunNotFoundError
from actograph.layout.layer import LayerInfo, Quantity
from actograph.runlog import schema, tables
from actograph.runlog.facts import FactView
from actograph.runlog.flags import WideFlags
from actograph.runlog.parameters import ParameterView
from actograph.runlog.scalars import ScalarSeries
from actograph.runlog.schema import RunInfo
from actograph.runlog.timeline import joined
from actograph.runlog.view import RunView, split_quantities

VIEWS = ("long", "recent")


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
    info = tables.read_info(connection)
    version = info.pop("schema", None)
    if version not in range(1, schema.SCHEMA_VERSION + 1):
        raise ValueError(
            f"schema version {version}, this actograph reads versions 1 to {schema.SCHEMA_VERSION}"
        )
    has_all = sketches and version >= schema.FIRST_WITH_PARAMETERS
    has_facts = version >= schema.FIRST_WITH_FACTS
    layers = tables.read_layers(connection)
    buckets = (tables.read_buckets(connection, view) for view in VIEWS)
    parts = split_quantities(layers, joined(*buckets) if sketches else [])
    return RunView(
        RunInfo.from_json(info),
        *parts[Quantity.ACTIVATION],
        scalars={key: ScalarSeries.join(*both) for key, both in tables.read_scalars(connection).items()},
        events=tuple(tables.read_events(connection)),
        parameters=_read_parameters(connection) if has_all else ParameterView(),
        wide_flags=_read_flags(connection, layers) if has_all else {},
        gradient_layers=parts[Quantity.GRADIENT][0],
        gradient_buckets=parts[Quantity.GRADIENT][1],
        facts=FactView(tuple(tables.read_facts(connection))) if has_facts else FactView(),
    )


def _read_flags(connection: sqlite3.Connection, layers: Sequence[LayerInfo]) -> dict[str, WideFlags]:
    """Return the flags of the layers that have them apart, by name."""
    found = tables.read_flags(connection).items()
    return {
        layers[position].name: WideFlags(tuple(long), tuple(recent)) for position, (long, recent) in found
    }


def _read_parameters(connection: sqlite3.Connection) -> ParameterView:
    buckets = (tables.read_parameter_buckets(connection, view) for view in VIEWS)
    return ParameterView(tuple(tables.read_parameters(connection)), tuple(joined(*buckets)))
