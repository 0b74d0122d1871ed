"""The commands ``actograph ls`` and ``actograph show``: what runs there are, and what is in one.

No idea of how runs are stored or what is said of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from actograph.errors import RunNotFoundError, UsageError
from actograph.rules.diagnose import diagnose
from actograph.runlog.reader import find_runs, read_run
from actograph.runlog.schema import RUNS
from actograph.runlog.view import RunView
from actograph.show import plain, terminal
from actograph.show.find import find_run

Directory = Annotated[Path, typer.Argument(help="Folder that holds the runs.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or its name below runs/.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def ls(directory: Directory = RUNS, *, as_json: AsJson = False) -> None:
    """List the runs in a folder, oldest first.

    With --json a list of objects: name, path, created (ISO 8601), status (running, finished, stopped, interrupted, failed,
    died, or unreadable), steps, loss (of the last training step) and best (name, value, step of the best validation
    metric). What is not known or not finite is null; an unreadable run has name, path, status and error only.
    """
    if not directory.is_dir() and directory != RUNS:
        raise UsageError(f"no folder {directory}; give the folder that holds the runs")
    runs = {path: _read(path) for path in find_runs(directory)}
    if as_json:
        entries = [_entry(path, run) for path, run in runs.items()]
        typer.echo(json.dumps(entries, indent=2, allow_nan=False))
    else:
        Console().print(terminal.run_list({path.name: run for path, run in runs.items()}))


def show(run: RunName, *, as_json: AsJson = False) -> None:
    """Show a run: what it was, its loss, every layer, and what is wrong.

    With --json one object: the fields of ``ls``, cost (share, steps_seen, steps_recorded), layers (name, kind, shape,
    parameters, step, first_non_finite, and every statistic at that step) and diagnosis (findings and what could not be
    judged, as ``diagnose --json`` prints them). What is not defined or not finite is null.
    """
    path = find_run(run)
    view = read_run(path)
    diagnosis = diagnose(view)
    if as_json:
        typer.echo(json.dumps(plain.run_details(path, view, diagnosis), indent=2, allow_nan=False))
    else:
        Console().print(terminal.run_summary(view, diagnosis))


def _read(path: Path) -> RunView | RunNotFoundError:
    try:
        return read_run(path, sketches=False)
    except RunNotFoundError as error:
        return error


def _entry(path: Path, run: RunView | RunNotFoundError) -> dict[str, object]:
    if isinstance(run, RunView):
        return plain.run_entry(path, run)
    return {"name": path.name, "path": str(path), "status": terminal.UNREADABLE, "error": str(run)}
