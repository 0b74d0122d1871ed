from __future__ import annotations

import io
import json
from pathlib import Path

import plotly.graph_objects as go
import pytest
from rich.console import Console

from actograph.study.book import terminal, write_book
from actograph.study.chapter import Chapter, Picture, Table, cell_text
from actograph.study.estimate import Estimate, mean_of
from actograph.study.figures import curves, intervals

SETUP = {"data": "mnist", "model": "simple_cnn", "seeds": 3, "lr": 0.01}


def chapter(name: str = "low-end", failures: tuple[str, ...] = ()) -> Chapter:
    estimates = {"a": Estimate(0.5, 0.4, 0.6, 3), "b": mean_of([0.7])}
    return Chapter(
        name,
        "Why <so>?",
        "Because.",
        ["A is better.", "B cannot be told."],
        [Table("Numbers", ["variant", "accuracy"], [[key, one] for key, one in estimates.items()])],
        [Picture(intervals(estimates, "accuracy"), "Caption.", "Two rows")],
        "Measured so.",
        failures,
        {"best": Estimate(0.5, float("nan"), 0.6, 3), "names": ("a", "b")},
    )


def test_a_book_needs_no_network_and_escapes_what_it_is_told(tmp_path: Path) -> None:
    path = write_book(
        [chapter(), chapter("high-start", ("a, seed 0: it broke",))], SETUP, tmp_path / "book.html"
    )
    page = path.read_text()
    own = page.partition("<script>")[0]
    assert "://" not in own
    assert "Why &lt;so&gt;?" in own
    assert "<li>B cannot be told.</li>" in own
    assert 'id="high-start-0"' in own
    assert "0.5 ± 0.1" in own
    assert own.count("it broke") == 1
    assert page.count("plotly.js v") == 1  # one for all chapters
    assert len(page) < 6_000_000


def test_a_picture_keeps_its_template_when_the_page_is_made(tmp_path: Path) -> None:
    one = chapter()
    write_book([one], SETUP, tmp_path / "book.html")
    assert one.figure.layout.template.layout.font.size == 12


def test_a_chapter_has_table_verdict_and_figure() -> None:
    one = chapter()
    assert one.verdict == "A is better. B cannot be told."
    assert isinstance(one.figure, go.Figure)
    assert str(one.table).splitlines() == [
        "Numbers",
        "variant  accuracy",
        "a        0.5 ± 0.1",
        "b        0.7",
    ]


def test_a_chapter_is_plain_json() -> None:
    told = json.loads(json.dumps(chapter().to_json(), allow_nan=False))
    assert told["tables"][0]["rows"][0][1] == {"value": 0.5, "low": 0.4, "high": 0.6, "num": 3}
    assert told["facts"] == {"best": {"value": 0.5, "low": None, "high": 0.6, "num": 3}, "names": ["a", "b"]}


def test_the_terminal_shows_question_table_verdict_and_failures() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal(chapter(failures=("a, seed 0: it broke",))))
    text = console.export_text()
    for part in ("Why <so>?", "0.5 ± 0.1", "- A is better.", "1 trial failed", "a, seed 0: it broke"):
        assert part in text


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (Estimate(2.0, 1.0, 4.0, 3), "2 (1 to 4)"),
        (Estimate(1.0, float("nan"), float("nan"), 1), "1"),
        (True, "yes"),
        ("word", "word"),
        (float("nan"), "-"),
    ],
)
def test_cells_are_told_in_few_digits(cell: object, text: str) -> None:
    assert cell_text(cell) == text


def test_bands_are_drawn_only_where_intervals_are_known() -> None:
    known, unknown = mean_of([1.0, 2.0]), mean_of([1.0])
    figure = curves({"a": ([1.0, 2.0], [known, known]), "b": ([1.0], [unknown])}, "x", "y")
    assert [one.name for one in figure.data] == ["a", "a", "b"]
    assert figure.data[0].fill == "toself"
