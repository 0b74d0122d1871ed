"""The command ``actograph``: the table of its subcommands, and what an error looks like.

No idea of training or runs: each subcommand parses, calls one library function and prints.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from actograph import __version__
from actograph.cli.diagnose import diagnose
from actograph.cli.lr_find import lr_find
from actograph.cli.predict import predict
from actograph.cli.report import report
from actograph.cli.run import CONTEXT, INTERRUPT_EXIT, run
from actograph.cli.runs import ls, show
from actograph.cli.shapes import shapes
from actograph.cli.study import study
from actograph.cli.train import train
from actograph.errors import ActographError

USAGE_EXIT = 2

app = typer.Typer(
    name="actograph",
    help="Train networks, see what every layer did, and be told what is wrong.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (train, lr_find, study, predict, report, diagnose, show, ls, shapes):
    app.command()(command)
app.command(context_settings=CONTEXT)(run)


@app.callback(invoke_without_command=True)
def options(
    *, version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False
) -> None:
    if version:
        typer.echo(f"actograph {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; a mistake of the user's is one line and exit code 2."""
    try:
        app()
    except ActographError as error:
        print(f"actograph: {error}", file=sys.stderr)
        sys.exit(USAGE_EXIT)
    except KeyboardInterrupt:
        sys.exit(INTERRUPT_EXIT)
    except BrokenPipeError:  # `actograph ls | head`: the reader has gone
        sys.stderr.close()
