from __future__ import annotations

import io
import sys
from types import ModuleType

import pytest
from rich.console import Console

from actograph.callbacks.progress import Progress
from actograph.callbacks.screens import Log, Notebook, Terminal, screen_for
from actograph.testing.callbacks import tiny_loop

Page = dict[str, str]  # by MIME type


class Display:
    """What IPython.display gives: one place on the page, shown anew by its handle."""

    def __init__(self, page: Page, *, raw: bool, display_id: bool) -> None:
        assert display_id
        self.bundles: list[Page] = []
        self.update(page, raw=raw)

    def update(self, page: Page, *, raw: bool) -> None:
        assert raw
        self.bundles.append(page)

    @property
    def pages(self) -> list[str]:
        return [bundle["text/html"] for bundle in self.bundles]


@pytest.fixture
def displays(monkeypatch: pytest.MonkeyPatch) -> list[Display]:
    made: list[Display] = []

    def display(page: Page, *, raw: bool, display_id: bool) -> Display:
        made.append(Display(page, raw=raw, display_id=display_id))
        return made[-1]

    module = ModuleType("IPython.display")
    vars(module)["display"] = display
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return made


def test_a_notebook_has_one_table_that_grows_and_no_line_in_the_end(displays: list[Display]) -> None:
    ticks = iter(range(1000))
    loop = tiny_loop()
    console = Console(file=io.StringIO(), force_jupyter=True)
    loop.fit(2, [Progress(console, clock=lambda: float(next(ticks)))])
    (display,) = displays
    assert any("train 1/3  loss" in page and "epoch 2/2" in page for page in display.pages)
    last = display.pages[-1]
    assert last.count("<tr>") == 3
    assert last.startswith(
        "<table><tr><th>epoch</th><th>train_loss</th><th>valid_loss</th><th>time</th></tr>"
    )
    assert "<div>" not in last
    assert [page.count("<tr>") for page in display.pages] == sorted(
        page.count("<tr>") for page in display.pages
    )


def test_a_notebook_shows_words_as_they_are(displays: list[Display]) -> None:
    screen = Notebook()
    screen.row({"epoch": "0", "a<b": "1"})
    screen.row({"epoch": "1"})
    screen.note("stopped: x < 1 & y")
    screen.line("going on")
    screen.close()
    before, last = displays[0].pages[-2:]
    assert before.endswith("<div>going on</div>")
    assert last.endswith("<td>-</td></tr></table><div>stopped: x &lt; 1 &amp; y</div>")
    assert "<th>a&lt;b</th>" in last
    plain = displays[0].bundles[-1]["text/plain"].splitlines()
    assert [line.split() for line in plain] == [
        ["epoch", "a<b"],
        ["0", "1"],
        ["1", "-"],
        ["stopped:", "x", "<", "1", "&", "y"],
    ]


def test_each_console_has_its_screen(displays: list[Display], monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(screen_for(Console(file=io.StringIO(), force_jupyter=True)), Notebook)
    assert type(screen_for(Console(file=io.StringIO()))) is Log
    terminal = screen_for(Console(file=io.StringIO(), force_terminal=True))
    assert isinstance(terminal, Terminal)
    terminal.close()
    monkeypatch.setenv("TERM", "dumb")
    assert type(screen_for(Console(file=io.StringIO(), force_terminal=True))) is Log


def test_a_line_too_long_for_the_terminal_is_cut() -> None:
    file = io.StringIO()
    terminal = Terminal(Console(file=file, force_terminal=True, width=20, no_color=True))
    terminal.line("epoch 1/2  train 100/200  loss 0.1234")
    terminal.close()
    assert "epoch 1/2  train 10…" in file.getvalue()
    assert "loss" not in file.getvalue()
