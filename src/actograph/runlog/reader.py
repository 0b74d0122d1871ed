"""`read_run`: a run directory as a `RunView`, finished or still being written.

No idea of who writes it.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

from actograph.errors import RunNotFoundError
from actograph.layout.layer import LayerInfo, Quantity
from actograph.runlog import schema, tables
from actograph.runlog.facts import FactView
from actograph.runlog.flags import WideFlags
from actograph.runlog.merging import RankMerge
from actograph.runlog.parameters import ParameterView
from actograph.runlog.scalars import ScalarSeries
from actograph.runlog.schema import RunInfo
from actograph.runlog.timeline import joined
from actograph.runlog.view import RunView, split_quantities

VIEWS = ("long", "recent")
CLOSING_S, POLL_S = 10.0, 0.05  # ranks end together, but for what storing the last of it takes


def read_run(path: Path | str, *, sketches: bool = True) -> RunView:
    """Read a run directory, or one ``run.db``, finished or still being written.

    Of a directory the files of all ranks are merged; ranks whose file is not there, or cannot be read, are in
    `RunView.missing_ranks`. Without ``sketches`` only info, layers, scalars and events are read: fast, for lists of runs.

    Raises RunNotFoundError when there is none or it cannot be read.
    """
    files = schema.databases(Path(path)) if Path(path).is_dir() else [Path(path)]
    if not files or not files[0].is_file():
        raise RunNotFoundError(
            f"no run at {path}: expected a folder that holds {schema.DATABASE}; see `actograph ls`"
        )
    views = (_read_file(database, sketches=sketches) for database in files)
    first = next(views)
    if isinstance(first, RunNotFoundError):  # another rank may have more to tell
        others = (view for view in views if isinstance(view, RunView) and view.info.world_size > 1)
        found = next(others, None)
        if found is None:
            raise first
        first = found
    if first.info.world_size == 1 or not Path(path).is_dir():
        return first
    merge = RankMerge(first)
    for view in views:
        if isinstance(view, RunView) and _belong_together(first.info, view.info):
            merge.add(view)
    return merge.view()


def closed_run(directory: Path, timeout_s: float = CLOSING_S) -> RunView:
    """Read a run whose ranks are about to end; one that has not within ``timeout_s`` is read as it is then."""
    deadline_s = time.monotonic() + timeout_s
    while not _is_closed(directory) and time.monotonic() < deadline_s:
        time.sleep(POLL_S)
    return read_run(directory)


def _is_closed(directory: Path) -> bool:
    infos = [_read_info(database) for database in schema.databases(directory)]
    known = [info for info in infos if info is not None]
    return bool(known) and known[0].world_size <= sum(info.status != "running" for info in known)


def _read_info(database: Path) -> RunInfo | None:
    """Return a file's info; None where it cannot be read, as while it is made."""
    try:
        with _connected(database) as connection:
            return RunInfo.from_json(tables.read_info(connection))
    except (sqlite3.DatabaseError, ValueError, KeyError, TypeError):
        return None


def _connected(database: Path) -> contextlib.closing[sqlite3.Connection]:
    uri = f"{database.absolute().as_uri()}?mode=ro"
    return contextlib.closing(sqlite3.connect(uri, uri=True))


def _belong_together(one: RunInfo, other: RunInfo) -> bool:
    return (one.launch, one.world_size) == (other.launch, other.world_size)


def _read_file(database: Path, *, sketches: bool) -> RunView | RunNotFoundError:
    try:
        with _connected(database) as connection:
            return _read(connection, sketches=sketches)
    except (sqlite3.DatabaseError, ValueError, KeyError, TypeError, zlib.error) as error:
        return RunNotFoundError(f"{database} is not a readable run ({error}); it may be damaged or foreign")


def find_runs(directory: Path) -> list[Path]:
    """Return the run directories right below (or at) ``directory``, oldest first by name."""
    if not directory.is_dir():
        return []
    patterns = [below + name for below in ("", "*/") for name in (schema.DATABASE, schema.RANK_DATABASE)]
    return sorted({file.parent for pattern in patterns for file in directory.glob(pattern.format("*"))})


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
