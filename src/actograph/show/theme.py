"""Colours of figures and page, for light and dark.

No idea of runs. Line colours are of middle lightness, so one set has contrast on both papers (a test checks it).
"""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go

BLUE = "#3a7fc4"
ORANGE = "#cc6d15"
GREEN = "#16907a"
PURPLE = "#9467c9"
RED = "#d2485a"
GREY = "#7c8691"
FIRED = "#8fa9c4"  # a unit that does its work: quiet beside `RED`, for one that is silent
LINES = (BLUE, ORANGE, GREEN, PURPLE, RED, GREY)

# Viridis (van der Walt and Smith 2015): perceptually uniform, readable by colour-blind eyes and in grey.
SEQUENTIAL = "Viridis"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True)
class Palette:
    """One paper and what is drawn on it."""

    paper: str
    ink: str
    muted: str
    grid: str
    diverging: tuple[str, ...]  # low to high, the middle stands for zero


LIGHT_PALETTE = Palette(
    paper="#ffffff",
    ink="#1b2430",
    muted="#5a6572",
    grid="#e4e8ed",
    diverging=("#0b3c78", "#2f78b7", "#92c0de", "#ebe9e4", "#f0b088", "#c8553d", "#74112b"),
)
DARK_PALETTE = Palette(
    paper="#171c23",
    ink="#e6eaef",
    muted="#9ba6b3",
    grid="#2b333d",
    diverging=("#a5d0f5", "#4f96d6", "#24527f", "#2a3038", "#7d3527", "#d3714f", "#fbcdb0"),
)


def make_template(palette: Palette) -> go.layout.Template:
    """Return the Plotly template of a palette."""
    axis = {
        "gridcolor": palette.grid,
        "linecolor": palette.grid,
        "zerolinecolor": palette.grid,
        "tickcolor": palette.grid,
        "tickfont": {"color": palette.muted, "size": 11},
        "title": {"font": {"color": palette.muted, "size": 12}, "standoff": 6},
    }
    steps = [[i / (len(palette.diverging) - 1), colour] for i, colour in enumerate(palette.diverging)]
    layout = {
        "font": {"family": FONT, "color": palette.ink, "size": 12},
        "paper_bgcolor": palette.paper,
        "plot_bgcolor": palette.paper,
        "colorway": list(LINES),
        "colorscale": {"sequential": SEQUENTIAL, "diverging": steps},
        "xaxis": axis,
        "yaxis": axis,
        "hoverlabel": {
            "bgcolor": palette.paper,
            "bordercolor": palette.muted,
            "font": {"color": palette.ink, "family": FONT},
        },
        "legend": {"bgcolor": "rgba(0,0,0,0)", "font": {"color": palette.ink}},
        "annotationdefaults": {"font": {"color": palette.muted, "size": 10}},
        "shapedefaults": {"line": {"color": palette.muted}},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": palette.muted, "activecolor": palette.ink},
    }
    bar = {"tickfont": {"color": palette.muted}, "title": {"font": {"color": palette.muted}}}
    data = {"heatmap": [{"colorbar": bar}], "scatter": [{"marker": {"colorbar": bar}}]}
    return go.layout.Template(layout=layout, data=data)


LIGHT = make_template(LIGHT_PALETTE)
DARK = make_template(DARK_PALETTE)


def darkened(figure: go.Figure) -> go.Figure:
    """Return a copy of a figure for a dark paper."""
    return go.Figure(figure).update_layout(template=DARK)
