"""The command ``actograph report``: a run as one HTML file.

No idea of what is on the page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from actograph.cli.runs import RunName


def report(
    run: RunName,
    out: Annotated[
        Path | None, typer.Option(help="File to write.  [default: report.html in the run's folder]")
    ] = None,
) -> None:
    """Write a run's report: one HTML file that opens anywhere, without a network."""
    from actograph.show.run import open_run  # slow: plotly and pillow

    typer.echo(open_run(run).report(out))
