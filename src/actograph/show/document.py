"""One HTML file that needs nothing else: a template filled in, with its figures, plotly.js, style and script.

No idea of what is on the page: the report of a run and the book of studies are made with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import jinja2
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from actograph import __version__
from actograph.show import theme

PAGE = "page"  # the folder of style and script, and of a package's templates


@dataclass
class Figures:
    """The figures of one page as JSON, by element id."""

    json: dict[str, str] = field(default_factory=dict)
    size_bytes: int = 0

    def add(self, figure_id: str, figure: go.Figure) -> int:
        """Keep a figure without its template (the page chooses by theme) and return its height in pixels."""
        height = int(figure.layout.height)
        figure.layout.template = None
        self.json[figure_id] = script_json(json.loads(figure.to_json()))
        self.size_bytes += len(self.json[figure_id])
        return height


def script_json(data: Any) -> str:
    """Return JSON that may stand inside a script element: no text in it can end the element."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def fill(package: str, template: str, content: Mapping[str, Any], figures: Figures) -> str:
    """Return the page that ``template``, a file in the package's folder of pages, makes of the content."""
    files = resources.files("actograph.show") / PAGE
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        loader=jinja2.FunctionLoader(
            lambda name: (files / name).read_text("utf-8")
        ),  # what templates include
    )
    page = environment.from_string((resources.files(package) / PAGE / template).read_text("utf-8"))
    templates = {"light": theme.LIGHT.to_plotly_json(), "dark": theme.DARK.to_plotly_json()}
    return page.render(
        **content,
        version=__version__,
        css=(files / "report.css").read_text("utf-8"),
        js=(files / "report.js").read_text("utf-8"),
        plotly=get_plotlyjs(),
        templates=script_json(templates),
        figures=[{"id": figure_id, "json": text} for figure_id, text in figures.json.items()],
    )
