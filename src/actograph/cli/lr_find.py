"""The command ``actograph lr-find``: learning rates for a network and data, from a range test.

No idea of how the test is made.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from actograph.cli.network import Act, NormOption, Width, network_options
from actograph.cli.train import (
    BATCH_SIZE,
    LABEL_SMOOTHING,
    MAX_LR,
    BatchSize,
    Data,
    Device,
    LabelSmoothing,
    Model,
    Options,
    Seed,
    Size,
    prepare,
)
from actograph.errors import UsageError

NOTHING_EXIT = 1  # no rate could be suggested
HTML = ".html"


def lr_find(
    data: Data,
    *,
    model: Model = "simple_cnn",
    width: Width = 1.0,
    act: Act = None,
    norm: NormOption = None,
    batch_size: BatchSize = BATCH_SIZE,
    label_smoothing: LabelSmoothing = LABEL_SMOOTHING,
    size: Size = None,
    device: Device = "auto",
    seed: Seed = 0,
    start_lr: Annotated[float, typer.Option(help="First rate.")] = 1e-7,
    end_lr: Annotated[float, typer.Option(help="Rate to arrive at.")] = 10.0,
    iterations: Annotated[int, typer.Option(help="Steps, each at a higher rate.")] = 100,
    repeats: Annotated[
        int, typer.Option(help="Tests from the same weights; more than one tell the spread.")
    ] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Write the curve as a page, a file that ends in .html.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Suggest learning rates for `actograph train` with the same options: valley is the one to take where in doubt.

    The rate rises from step to step while the loss is watched; nothing is recorded. The exit code is 1 where no rate is
    suggested. With --json one object: suggestions and ranges (of the repeats) by name, refusal (why nothing is suggested,
    or null), rates, losses, smoothed, and repeats.
    """
    if out is not None and (out.suffix.lower() != HTML or not out.parent.is_dir()):
        raise UsageError(
            f"--out is {out}; give a file in a folder that is there, with a name that ends in {HTML}"
        )
    network = network_options(act, norm)
    options = Options(
        data, model, width, network, 1, MAX_LR, batch_size, label_smoothing, size, device, seed,
        out=None, budget=None, grad=False,
    )  # fmt: skip
    found = prepare(options).learner.lr_find(start_lr, end_lr, iterations, repeats=repeats)
    if out is not None:
        found.plot().write_html(out)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2, allow_nan=False))
    else:
        Console(highlight=False).print(Text(found.picture()), Text(str(found)), sep="\n", soft_wrap=True)
    if found.refusal is not None:
        raise typer.Exit(NOTHING_EXIT)
