"""`RunWriter`: the one writer of a run.

No idea of tensors or of training. A writer keeps the bounded timelines in memory and stores what changed at most once a
`FLUSH_INTERVAL_S`, so a killed process loses at most that; with ``directory=None`` the run lives in memory only.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from actograph.errors import RunInUseError
from actograph.layout.layer import LayerInfo, Quantity
from actograph.layout.parameter import ParameterInfo
from actograph.layout.row import Floats
from actograph.runlog import schema
from actograph.runlog.backup import database_bytes, open_bytes, read_backup
from actograph.runlog.buckets import Bucket, ParameterBucket, merge_buckets, merge_parameter_buckets
from actograph.runlog.facts import FactTable
from actograph.runlog.flags import FlagTracks, WideFlags
from actograph.runlog.packing import pack, pack_parameters
from actograph.runlog.parameters import ParameterView
from actograph.runlog.scalars import ScalarSeries, ScalarTrack
from actograph.runlog.schema import Event, RunInfo
from actograph.runlog.timeline import S, Timeline
from actograph.runlog.view import RunView, split_quantities

FLUSH_INTERVAL_S = 1.0
CHECKPOINT_PAGES = 16_384  # of 4 KiB: a checkpoint waits for the disk, so it comes seldom before the end


class RunWriter:
    """Collects one run and stores it. Not thread-safe: one run, one writer, one thread.

    Raises RunInUseError when the directory already holds a run.
    """

    def __init__(
        self, directory: Path | None, info: RunInfo, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.directory = directory
        self.info = info
        self.layers: list[LayerInfo] = []
        self.parameters: list[ParameterInfo] = []
        self._timelines: defaultdict[str, Timeline[Bucket]] = defaultdict(lambda: Timeline(merge_buckets))
        self._flags = FlagTracks()
        self._parameter_timeline = Timeline(merge_parameter_buckets)
        self._tracks: defaultdict[tuple[str, str], ScalarTrack] = defaultdict(ScalarTrack)
        self._events: list[Event] = []
        self.facts = FactTable()
        self._num_stored_layers = 0
        self._num_stored_parameters = 0
        self._num_stored_events = 0
        self._has_given_up = False
        self._clock = clock
        self._pid = os.getpid()
        self._next_flush_s = clock() + FLUSH_INTERVAL_S
        self._name = schema.database_of(info.rank)
        self._database = _create(directory, self._name) if directory is not None else None
        self.flush()

    def add_layer(self, layer: LayerInfo) -> None:
        """Append a layer; its rows stand at its position in every later block."""
        self.layers.append(layer)
        self._flags.add_layer(layer)

    def add_parameter(self, parameter: ParameterInfo) -> None:
        """Append a parameter; its row stands at its position in all later rows."""
        self.parameters.append(parameter)

    def add_block(self, bucket: Bucket, phase: str = "train") -> None:
        """Append all layers' rows at one step (``num_steps`` 1)."""
        self._timelines[phase].append(self._flags.take_from(bucket))

    def add_parameter_rows(self, step: int, rows: Floats) -> None:
        """Append all parameters' rows (parameters, NUM_PARAMETER_FIELDS) at a step."""
        self._parameter_timeline.append(ParameterBucket(step, step, 1, rows))

    def add_scalar(self, name: str, step: int, value: float, phase: str = "train") -> None:
        """Append a scalar's value at a step."""
        self._tracks[phase, name].append(step, value)

    def add_event(self, step: int, kind: str, **data: Any) -> None:
        """Append an event; ``data`` must be plain JSON data."""
        self._events.append(Event(step, kind, data))

    @property
    def is_flush_due(self) -> bool:
        """Whether the interval has passed since what is new was stored."""
        return self._clock() >= self._next_flush_s

    def flush_if_due(self) -> None:
        """Store what is new when the interval has passed."""
        if self.is_flush_due:
            self.flush()

    def flush(self, *, is_last: bool = False) -> None:
        """Store what is new now; with ``is_last`` all of the recent view, step by step."""
        self._next_flush_s = self._clock() + FLUSH_INTERVAL_S
        if (
            self._database is None or os.getpid() != self._pid
        ):  # a forked child must not write its parent's run
            return
        try:
            with self._database as transaction:
                self._store_info(transaction)
                for (phase, name), track in self._tracks.items():
                    _store_track(transaction, phase, name, track)
                for phase, timeline in self._timelines.items():
                    _store_buckets(transaction, phase, timeline, is_last=is_last)
                self._store_flags(transaction)
                _store_facts(transaction, self.facts)
                if self.parameters:
                    self._store_parameters(transaction, is_last=is_last)
        except sqlite3.Error as error:  # a full disk, a folder that is gone: never the training's problem
            self._give_up(error)

    def close(self, status: str) -> None:
        """Store the rest, note how the run ended, and leave one plain file. A closed run can be taken up again."""
        self.info = replace(self.info, status=status)
        self.flush(is_last=True)
        if self.directory is None:
            return
        if self._database is not None and os.getpid() == self._pid:
            with contextlib.suppress(
                sqlite3.Error
            ):  # a full disk, or somebody reading: the run is whole without this too
                self._database.execute("VACUUM")  # what was stored uncompressed has left holes
                self._database.execute("PRAGMA journal_mode=DELETE")
            self._database.close()
        self._database = None

    def backup(self) -> bytes | None:
        """Return the whole run, as it is now, as the bytes of a ``run.db``; None when storing it has failed.

        A run in memory has a database from then on, in memory as well.
        """
        if self.directory is None and self._database is None:
            self._database = _create_in_memory()
        self.flush(is_last=True)
        if self._has_given_up:
            return None
        if self._database is not None:
            return database_bytes(self._database)
        assert self.directory is not None
        with contextlib.closing(sqlite3.connect(self.directory / self._name)) as closed:
            return database_bytes(closed)

    def restore(self, data: bytes) -> None:
        """Hold the run that `backup` returned in place of what there is; ``info`` stays, but for what recording has cost."""
        connection = open_bytes(data)
        saved = read_backup(connection)
        self.info = replace(self.info, cost=saved.cost)
        self.layers, self.parameters, self._events = [], saved.parameters, saved.events
        self._flags = FlagTracks()
        for layer in saved.layers:
            self.add_layer(layer)
        for position, views in saved.flags.items():
            self._flags.tracks[position].take_up(*views)
        self._timelines.clear()
        for phase, buckets in saved.buckets.items():
            self._timelines[phase].take_up(*buckets)
        self._parameter_timeline.take_up(*saved.parameter_buckets)
        self._tracks.clear()
        for key, values in saved.scalars.items():
            self._tracks[key].take_up(*values)
        self.facts.take_up(saved.facts)
        self._num_stored_layers, self._num_stored_parameters = len(self.layers), len(self.parameters)
        self._num_stored_events = len(self._events)
        self._replace_database(connection)

    def _replace_database(self, connection: sqlite3.Connection) -> None:
        if self.directory is None:
            self._database = connection
            return
        if self._database is not None:
            try:
                connection.backup(self._database)
                _set_pragmas(self._database)
            except sqlite3.Error as error:
                self._give_up(error)
        connection.close()

    def reopen(self) -> None:
        """Go on with a run that was closed; does nothing while it is open."""
        self.info = replace(self.info, status="running")
        if self._database is None and self.directory is not None and not self._has_given_up:
            try:
                self._database = _connect(self.directory / self._name)
            except sqlite3.Error as error:  # the folder is gone
                self._give_up(error)

    def discard(self) -> None:
        """Delete what was stored, and the directory if nothing else is in it: the run did not begin."""
        self.close("failed")
        if self.directory is not None:
            (self.directory / self._name).unlink()
            with contextlib.suppress(OSError):  # not empty: there is something of the user's in it
                self.directory.rmdir()

    def _give_up(self, error: sqlite3.Error) -> None:
        """Go on in memory; what was stored before stays readable."""
        warnings.warn(
            f"recording to {self.directory} has stopped ({error}): what follows is kept in memory only",
            RuntimeWarning,
            stacklevel=2,
        )
        if self._database is not None:
            self._database.close()
        self._database = None
        self._has_given_up = True

    def view(self) -> RunView:
        """Return the run as it is now, equal to what `read_run` gives once it is closed."""
        parts = split_quantities(self.layers, self._timelines["train"].joined())
        tracks = self._flags.tracks.items()
        return RunView(
            self.info,
            *parts[Quantity.ACTIVATION],
            scalars={key: ScalarSeries.join(t.buckets, list(t.exact)) for key, t in self._tracks.items()},
            events=tuple(self._events),
            parameters=ParameterView(tuple(self.parameters), tuple(self._parameter_timeline.joined())),
            wide_flags={
                self.layers[p].name: WideFlags(tuple(track.timeline.long), tuple(track.recent()))
                for p, track in tracks
            },
            gradient_layers=parts[Quantity.GRADIENT][0],
            gradient_buckets=parts[Quantity.GRADIENT][1],
            facts=self.facts.view(),
        )

    def _store_info(self, transaction: sqlite3.Connection) -> None:
        entries = {"schema": schema.SCHEMA_VERSION, **self.info.to_json()}
        transaction.executemany(
            "INSERT OR REPLACE INTO info VALUES (?, ?)",
            [(key, json.dumps(value)) for key, value in entries.items()],
        )
        layers = list(enumerate(self.layers))[self._num_stored_layers :]
        transaction.executemany(
            "INSERT INTO layer VALUES (?, ?)",
            [(position, json.dumps(layer.to_json())) for position, layer in layers],
        )
        events = self._events[self._num_stored_events :]
        transaction.executemany(
            "INSERT INTO event (step, kind, data) VALUES (?, ?, ?)",
            [(event.step, event.kind, json.dumps(event.data)) for event in events],
        )
        self._num_stored_layers, self._num_stored_events = len(self.layers), len(self._events)

    def _store_flags(self, transaction: sqlite3.Connection) -> None:
        for position, track in self._flags.tracks.items():
            long = track.timeline.take_changes()
            table = _Table(transaction, "flag_bucket", ("data",), (("layer", position),))
            table.store(
                long, len(track.timeline.long), track.recent(), lambda flags: (flags.fired.tobytes(),)
            )

    def _store_parameters(self, transaction: sqlite3.Connection, *, is_last: bool) -> None:
        new = list(enumerate(self.parameters))[self._num_stored_parameters :]
        transaction.executemany(
            "INSERT INTO parameter VALUES (?, ?)",
            [(position, json.dumps(one.to_json())) for position, one in new],
        )
        self._num_stored_parameters = len(self.parameters)
        timeline = self._parameter_timeline
        table = _Table(transaction, "parameter_bucket", ("data",))
        table.store(*_changes(timeline, is_last=is_last), lambda bucket: (pack_parameters(bucket),))


def _create(directory: Path, name: str) -> sqlite3.Connection:
    database = directory / name
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with database.open("x"):  # exclusive: of two processes only one gets the folder
            pass
    except FileExistsError as error:
        raise RunInUseError(
            f"{directory} already holds a run or is not a folder; choose another output folder or delete it"
        ) from error
    except OSError as error:
        raise RunInUseError(
            f"cannot write to {directory} ({error.strerror}); choose another output folder"
        ) from error
    try:
        connection = _connect(database)
        connection.executescript(schema.TABLES)
    except sqlite3.Error as error:  # a full disk, or a file system that SQLite cannot lock
        database.unlink(missing_ok=True)
        raise RunInUseError(f"cannot write to {directory} ({error}); choose another output folder") from error
    return connection


def _connect(database: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(database, check_same_thread=False)
    _set_pragmas(connection)
    return connection


def _set_pragmas(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")


def _create_in_memory() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    connection.executescript(schema.TABLES)
    return connection


def _store_buckets(
    transaction: sqlite3.Connection, phase: str, timeline: Timeline[Bucket], *, is_last: bool
) -> None:
    """Store what changed in the long view, and the recent one abridged; at the end all of both views, compressed."""
    table = _Table(
        transaction, "bucket", ("is_compressed", "num_layers", "kind", "data"), (("phase", phase),)
    )
    table.store(
        *_changes(timeline, is_last=is_last),
        lambda bucket: (is_last, *pack(bucket, compressed=is_last)),
    )


def _store_facts(transaction: sqlite3.Connection, facts: FactTable) -> None:
    changed, dropped = facts.take_changes()
    transaction.executemany(
        "DELETE FROM fact WHERE kind = ? AND subject = ?",
        [(kind.value, subject) for kind, subject in dropped],
    )
    transaction.executemany(
        "INSERT OR REPLACE INTO fact VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (f.kind.value, f.subject, f.first_step, f.since, f.last_step, f.num_steps, json.dumps(f.data))
            for f in changed
        ],
    )


def _changes(timeline: Timeline[S], *, is_last: bool) -> tuple[list[tuple[int, S]], int, list[S]]:
    """Return of the long view what changed, its length, and the recent one abridged; at the end all of both views."""
    changed = timeline.take_changes()
    if is_last:
        return list(enumerate(timeline.long)), len(timeline.long), timeline.recent
    return changed, len(timeline.long), timeline.abridged()


@dataclass(frozen=True)
class _Table:
    """A table of buckets.

    ``key`` has the names and values of the columns before ``view``, ``contents`` the names of those after ``num_steps``.
    """

    transaction: sqlite3.Connection
    name: str
    contents: tuple[str, ...]
    key: tuple[tuple[str, str | int], ...] = ()

    def store(
        self,
        long: Sequence[tuple[int, S]],
        num_long: int,
        recent: Sequence[S],
        encode: Callable[[S], tuple[Any, ...]],
    ) -> None:
        """Store changed buckets of the long view, which has ``num_long``, and all of the recent one.

        What is there is written over, in its place where it has the same size: a third less work than with new rows.
        """
        keys, values = (*dict(self.key), "view", "position"), tuple(dict(self.key).values())
        delete = f"DELETE FROM {self.name} WHERE " + " AND ".join(f"{column} = ?" for column in keys[:-1])
        for view, num in (("long", num_long), ("recent", len(recent))):
            self.transaction.execute(f"{delete} AND position >= ?", (*values, view, num))
        views = [("long", *entry) for entry in long] + [("recent", *entry) for entry in enumerate(recent)]
        rows = [
            (*values, view, position, b.first_step, b.last_step, b.num_steps, *encode(b))
            for view, position, b in views
        ]
        columns = ("first_step", "last_step", "num_steps", *self.contents)
        marks = ", ".join("?" * len((*keys, *columns)))
        new = ", ".join(f"{column} = excluded.{column}" for column in columns)
        insert = (
            f"INSERT INTO {self.name} VALUES ({marks}) ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {new}"
        )
        self.transaction.executemany(insert, rows)


def _store_track(transaction: sqlite3.Connection, phase: str, name: str, track: ScalarTrack) -> None:
    buckets, exact = track.take_changes()
    if not exact:
        return
    exact = list(dict(exact).items())
    key = (phase, name)
    transaction.execute(
        "DELETE FROM scalar_bucket WHERE phase = ? AND name = ? AND position >= ?", (*key, len(track.buckets))
    )
    transaction.executemany(
        "INSERT OR REPLACE INTO scalar_bucket VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                *key,
                position,
                b.first_step,
                b.last_step,
                b.num_steps,
                b.mean,
                b.low,
                b.high,
                b.first_non_finite,
            )
            for position, b in buckets
        ],
    )
    transaction.executemany(
        "INSERT OR REPLACE INTO scalar VALUES (?, ?, ?, ?)", [(*key, *entry) for entry in exact]
    )
    transaction.execute(
        "DELETE FROM scalar WHERE phase = ? AND name = ? AND step < ?", (*key, track.exact[0][0])
    )
