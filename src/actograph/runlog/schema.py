"""What a run holds and how it lies in ``run.db``.

No idea of who measures or who reads. All tables are bounded but ``layer`` and ``parameter`` (one row each) and ``event``
(a few rows an epoch).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 3
FIRST_WITH_PARAMETERS = 2  # version 1 had neither parameters nor flags of wide layers apart
FIRST_WITH_FACTS = 3
DATABASE = "run.db"  # of rank 0, and of a run of one process
RANK_DATABASE = "run.rank{}.db"  # of the other ranks
RUNS = Path("runs")  # where runs are written and looked for unless told otherwise

TABLES = """
CREATE TABLE info (key TEXT PRIMARY KEY, value TEXT NOT NULL);                       -- JSON values
CREATE TABLE layer (position INTEGER PRIMARY KEY, data TEXT NOT NULL);               -- JSON of LayerInfo
CREATE TABLE bucket (                                                                -- the sketch timeline
    phase TEXT, view TEXT, position INTEGER,                                         -- view: 'long' or 'recent'
    first_step INTEGER NOT NULL, last_step INTEGER NOT NULL, num_steps INTEGER NOT NULL,
    is_compressed INTEGER NOT NULL, num_layers INTEGER NOT NULL, kind TEXT NOT NULL, -- see packing
    data BLOB NOT NULL,
    PRIMARY KEY (phase, view, position));
CREATE TABLE flag_bucket (                                                           -- unit flags of wide layers
    layer INTEGER, view TEXT, position INTEGER,
    first_step INTEGER NOT NULL, last_step INTEGER NOT NULL, num_steps INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (layer, view, position));
CREATE TABLE parameter (position INTEGER PRIMARY KEY, data TEXT NOT NULL);           -- JSON of ParameterInfo
CREATE TABLE parameter_bucket (
    view TEXT, position INTEGER,
    first_step INTEGER NOT NULL, last_step INTEGER NOT NULL, num_steps INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (view, position));
CREATE TABLE scalar (phase TEXT, name TEXT, step INTEGER, value REAL,                -- the last steps, exact; NaN is NULL
    PRIMARY KEY (phase, name, step)) WITHOUT ROWID;
CREATE TABLE scalar_bucket (                                                         -- all steps, coarser with age
    phase TEXT, name TEXT, position INTEGER,
    first_step INTEGER NOT NULL, last_step INTEGER NOT NULL, num_steps INTEGER NOT NULL,
    mean REAL, low REAL, high REAL, first_non_finite INTEGER,
    PRIMARY KEY (phase, name, position)) WITHOUT ROWID;
CREATE TABLE fact (                                                                  -- see facts.Fact
    kind TEXT, subject TEXT, first_step INTEGER NOT NULL, since INTEGER NOT NULL, last_step INTEGER NOT NULL,
    num_steps INTEGER NOT NULL, data TEXT NOT NULL,
    PRIMARY KEY (kind, subject)) WITHOUT ROWID;
CREATE TABLE event (id INTEGER PRIMARY KEY, step INTEGER NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Cost:
    """What recording cost, in seconds of the recording process, and what it saw.

    ``elapsed_s`` is the time of all steps together, each from its first forward to the optimizer's end (what is between
    them, such as loading data, does not count); ``recorder_s`` the recorder's part of it. ``budget`` is the share allowed
    (None: no limit).
    """

    recorder_s: float = 0.0
    elapsed_s: float = 0.0
    steps_seen: int = 0
    steps_recorded: int = 0
    budget: float | None = None

    @property
    def share(self) -> float:
        """The recorder's share of the elapsed time (0 when nothing was timed)."""
        return self.recorder_s / self.elapsed_s if self.elapsed_s > 0 else 0.0


@dataclass(frozen=True)
class RunInfo:
    """Who made the run, when, with what.

    ``status`` is running, finished, stopped (a callback stopped the fit), interrupted (Ctrl-C) or failed. ``created`` is
    ISO 8601 with offset. ``environment`` holds versions and device, ``config`` what the driver chose to tell (no command
    line, no environment variables: they carry secrets). Of ``world_size`` processes that train together each has a file of
    its own; those with the same ``launch`` belong together.
    """

    name: str
    created: str = ""
    status: str = "running"
    pid: int = 0
    host: str = ""
    cost: Cost = field(default_factory=Cost)
    environment: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    rank: int = 0
    world_size: int = 1
    launch: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain data, one entry a field."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RunInfo:
        """Undo `to_json`; entries of a later version that are not known here are left out."""
        known = {key: value for key, value in data.items() if key in cls.__dataclass_fields__}
        known["cost"] = Cost(**known.get("cost", {}))
        return cls(**known)


@dataclass(frozen=True)
class RankInfo:
    """What one rank's file tells of itself: its info, and how many steps it has seen."""

    info: RunInfo
    num_steps: int


@dataclass(frozen=True)
class Event:
    """Something that happened at a step: a fit or an epoch began, a phase changed, a remark."""

    step: int
    kind: str
    data: dict[str, Any] = field(default_factory=dict)


def database_of(rank: int) -> str:
    """Return the name of a rank's file in the run directory.

    >>> database_of(0), database_of(3)
    ('run.db', 'run.rank3.db')
    """
    return RANK_DATABASE.format(rank) if rank else DATABASE


def databases(directory: Path) -> list[Path]:
    """Return the files of all ranks in a run directory, by rank; none where there is no run."""
    found = {directory / DATABASE: 0} if (directory / DATABASE).is_file() else {}
    for path in directory.glob(RANK_DATABASE.format("*")):
        number = path.name.removeprefix("run.rank").removesuffix(".db")
        if number.isdecimal():
            found[path] = int(number)
    return sorted(found, key=lambda path: found[path])
