"""Where steps, buckets and epochs stand on the x axis.

No idea of what is drawn above it.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from actograph.layout.row import Floats
from actograph.runlog.timeaxis import TimeAxis
from actograph.runlog.view import RunView
from actograph.show.series import epochs

STEP_TITLE = "step"
MAX_MARKS = 12  # labels of 10 px on 300 px: more would touch


class Mark(NamedTuple):
    """A boundary to be drawn: the step that begins there and what begins."""

    step: int
    label: str


def step_middles(view: TimeAxis[Any]) -> Floats:
    """Return the middle of each bucket (T,), for points and lines."""
    return (view.first_steps + view.last_steps) / 2


def step_edges(view: TimeAxis[Any]) -> Floats:
    """Return the borders of the buckets (T + 1,), for columns of true width; a step reaches half a step to either side."""
    if not len(view.first_steps):
        return np.zeros(1)
    between = (view.last_steps[:-1] + view.first_steps[1:]) / 2
    return np.concatenate([view.first_steps[:1] - 0.5, between, view.last_steps[-1:] + 0.5])


def step_range(view: RunView) -> list[float]:
    """Return where the axis begins and ends, so that the panels of one layer stand exactly below each other."""
    edges = step_edges(view)
    return [float(edges[0]), float(edges[-1])]


def boundaries(view: RunView) -> list[Mark]:
    """Return where epochs begin but the first, thinned to what has room; a further fit's beginning says so."""
    marks: dict[int, str] = {}
    fit: object = None
    for event in epochs(view):
        is_new_fit = fit is not None and event.data.get("fit") != fit
        fit = event.data.get("fit")
        marks[event.step] = f"fit {fit}" if is_new_fit else f"epoch {event.data.get('epoch')}"
    inner = [Mark(step, label) for step, label in sorted(marks.items()) if step > 0]
    every = -(-len(inner) // MAX_MARKS) or 1
    return inner[every - 1 :: every]


def draw_marks(figure: go.Figure, marks: Iterable[Mark]) -> None:
    """Draw a thin line where something begins, over all panels, labelled above the top one."""
    for mark in marks:
        x = mark.step - 0.5
        line = {"width": 1, "dash": "dot"}
        figure.add_shape(type="line", xref="x", yref="paper", x0=x, x1=x, y0=0, y1=1, line=line, opacity=0.6)
        figure.add_annotation(
            xref="x", yref="paper", x=x, y=1, text=html.escape(mark.label), showarrow=False,
            xanchor="left", yanchor="bottom", xshift=-2,
        )  # fmt: skip
