"""Where progress is shown: a terminal, a notebook, or a plain log; rows of a table, and one line about what is going on.

No idea of training: it is given words.
"""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

MIN_WIDTH = 8  # of what a column holds, in characters
GAP = 2  # between columns


class Screen(ABC):
    """A place to show rows, the line about what is going on, and notes; ``close`` takes the line away."""

    refresh_s: float  # between two lines; each waits for the device

    @abstractmethod
    def row(self, cells: Mapping[str, str]) -> None:
        """Add a row, given by column; where a column is new, say the columns."""

    @abstractmethod
    def line(self, text: str) -> None:
        """Show what is going on now."""

    @abstractmethod
    def note(self, text: str) -> None:
        """Say something once."""

    @abstractmethod
    def close(self) -> None:
        """Leave the rows and notes, take the line away."""


class Log(Screen):
    """Plain lines, for files and pipes: no control codes, a line about what is going on once a minute."""

    refresh_s = 60.0

    def __init__(self, console: Console) -> None:
        self._console = console
        self._columns: tuple[str, ...] = ()

    def row(self, cells: Mapping[str, str]) -> None:
        """Print a row, under a head where a column is new."""
        if not set(cells) <= set(self._columns):
            self._columns = tuple(cells)
            self._print(_row(self._columns, {}))
        self._print(_row(self._columns, cells))

    def line(self, text: str) -> None:
        """Print the line."""
        self._print(text)

    def note(self, text: str) -> None:
        """Print the note."""
        self._print(text)

    def close(self) -> None:
        """Do nothing: what is printed stays."""

    def _print(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)


class Terminal(Log):
    """As the log, with one line below the rows that is drawn anew."""

    refresh_s = 0.25

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def line(self, text: str) -> None:
        """Draw the line, cut off where the terminal ends."""
        self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)

    def close(self) -> None:
        """Take the line away."""
        self._live.stop()


class Notebook(Screen):
    """One HTML table that is displayed anew in its place; needs no widgets."""

    refresh_s = 0.5

    def __init__(self) -> None:
        from IPython.display import display  # noqa: PLC0415 - there only in a notebook

        self._rows: list[Mapping[str, str]] = []
        self._notes: list[str] = []
        self._line = ""
        self._handle: Any = display(self._page(), raw=True, display_id=True)

    def row(self, cells: Mapping[str, str]) -> None:
        """Add a row."""
        self._rows.append(cells)
        self._handle.update(self._page(), raw=True)

    def line(self, text: str) -> None:
        """Show the line below the table."""
        self._line = text
        self._handle.update(self._page(), raw=True)

    def note(self, text: str) -> None:
        """Add the note below the table."""
        self._notes.append(text)
        self._handle.update(self._page(), raw=True)

    def close(self) -> None:
        """Take the line away."""
        self._line = ""
        self._handle.update(self._page(), raw=True)

    def _page(self) -> dict[str, str]:
        """Return the table by MIME type; a page that is read without HTML has the plain one."""
        columns = tuple(dict.fromkeys(name for row in self._rows for name in row))
        below = [text for text in (*self._notes, self._line) if text]
        head = _html_row("th", columns)
        rows = "".join(_html_row("td", [row.get(name, "-") for name in columns]) for row in self._rows)
        notes = "".join(f"<div>{html.escape(text)}</div>" for text in below)
        plain = [_row(columns, row) for row in ({}, *self._rows)] if self._rows else []
        return {"text/html": f"<table>{head}{rows}</table>{notes}", "text/plain": "\n".join([*plain, *below])}


def screen_for(console: Console) -> Screen:
    """Return the screen that fits where the console prints to."""
    if console.is_jupyter:
        return Notebook()
    if console.is_terminal and not console.is_dumb_terminal:
        return Terminal(console)
    return Log(console)


def _row(columns: Iterable[str], cells: Mapping[str, str]) -> str:
    """Return a row of the plain table; without cells its head."""
    texts = ((name, cells.get(name, "-") if cells else name) for name in columns)
    return "".join(f"{text:>{max(MIN_WIDTH, len(name)) + GAP}}" for name, text in texts)


def _html_row(tag: str, texts: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts) + "</tr>"
