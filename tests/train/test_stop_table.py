from __future__ import annotations

import re

import pytest

from .stop_table import ACCUMULATING, DOCUMENT, NAMES, TABLES, observed, table_rows

TEXT = DOCUMENT.read_text(encoding="utf-8")
ROWS = {title: table_rows(TEXT, title) for title in TABLES}


@pytest.mark.parametrize(("title", "way"), [(title, way) for title in TABLES for way in ROWS[title]])
def test_every_cell_of_the_stop_tables_is_what_a_real_fit_does(title: str, way: str) -> None:
    assert observed(way, is_accumulating=title == ACCUMULATING) == ROWS[title][way]


@pytest.mark.parametrize("title", TABLES)
def test_the_stop_tables_have_every_way(title: str) -> None:
    assert list(ROWS[title]) == TABLES[title]


def test_the_pseudocode_names_the_events_in_firing_order() -> None:
    block = next(part for part in TEXT.split("```text")[1:] if "for epoch" in part).split("```")[0]
    named = [line.split()[0] for line in block.splitlines() if line.split() and line.split()[0] in NAMES]
    assert named == NAMES


def test_the_example_on_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for code in re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL):
        exec(code, {"__name__": "loop_page"})
    assert "valid_loss is below 0.01" in capsys.readouterr().out
