"""The command ``actograph shapes``: print what each layer of a network takes, gives and costs.

No idea how the numbers are measured.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from actograph.cli.network import Act, NormOption, Width, network_options
from actograph.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from actograph.models.columns import Column
    from actograph.models.shapes import LayerTable, Shape

DEFAULT_CLASSES = 10
IMAGE_AXES = 3  # channels, height, width
MIN_NAME_WIDTH = 12  # characters of a layer's name on one line, before columns are left out instead
GAP = 2  # spaces between columns
BAR_LENGTH = 10  # characters for the heaviest layer
BLOCK = "█"
WRONG = "✗"  # marks a grid that is not what the formula gives
LEAST_RANK = 8  # of the bars: they are the first to be left out


def shapes(
    model: Annotated[
        str, typer.Argument(help="A built-in network, or package.module:callable that returns a module.")
    ] = "simple_cnn",
    *,
    input_size: Annotated[
        str, typer.Option(help="Shape of one sample, without the batch axis.", metavar="C,H,W")
    ] = "1,28,28",
    classes: Annotated[int | None, typer.Option(help="Number of classes.  [default: 10]")] = None,
    width: Width = 1.0,
    act: Act = None,
    norm: NormOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show each layer's output grid, parameters, multiply-accumulates and memory, and what they mean."""
    from actograph.models import layer_table  # slow: torch

    size = parse_input_size(input_size)
    network = load_model(model, size, classes, width=width, **network_options(act, norm))
    table = layer_table(network, size)
    if as_json:
        typer.echo(json.dumps(table.as_dict(), indent=2))
    else:
        render(table, model, Console())


def parse_input_size(text: str) -> Shape:
    """Parse ``1,28,28`` (or ``1x28x28``).

    >>> parse_input_size("1,28,28")
    (1, 28, 28)
    """
    parts = text.lower().replace("x", ",").split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--input-size is {text!r}; give whole numbers of at least 1, such as 1,28,28")
    return tuple(int(part) for part in parts)


def load_model(
    name: str, input_size: Shape, classes: int | None, *, width: float = 1.0, **options: str | None
) -> nn.Module:
    """Build a network of the registry, or import and call ``package.module:callable``."""
    if ":" in name:
        if width != 1.0 or options:
            raise UsageError(
                f"--width, --act and --norm are for actograph's own networks; leave them out for {name}"
            )
        return _build_foreign(name, input_size, classes)
    from actograph.models import build_for_images  # slow: torch

    if len(input_size) != IMAGE_AXES:
        raise UsageError(
            f"--input-size has {len(input_size)} axes; {name} takes images: give channels,height,width"
        )
    num_classes = DEFAULT_CLASSES if classes is None else classes
    return build_for_images(name, num_classes, input_size, width, **options)


def _build_foreign(name: str, input_size: Shape, classes: int | None) -> nn.Module:
    from torch import nn  # slow

    found = _import(name)
    if isinstance(found, nn.Module):
        _refuse_classes(name, classes)
        return found
    if not callable(found):
        raise UsageError(
            f"{name} is a {type(found).__name__}; give a callable that returns a torch.nn.Module"
        )
    built = found(**_arguments(found, name, input_size, classes))
    if not isinstance(built, nn.Module):
        raise UsageError(f"{name} returned a {type(built).__name__}; it has to return a torch.nn.Module")
    return built


def _import(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    try:
        with _current_folder_importable():
            module = importlib.import_module(module_name)
    except ImportError as error:
        raise UsageError(
            f"{module_name!r} of {name!r} cannot be imported ({error}); run the command in the folder that holds it"
        ) from error
    except (TypeError, ValueError) as error:  # an empty or relative name
        raise UsageError(
            f"{name!r} is no package.module:callable, such as torchvision.models:resnet18"
        ) from error
    found = module
    for part in attribute.split("."):
        if part not in dir(found):
            raise UsageError(f"{module_name!r} has no {attribute!r}; give the name of a callable in it")
        found = getattr(found, part)
    return found


def _arguments(
    build: Callable[..., Any], name: str, input_size: Shape, classes: int | None
) -> dict[str, int]:
    """Pass the number of classes and the channels under their usual names; nothing else can be known."""
    parameters = inspect.signature(build).parameters
    known = {"num_classes": DEFAULT_CLASSES if classes is None else classes, "in_channels": input_size[0]}
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for parameter in parameters.values():
        is_required = parameter.default is inspect.Parameter.empty and parameter.kind not in variadic
        if is_required and parameter.name not in known:
            raise UsageError(
                f"{name} needs the argument {parameter.name!r}; give a callable that needs none but "
                "num_classes and in_channels"
            )
    if "num_classes" not in parameters:
        _refuse_classes(name, classes)
    return {key: value for key, value in known.items() if key in parameters}


def _refuse_classes(name: str, classes: int | None) -> None:
    if classes is not None:
        raise UsageError(
            f"--classes is {classes}, but {name} has no parameter num_classes; leave --classes out"
        )


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def render(table: LayerTable, title: str, console: Console) -> None:
    """Print the table, its totals, and its sentences."""
    from actograph.models.columns import columns_of, inputs_of  # slow: torch

    console.print(Text.assemble((title, "bold"), f" on {inputs_of(table)}, per sample"), end="\n\n")
    grid = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, show_footer=True, footer_style="bold")
    columns = _fitting([*columns_of(table), *_bars(table)], console.width)
    for column in columns:
        grid.add_column(
            column.header,
            column.footer,
            justify="right" if column.is_number else "left",
            no_wrap=not column.is_foldable,
            overflow="fold",
        )
    for row, cells in zip(table.rows, zip(*(column.cells for column in columns), strict=True), strict=True):
        grid.add_row(*map(_coloured, cells), style="" if row.macs else "dim")
    console.print(grid)
    console.print()
    bullets = Table.grid(padding=(0, 1, 0, 0))
    for sentence in table.sentences:
        bullets.add_row("-", Text(sentence))
    console.print(bullets)


def _bars(table: LayerTable) -> Iterator[Column]:
    """Return a column that draws the multiply-accumulates, if there are any."""
    from actograph.models.columns import Column  # slow: torch

    most = max((row.macs for row in table.rows), default=0)
    if most:
        yield Column("", [BLOCK * round(BAR_LENGTH * row.macs / most) for row in table.rows], LEAST_RANK)


def _coloured(cell: str) -> Text:
    if cell.startswith(BLOCK):
        return Text(cell, "cyan")
    return Text(cell, "bold red" if WRONG in cell else "")


def _fitting(columns: Sequence[Column], width: int) -> list[Column]:
    """Leave out columns until the rest fits; names and multiply-accumulates always stay."""
    kept = list(columns)
    while sum(_least_width(column) + GAP for column in kept) - GAP > width:
        least = max(kept, key=lambda column: column.rank)
        if least.rank == 0:
            break
        kept.remove(least)
    return kept


def _least_width(column: Column) -> int:
    """Return the least width that keeps a column readable."""
    return min(column.width, MIN_NAME_WIDTH) if column.is_foldable else column.width
