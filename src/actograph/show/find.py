"""Find a run by path or name, and tell whether a running one still lives.

No idea of what a run holds.
"""

from __future__ import annotations

import difflib
import os
import platform
import sys
from pathlib import Path

from actograph.errors import RunNotFoundError
from actograph.runlog.reader import find_runs
from actograph.runlog.schema import DATABASE, RUNS, RunInfo, databases

DIED = "died"
RUNNING = "running"


def find_run(run: str | Path, directory: Path = RUNS) -> Path:
    """Return the directory of a run given by path, or by name or the end of a name below ``directory``.

    Raises RunNotFoundError that names close matches.
    """
    for path in (Path(run), directory / run):
        if databases(path):
            return path
        if path.name == DATABASE and path.is_file():
            return path.parent
    known = [path.name for path in find_runs(directory) if path != directory]
    ending = [name for name in known if name.endswith(f"-{run}")]
    if ending:
        return directory / ending[-1]  # names begin with the date: the last one is the newest
    raise RunNotFoundError(f"no run {str(run)!r}: {_hint(str(run), known, directory)}")


def live_status(info: RunInfo) -> str:
    """Return the run's status, or "died" where it says "running" but its process on this machine is gone."""
    here = info.host in ("", platform.node()) and info.pid > 0 and sys.platform != "win32"
    return DIED if info.status == RUNNING and here and not _is_alive(info.pid) else info.status


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # no signal, only the check
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _hint(run: str, known: list[str], directory: Path) -> str:
    if not known:
        return f"{directory} holds no runs; give the path of a folder with {DATABASE}"
    close = difflib.get_close_matches(run, known, n=3, cutoff=0.4) or [n for n in known if run in n][-3:]
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    return f"{directory} holds {', '.join(known[-5:])}; `actograph ls` lists all"
