"""The command ``actograph diagnose``: say what is wrong with a run, and end with 1 if anything is.

No idea how it is found out.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

FINDINGS_EXIT = 1


class FailOn(StrEnum):
    """The least severity that makes the command end with exit code 1."""

    WARNING = "warning"
    ERROR = "error"


def diagnose(
    run: Annotated[str, typer.Argument(help="A run's folder, its name below runs/, or the end of the name.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of words.")] = False,
    fail_on: Annotated[
        FailOn, typer.Option(help="The least severity that ends with exit code 1.")
    ] = FailOn.WARNING,
) -> None:
    """Say what is wrong with a run: where, since which step, and what to do.

    Exit code 0: nothing at the level of --fail-on; 1: findings; 2: a mistake in the call.
    """
    from actograph.rules.diagnose import diagnose as diagnose_view
    from actograph.rules.rule import Severity
    from actograph.runlog.reader import read_run
    from actograph.show.find import find_run

    directory = find_run(run)
    view = read_run(directory)
    diagnosis = diagnose_view(view)
    if as_json:
        typer.echo(json.dumps(diagnosis.to_json(view.info.name), indent=2, allow_nan=False))
    else:
        from rich.console import Console

        from actograph.show.terminal import findings

        Console().print(findings(diagnosis))
    if diagnosis.at_least(Severity(fail_on.value)):
        raise typer.Exit(FINDINGS_EXIT)
