"""Run the code of a page and put what it prints and draws into it: `python docs/pages.py docs/fastai.md`.

No idea of what the page is about. Code blocks run in order, as one program, in an empty folder. A ``text`` block that
follows one holds what was printed; the pictures of the page are the figures shown, in order. Needs the `test` extra and
Debian's chromium.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from playwright.sync_api import sync_playwright

WIDTH_PX, HEIGHT_PX = 900, 320
MARGIN_PX = 16  # of the page that the figure stands on
QUIET = ["--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
CODE = re.compile(r"```python\n(?P<code>.*?)```(?:\n\n```text\n(?P<printed>.*?)```)?", re.DOTALL)
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)]+\.png)\)")


def main(page: Path) -> None:
    shown: list[go.Figure] = []
    text = with_outputs(page.read_text(), shown)
    names = PICTURE.findall(text)
    if len(names) != len(shown):
        sys.exit(f"{page} has {len(names)} pictures, but its code shows {len(shown)} figures")
    draw(shown, [page.parent / name for name in names])
    page.write_text(text)


def with_outputs(text: str, shown: list[go.Figure]) -> str:
    """Return the page with what its code prints now; figures go to ``shown``."""
    names: dict[str, Any] = {}

    def run(match: re.Match[str]) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(match["code"], names)
        code = f"```python\n{match['code']}```"
        return code if match["printed"] is None else f"{code}\n\n```text\n{printed.getvalue()}```"

    def show(figure: go.Figure) -> None:
        shown.append(figure)

    go.Figure.show = show
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            return CODE.sub(run, text)
        finally:
            os.chdir(home)


def draw(figures: list[go.Figure], pictures: list[Path]) -> None:
    """Write each figure as a PNG, drawn by the browser that users have."""
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", *QUIET])
        for figure, picture in zip(figures, pictures, strict=True):
            height_px = int(figure.layout.height or HEIGHT_PX) + MARGIN_PX
            drawing = Path(folder, "figure.html")
            figure.write_html(drawing, config={"displayModeBar": False})
            tab = browser.new_page(viewport={"width": WIDTH_PX, "height": height_px})
            tab.goto(drawing.as_uri())
            tab.wait_for_timeout(1000)
            picture.parent.mkdir(exist_ok=True)
            tab.screenshot(path=picture)
            tab.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
