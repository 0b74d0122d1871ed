"""A table of layers as columns of text, and as plain text.

No idea of terminals: who prints decides on colours and on which columns have room.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # they print themselves by this module
    from actograph.models.shapes import LayerShape, LayerTable, Shape

TIMES = "\N{MULTIPLICATION SIGN}"
MILLION = 1_000_000
GAP = 2  # spaces between columns
SENTENCE_WIDTH = 100  # characters, where the width of the screen is not known


@dataclass(frozen=True, slots=True)
class Column:
    """One column: a cell for each row; those of the highest ``rank`` tell least."""

    header: str
    cells: Sequence[str]
    rank: int
    footer: str = ""
    is_number: bool = False
    is_foldable: bool = False

    @property
    def width(self) -> int:
        """Return the length of the longest text."""
        return max(len(text) for text in self.texts)

    @property
    def texts(self) -> tuple[str, ...]:
        """Return all that is in it, from top to bottom."""
        return (self.header, *self.cells, self.footer)


def as_text(table: LayerTable) -> str:
    """Return the table, its totals, and its sentences as lines of plain text."""
    columns = columns_of(table)
    adjusted = [
        [text.rjust(one.width) if one.is_number else text.ljust(one.width) for text in one.texts]
        for one in columns
    ]
    lines = [(" " * GAP).join(cells).rstrip() for cells in zip(*adjusted, strict=True)]
    bullet = textwrap.TextWrapper(
        SENTENCE_WIDTH,
        initial_indent="- ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    wrapped = [bullet.fill(sentence) for sentence in table.sentences]
    return "\n".join([f"{table.model} on {inputs_of(table)}, per sample", "", *lines, "", *wrapped])


def inputs_of(table: LayerTable) -> str:
    """Return the shapes of one sample's inputs."""
    return " and ".join(TIMES.join(map(str, shape[1:])) for shape in table.input_shapes)


def columns_of(table: LayerTable) -> list[Column]:
    """Return the columns that have anything to say."""
    return [column for column in _columns(table) if any(column.cells)]


def _columns(table: LayerTable) -> Iterator[Column]:
    rows = table.rows
    macs = [_count(row.macs) for row in rows]
    parameters = [_count(row.parameters) for row in rows]
    memory = [_size(row.activation_bytes) for row in rows]
    output = [TIMES.join(map(str, (row.output_shape or ())[1:])) for row in rows]
    yield Column("Layer", [row.name for row in rows], 0, "total", is_foldable=True)
    yield Column("Class", [_kind(row) for row in rows], 7)
    yield Column("Output", output, 3)
    yield Column("Grid", [_grid(row) for row in rows], 2)
    yield Column("Kernel", [_kernel(row) for row in rows], 6)
    yield Column("In:out", [_ratio(row) for row in rows], 5, is_number=True)
    yield Column("Parameters", parameters, 1, _count(table.parameters), is_number=True)
    yield Column("MACs", macs, 0, _count(table.macs), is_number=True)
    yield Column("Memory", memory, 4, _size(table.activation_bytes), is_number=True)


def _kind(row: LayerShape) -> str:
    return f"{row.kind} (own work)" if row.is_own_work else row.kind


def _kernel(row: LayerShape) -> str:
    return f"{_short(row.window.kernel)} / {_short(row.window.stride)}" if row.window else ""


def _ratio(row: LayerShape) -> str:
    return f"{row.window.inputs}:{row.window.filters}" if row.window and row.window.inputs else ""


def _grid(row: LayerShape) -> str:
    if row.grid is None or row.input_grid is None:
        return ""
    change = f"{_short(row.input_grid)} → {_short(row.grid)}"
    if row.grid_matches is False:
        return f"{change} ✗ {_short(row.predicted_grid or ())}"
    return f"{change} ✓" if row.grid_matches else change


def _short(shape: Shape) -> str:
    """Write a square as its side.

    >>> _short((14, 14))
    '14'
    """
    return str(shape[0]) if len(set(shape)) == 1 else TIMES.join(map(str, shape))


def _count(value: int) -> str:
    """Write a count in full up to ten million; nothing for 0.

    >>> _count(248_864), _count(1_822_000_000)
    ('248,864', '1,822.0 M')
    """
    if value >= 10 * MILLION:
        return f"{value / MILLION:,.1f} M"
    return f"{value:,}" if value else ""


def _size(size_bytes: int) -> str:
    """Write a size in bytes with its unit; nothing for 0.

    >>> _size(40), _size(6272)
    ('40 B', '6.1 KiB')
    """
    kib = 1024
    if size_bytes < kib:
        return f"{size_bytes} B" if size_bytes else ""
    if size_bytes < kib**2:
        return f"{size_bytes / kib:.1f} KiB"
    return f"{size_bytes / kib**2:,.1f} MiB"
