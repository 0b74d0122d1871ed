"""Chapters as one HTML file that needs nothing else, and as text for a terminal.

No idea of how a chapter came about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from actograph.files import write_atomically
from actograph.show.document import Figures, fill
from actograph.study.chapter import Chapter, Table

BOOK = "book.html"
INDENT = 2  # spaces


def write_book(chapters: Sequence[Chapter], setup: Mapping[str, Any], path: Path) -> Path:
    """Write the chapters to ``path`` and return it; raises UsageError where it cannot be written.

    ``setup`` is what is told of network and data, by name.
    """
    page = render(chapters, setup).encode()
    write_atomically(path, lambda file: file.write(page))
    return path


def render(chapters: Sequence[Chapter], setup: Mapping[str, Any]) -> str:
    """Return the page."""
    figures = Figures()
    title = chapters[0].question if len(chapters) == 1 else "Questions about training, answered by experiment"
    content = {
        "title": title,
        "summary": (
            f"Measured on {setup['data']} with {setup['model']}, {setup['seeds']} seeds. Intervals hold the true value with "
            "95 % confidence; where they do not tell two things apart, the text says so."
        ),
        "tiles": [],
        "chapters": [_chapter(chapter, figures) for chapter in chapters],
        "setup": [(name, str(value)) for name, value in setup.items()],
    }
    return fill("actograph.study", "book.html.j2", content, figures)


def _chapter(chapter: Chapter, figures: Figures) -> dict[str, Any]:
    pictures = []
    for position, picture in enumerate(chapter.pictures):
        figure_id = f"{chapter.name}-{position}"
        height = figures.add(figure_id, go.Figure(picture.figure))  # a copy: the page takes its template off
        pictures.append({"id": figure_id, "height": height, "alt": picture.alt, "caption": picture.caption})
    tables = [{"title": table.title, "heads": table.heads, "rows": table.texts} for table in chapter.tables]
    return {
        "name": chapter.name,
        "question": chapter.question,
        "textbook": chapter.textbook,
        "sentences": chapter.sentences,
        "pictures": pictures,
        "tables": tables,
        "failures": chapter.failures,
        "method": chapter.method,
    }


def terminal(chapter: Chapter) -> RenderableType:
    """Return the question, the first table and the verdict for a terminal."""
    parts: list[RenderableType] = [Text(chapter.question, "bold"), Text(), _rich_table(chapter.table), Text()]
    parts += [Padding(Text(f"- {sentence}"), (0, 0, 0, INDENT)) for sentence in chapter.sentences]
    if chapter.failures:
        num = len(chapter.failures)
        parts += [Text(), Text(f"{num} trial{'s' if num > 1 else ''} failed:", "yellow")]
        parts += [Padding(Text(failure), (0, 0, 0, INDENT)) for failure in chapter.failures]
    return Group(*parts)


def _rich_table(table: Table) -> RichTable:
    shown = RichTable(title=table.title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for position, head in enumerate(table.heads):
        shown.add_column(head, justify="right" if position else "left", overflow="fold")
    for row in table.texts:
        shown.add_row(*(Text(cell) for cell in row))
    return shown
