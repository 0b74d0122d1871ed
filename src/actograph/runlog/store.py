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
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from actograph.errors import RunInUseError
from actograph.layout.layer import LayerInfo
from actograph.runlog import schema
from actograph.runlog.packing import pack
from actograph.runlog.scalars import ScalarSeries, ScalarTrack
from actograph.runlog.schema import Event, RunInfo
from actograph.runlog.timeline import Bucket, Timeline, joined
from actograph.runlog.view import RunView

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
        self._timelines: defaultdict[str, Timeline] = defaultdict(Timeline)
        self._tracks: defaultdict[tuple[str, str], ScalarTrack] = defaultdict(ScalarTrack)
        self._events: list[Event] = []
        self._num_stored_layers = 0
        self._num_stored_events = 0
        self._has_given_up = False
        self._clock = clock
        self._pid = os.getpid()
        self._next_flush_s = clock() + FLUSH_INTERVAL_S
        self._database = _create(directory) if directory is not None else None
        self.flush()

    def add_layer(self, layer: LayerInfo) -> None:
        """Append a layer; its rows stand at its position in every later block."""
        self.layers.append(layer)

    def add_block(self, bucket: Bucket, phase: str = "train") -> None:
        """Append all layers' rows at one step (``num_steps`` 1)."""
        self._timelines[phase].append(bucket)

    def add_scalar(self, name: str, step: int, value: float, phase: str = "train") -> None:
        """Append a scalar's value at a step."""
        self._tracks[phase, name].append(step, value)

    def add_event(self, step: int, kind: str, **data: Any) -> None:
        """Append an event; ``data`` must be plain JSON data."""
        self._events.append(Event(step, kind, data))

    def flush_if_due(self) -> None:
        """Store what is new when the interval has passed."""
        if self._clock() >= self._next_flush_s:
            self.flush()

    def flush(self, *, is_last: bool = False) -> None:
        """Store what is new now; with ``is_last`` the recent view too."""
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
                    _store_timeline(transaction, phase, timeline, is_last=is_last)
        except sqlite3.Error as error:  # a full disk, a folder that is gone: never the training's problem
            self._give_up(error)

    def close(self, status: str) -> None:
        """Store the rest, note how the run ended, and leave one plain file. A closed run can be taken up again."""
        self.info = replace(self.info, status=status)
        self.flush(is_last=True)
        if self._database is not None and os.getpid() == self._pid:
            with contextlib.suppress(
                sqlite3.Error
            ):  # a full disk, or somebody reading: the run is whole without this too
                self._database.execute("VACUUM")  # what was stored uncompressed has left holes
                self._database.execute("PRAGMA journal_mode=DELETE")
            self._database.close()
        self._database = None

    def reopen(self) -> None:
        """Go on with a run that was closed; does nothing while it is open."""
        self.info = replace(self.info, status="running")
        if self._database is None and self.directory is not None and not self._has_given_up:
            self._database = _connect(self.directory / schema.DATABASE)

    def discard(self) -> None:
        """Delete what was stored, and the directory if nothing else is in it: the run did not begin."""
        self.close("failed")
        if self.directory is not None:
            (self.directory / schema.DATABASE).unlink()
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
        """Return the run as it is now, equal to what `read_run` gives after a flush."""
        timeline = self._timelines["train"]
        return RunView(
            info=self.info,
            layers=tuple(self.layers),
            buckets=tuple(joined(timeline.long, list(timeline.recent))),
            scalars={key: ScalarSeries.join(t.buckets, list(t.exact)) for key, t in self._tracks.items()},
            events=tuple(self._events),
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


def _create(directory: Path) -> sqlite3.Connection:
    database = directory / schema.DATABASE
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
    connection = _connect(database)
    connection.executescript(schema.TABLES)
    return connection


def _connect(database: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(database, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
    return connection


def _store_timeline(
    transaction: sqlite3.Connection, phase: str, timeline: Timeline, *, is_last: bool
) -> None:
    """Store what changed in the long view and the steps that are not in it; at the end all of both views, compressed."""
    long, waiting = timeline.take_changes()
    if is_last:
        long, waiting = list(enumerate(timeline.long)), list(timeline.recent)
    delete = "DELETE FROM bucket WHERE phase = ? AND view = ? AND position >= ?"
    transaction.execute(delete, (phase, "long", len(timeline.long)))
    transaction.execute(delete, (phase, "recent", 0))
    views = [("long", *entry) for entry in long] + [("recent", *entry) for entry in enumerate(waiting)]
    transaction.executemany(
        "INSERT OR REPLACE INTO bucket VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                phase,
                view,
                position,
                b.first_step,
                b.last_step,
                b.num_steps,
                is_last,
                *pack(b, compressed=is_last),
            )
            for view, position, b in views
        ],
    )


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
