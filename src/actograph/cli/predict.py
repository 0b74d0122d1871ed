"""The command ``actograph predict``: what a trained model takes images for.

No idea of models or of image files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from actograph.cli.runs import AsJson
from actograph.show.find import find_run

if TYPE_CHECKING:
    from actograph.inference.classify import Prediction

NUM_OTHERS = 2  # classes shown after the likeliest one
LEAST = 0.001  # probability that is shown


def predict(
    model: Annotated[
        str,
        typer.Argument(metavar="RUN_OR_EXPORT", help="A run of `train`, or a file that learn.export wrote."),
    ],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="PNG or JPEG files.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Say which class each image is of, and how sure the model is.

    Images are made upright, resized, and grey where the training images were. With --json a list of objects: image, class,
    probability, and probabilities by class, likeliest first.
    """
    from actograph.inference.classify import classify
    from actograph.inference.export import load_export

    path = Path(model)
    predictions = classify(load_export(path if path.exists() else find_run(model)), images)
    if as_json:
        typer.echo(json.dumps([_entry(one) for one in predictions], indent=2, allow_nan=False))
    else:
        Console().print(_table(predictions))


def _table(predictions: Sequence[Prediction]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("image", overflow="fold")
    table.add_column("class")
    table.add_column("probability", justify="right")
    table.add_column("or")
    for one in predictions:
        others = list(one.probabilities.items())[1 : 1 + NUM_OTHERS]
        told = ", ".join(f"{name} {share:.1%}" for name, share in others if share >= LEAST)
        table.add_row(Text(str(one.image)), Text(one.class_name), f"{one.probability:.1%}", Text(told))
    return table


def _entry(one: Prediction) -> dict[str, object]:
    return {
        "image": str(one.image),
        "class": one.class_name,
        "probability": one.probability,
        "probabilities": one.probabilities,
    }
