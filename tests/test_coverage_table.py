"""``docs/coverage.md`` names tests that exist, and says of each situation one of three things."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| (?P<situation>[^|]+) \| (?P<what>[^|]+) \| `(?P<file>[^`:]+)::(?P<test>\w+)` \|$")
SAID = ("exact", "abstains", "refused", "the mean over ranks", "counts equal", "of the rank's own shard")


def rows() -> list[str]:
    lines = (ROOT / "docs" / "coverage.md").read_text().splitlines()
    return [line for line in lines if "::" in line]


@pytest.mark.parametrize("row", rows())
def test_a_row_names_a_test_that_is_there(row: str) -> None:
    found = ROW.match(row)
    assert found is not None, f"not a row of three columns with one test: {row}"
    assert found["what"].startswith(SAID)
    tree = ast.parse((ROOT / found["file"]).read_text())
    assert found["test"] in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_there_are_rows() -> None:
    assert len(rows()) > 25
