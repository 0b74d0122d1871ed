"""`Chapter`: what a study has to tell, ready to be shown: verdict, tables, figures.

No idea of pages or terminals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

from actograph.show import words
from actograph.show.plain import plain_number
from actograph.study.estimate import Estimate

HALF_DIGITS = 2  # of half an interval
SYMMETRIC = 1e-6  # relative; what two halves of an interval may differ by to be told as one


@dataclass(frozen=True)
class Table:
    """Columns with heads, and rows of as many cells; cells are text, numbers, estimates or None."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[object]]

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.heads) for row in self.rows), f"{self.title}: rows and heads differ"

    def __str__(self) -> str:
        return "\n".join([self.title, *("  ".join(row) for row in _aligned([list(self.heads), *self.texts]))])

    @property
    def texts(self) -> list[list[str]]:
        """The cells as they are shown."""
        return [[cell_text(cell) for cell in row] for row in self.rows]

    def to_json(self) -> dict[str, Any]:
        """Return plain data; an estimate is its value and its ends."""
        return {
            "title": self.title,
            "heads": list(self.heads),
            "rows": [[_plain(cell) for cell in row] for row in self.rows],
        }


@dataclass(frozen=True)
class Picture:
    """A figure, what is to be seen on it, and the same for who cannot see it."""

    figure: go.Figure
    caption: str
    alt: str


@dataclass(frozen=True)
class Chapter:
    """The answer to one question.

    Attributes:
        name: of the study.
        question: as people ask it.
        textbook: what is usually answered.
        sentences: the verdict, computed from the numbers: what was found, and what cannot be told.
        tables, pictures: the first of each is the one to look at.
        method: how it was measured, in a few sentences.
        failures: trials that failed, and why.
        facts: numbers of the verdict by name, plain data.

    """

    name: str
    question: str
    textbook: str
    sentences: Sequence[str]
    tables: Sequence[Table]
    pictures: Sequence[Picture]
    method: str
    failures: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """The answer in words."""
        return " ".join(self.sentences)

    @property
    def table(self) -> Table:
        """The table to look at first."""
        return self.tables[0]

    @property
    def figure(self) -> go.Figure:
        """The figure to look at first."""
        return self.pictures[0].figure

    def to_json(self) -> dict[str, Any]:
        """Return all but the pictures as plain data."""
        return {
            "schema": 1,
            "name": self.name,
            "question": self.question,
            "verdict": list(self.sentences),
            "facts": _plain(self.facts),
            "tables": [table.to_json() for table in self.tables],
            "method": self.method,
            "failures": list(self.failures),
        }


def cell_text(cell: object) -> str:
    """Return a cell as text: an estimate with its interval, None as a dash.

    >>> cell_text(Estimate(0.98123, 0.97123, 0.99123, 5)), cell_text(Estimate(0.0, 0.0, 0.4345, 5))
    ('0.981 ± 0.01', '0 (0 to 0.434)')
    >>> cell_text(None), cell_text(0.51234), cell_text(12345)
    ('-', '0.512', '12,345')
    """
    if isinstance(cell, Estimate):
        return _estimate_text(cell)
    if cell is None:
        return words.DASH
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    return words.number(cell) if isinstance(cell, float) else str(cell)


def _estimate_text(estimate: Estimate) -> str:
    told = words.number(estimate.value)
    if not estimate.is_known:
        return told
    above, below = estimate.high - estimate.value, estimate.value - estimate.low
    if math.isclose(above, below, rel_tol=SYMMETRIC):
        return f"{told} ± {words.number(above, HALF_DIGITS)}"
    return f"{told} ({words.number(estimate.low)} to {words.number(estimate.high)})"


def _aligned(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return the cells of all rows, those of a column of one width; the last is left as it is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        [*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)), row[-1]] for row in rows
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        ends = {"low": plain_number(value.low), "high": plain_number(value.high)}
        return {"value": plain_number(value.value), **ends, "num": value.num}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return plain_number(value) if isinstance(value, float) else value
