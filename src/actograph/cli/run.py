"""The command ``actograph run``: any training script, recorded without changing a line of it.

No idea how a script is run or observed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from actograph.cli.train import Grad
from actograph.errors import UsageError

if TYPE_CHECKING:
    from actograph.observe.session import Outcome

BUDGET = 0.03  # share of the step time
FAILED_EXIT, INTERRUPT_EXIT = 1, 130  # Python's own for an exception; 128 + SIGINT

# what follows the script's name is the script's
CONTEXT = {"allow_interspersed_args": False, "ignore_unknown_options": False}


def run(
    script: Annotated[str, typer.Argument(help="A Python script; with -m, a module.")],
    args: Annotated[list[str] | None, typer.Argument(help="What the script is given.")] = None,
    *,
    module: Annotated[bool, typer.Option("-m", help="SCRIPT is a module's name, as for python -m.")] = False,
    out: Annotated[Path | None, typer.Option(help="Run directory.  [default: runs/DATE-TIME-SCRIPT]")] = None,
    every: Annotated[
        int | None, typer.Option(help="Record every so many steps, whatever that costs; 1: each step.")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            help=f"Share of the time recording may take after its first second.  [default: {BUDGET}]"
        ),
    ] = None,
    grad: Grad = False,
) -> None:
    """Run a training script as it is, record every layer at every step, and say what is wrong.

    Output, traceback and exit code are the script's; what is said about the run goes to stderr. Exit code 2: a mistake in
    the call, and the script was not run.
    """
    if every is not None and budget is not None:
        raise UsageError("--every and --budget both set how often steps are recorded; give one")
    from actograph.observe.script import load_module, load_script
    from actograph.observe.session import Session

    program = load_module(script) if module else load_script(script)
    share = BUDGET if budget is None and every is None else budget
    session = Session(program.name, out, budget=share, every=every, grad=grad)
    outcome = session.run(program, args or [])
    try:
        conclude(outcome)
    finally:
        end_as(outcome.error)


def conclude(outcome: Outcome) -> None:
    """Print to stderr what was found, and what was not seen."""
    from rich.console import Console
    from rich.text import Text

    from actograph.observe.session import complain
    from actograph.rules.diagnose import diagnose
    from actograph.show import terminal, words

    for remark in outcome.remarks:
        complain(remark)
    if outcome.view is None:
        return
    console = Console(stderr=True, highlight=False)
    console.print(terminal.findings(diagnose(outcome.view)))
    console.print(Text(f"{words.recording_cost(outcome.view.info.cost)} {words.ranks(outcome.view)}".strip()))
    console.print(
        Text(f"Report:  actograph report {outcome.directory}\nNumbers: actograph show {outcome.directory}"),
        soft_wrap=True,
    )


def end_as(error: BaseException | None) -> None:
    """End this process as the script ended."""
    if isinstance(error, SystemExit):
        raise error
    if error is not None:
        sys.exit(INTERRUPT_EXIT if isinstance(error, KeyboardInterrupt) else FAILED_EXIT)
