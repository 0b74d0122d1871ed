"""Figures of a whole run: loss, schedule, all layers over time.

No idea of files or pages, and no numbers of its own: what is drawn is what the run view holds. Figures carry the light
template; `theme.darkened` gives the dark one.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from actograph.layout.row import Floats
from actograph.runlog.statistic import Statistic
from actograph.runlog.view import STATISTICS, RunView
from actograph.show import theme
from actograph.show.timeaxis import STEP_TITLE, Mark, boundaries, draw_marks, step_edges

MARGIN = {"l": 64, "r": 14, "t": 30, "b": 44}
HEIGHT = 320
BAR_TOP_PX = 70  # margin above a panel with a colour bar
PANEL_PX = 150  # each panel of a stack
WIDE_RATIO = 50.0  # values that span more than this factor are drawn on a logarithmic axis
ROW_PX, MIN_ROW_PX, MAX_ROWS_PX = 30, 13, 900  # of the heat map's layers
NAME_CHARACTERS = 20  # of a layer's name beside the heat map; the end of a name tells more than its beginning
COLOUR_QUANTILE = 0.98  # colours end there, so that one exploding cell does not make all others look alike
# positive, and spanning decades in any network that is in trouble
ON_LOG_SCALE = ("std", "rms", "grad_norm", "grad_max", "weight_norm", "update_norm", "update_ratio")
MANY_DECADES = 2.0  # beyond, only powers of ten are labelled
SMALLEST = 1e-30  # stands for zero on a logarithmic colour scale: below every colour's beginning


def base_figure(figure: go.Figure, height: int = HEIGHT) -> go.Figure:
    """Give a figure our template, margins and legend; returns it."""
    legend = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "top"}
    return figure.update_layout(template=theme.LIGHT, height=height, margin=MARGIN, legend=legend)


def loss_curve(
    steps: ArrayLike,
    losses: ArrayLike,
    smooth_losses: ArrayLike | None = None,
    valid: tuple[ArrayLike, ArrayLike] | None = None,
    marks: Iterable[Mark] = (),
) -> go.Figure:
    """Draw training loss per step, raw and smoothed, and validation loss (steps, losses) where it was measured.

    The axis is logarithmic where the loss spans more than a factor of `WIDE_RATIO`.
    """
    figure = base_figure(go.Figure())
    hover = "step %{x:,}<br>%{y:.4g}"
    figure.add_scatter(
        x=steps, y=losses, name="training", mode="lines", line={"color": theme.BLUE, "width": 1},
        opacity=1.0 if smooth_losses is None else 0.4, hovertemplate=hover,
    )  # fmt: skip
    if smooth_losses is not None:
        line = {"color": theme.BLUE, "width": 2.2}
        figure.add_scatter(
            x=steps, y=smooth_losses, name="smoothed", mode="lines", line=line, hovertemplate=hover
        )
    if valid is not None:
        figure.add_scatter(
            x=valid[0], y=valid[1], name="validation", mode="lines+markers", hovertemplate=hover,
            line={"color": theme.ORANGE, "width": 1.6, "dash": "dash"}, marker={"size": 8, "symbol": "diamond"},
        )  # fmt: skip
    figure.update_xaxes(title_text=STEP_TITLE)
    figure.update_yaxes(title_text="loss", type="log" if spans_decades(losses) else "linear", nticks=7)
    draw_marks(figure, marks)
    return figure


def schedule_curves(
    steps: ArrayLike, values: Mapping[str, ArrayLike], marks: Iterable[Mark] = ()
) -> go.Figure:
    """Draw schedules (rate, momentum) above a common step axis.

    Each has a panel of its own but for parameter groups: ``lr.1`` stands in the panel of ``lr``.
    """
    return schedule_panels({name: (steps, one) for name, one in values.items()}, marks)


def schedule_panels(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]], marks: Iterable[Mark] = ()
) -> go.Figure:
    """Draw schedules like `schedule_curves`, each given as its own steps and values."""
    panels = list(dict.fromkeys(_panel_of(name) for name in curves))
    figure = stacked_panels([(panel, 1.0) for panel in panels])
    for position, (name, (steps, values)) in enumerate(curves.items()):
        line = {"color": theme.LINES[position % len(theme.LINES)], "width": 2}
        figure.add_scatter(
            x=steps, y=values, name=name, mode="lines", row=panels.index(_panel_of(name)) + 1, col=1, line=line,
            showlegend=len(curves) > len(panels), hovertemplate="step %{x:,}<br>%{y:.4g}",
        )  # fmt: skip
        _show_zero_if_constant(figure, panels.index(_panel_of(name)) + 1, np.asarray(values, np.float64))
    draw_marks(figure, marks)
    return figure


def heat_map(view: RunView, statistic: str, label: str | None = None) -> go.Figure:
    """Draw one of `STATISTICS` for all layers (rows, input on top) over time (columns of true width).

    Cells where it is not defined are blank. Shares have colours from 0 to 1, spreads a logarithmic scale, signed numbers
    one that is symmetric about zero. ``label`` is the title, where the statistic's own does not tell enough.
    """
    table = view.column(statistic)  # raises for an unknown statistic
    names = [layer.name for layer in view.layers]
    described = replace(STATISTICS[statistic], label=label or STATISTICS[statistic].label)
    return draw_map(table, names, step_edges(view), described, boundaries(view))


def draw_map(
    table: Floats, names: Sequence[str], edges: Floats, described: Statistic[Any], marks: Iterable[Mark]
) -> go.Figure:
    """Draw numbers (T, names) as `heat_map` does; ``edges`` (T + 1,) are the borders of the columns."""
    rows_px = min(max(MAX_ROWS_PX / max(len(names), 1), MIN_ROW_PX), ROW_PX) * len(names)
    figure = base_figure(go.Figure(), height=int(rows_px) + BAR_TOP_PX + MARGIN["b"])
    if table.size:
        figure.add_heatmap(
            x=edges, y=names, z=_shown(table, described).T.astype(np.float32),
            customdata=table.T.astype(np.float32) if described.name in ON_LOG_SCALE else None,
            hovertemplate=_hover(described), hoverongaps=False, xgap=0, ygap=1,
            **_colours(table, described),
        )  # fmt: skip
    figure.update_xaxes(title_text=STEP_TITLE, showgrid=False)
    head_panel(figure, described.label)
    figure.update_yaxes(
        autorange="reversed", showgrid=False, tickvals=names, ticktext=[short_name(name) for name in names],
        tickfont={"size": 10 if rows_px < ROW_PX * len(names) else 12}, automargin=True,
    )  # fmt: skip
    draw_marks(figure, marks)
    return figure


def stacked_panels(panels: Sequence[tuple[str, float]], height: int | None = None) -> go.Figure:
    """Return panels above one another with a common step axis, each given as y title and share of the height."""
    figure = make_subplots(
        rows=max(len(panels), 1), cols=1, shared_xaxes=True, row_heights=[share for _, share in panels] or None,
        vertical_spacing=0.06 if len(panels) > 1 else 0.0,
    )  # fmt: skip
    total = sum(share for _, share in panels)
    base_figure(figure, height or int(PANEL_PX * max(total, 1)) + MARGIN["t"] + MARGIN["b"])
    for row, (title, _) in enumerate(panels, 1):
        figure.update_yaxes(title_text=title, row=row, col=1)
    return figure.update_xaxes(title_text=STEP_TITLE, row=max(len(panels), 1), col=1)


def colour_bar(ticks: Mapping[float, str] | None = None) -> dict[str, Any]:
    """Return a flat colour bar above the panel, so that panels of one page keep the same left and right edge."""
    bar: dict[str, Any] = {
        "orientation": "h", "x": 1, "xanchor": "right", "yref": "container", "y": 1, "yanchor": "top", "ypad": 2,
        "lenmode": "pixels", "len": 140, "thickness": 8, "outlinewidth": 0, "tickfont": {"size": 10},
    }  # fmt: skip
    if ticks is not None:
        bar |= {"tickvals": list(ticks), "ticktext": list(ticks.values())}
    return bar


def head_panel(figure: go.Figure, title: str) -> None:
    """Make room above the panel for a title on the left and the colour bar on the right."""
    font = {"size": 12.5}
    figure.update_layout(
        margin=MARGIN | {"t": BAR_TOP_PX},
        title={"text": title, "x": 0, "xref": "container", "yref": "container", "y": 1, "yanchor": "top", "font": font}
        | {"pad": {"t": 8, "l": 8}},
    )  # fmt: skip


def short_name(name: str) -> str:
    """Return the end of a long layer name, safe to be shown as Plotly text."""
    short = name if len(name) <= NAME_CHARACTERS else "…" + name[1 - NAME_CHARACTERS :]
    return html.escape(short)


def _show_zero_if_constant(figure: go.Figure, row: int, values: Floats) -> None:
    """Give a constant curve an axis from zero: by itself Plotly would draw 0.01 in the middle of -1 to 1."""
    known = np.unique(values[np.isfinite(values)])
    if len(known) == 1 and known[0] > 0:
        figure.update_yaxes(range=[0, 2 * float(known[0])], row=row, col=1)


def _panel_of(name: str) -> str:
    return re.split("[.@]", name)[0]


def spans_decades(values: ArrayLike) -> bool:
    """Tell whether the finite values are positive and span more than a factor of `WIDE_RATIO`."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    return bool(len(known) and known.min() > 0 and known.max() > WIDE_RATIO * known.min())


def _shown(table: Floats, statistic: Statistic[Any]) -> Floats:
    if statistic.name not in ON_LOG_SCALE:
        return table
    return np.where(np.isfinite(table), np.log10(np.maximum(table, SMALLEST)), np.nan)


def _hover(statistic: Statistic[Any]) -> str:
    number = "%{z:.1%}" if statistic.is_share else "%{z:.4g}"
    if statistic.name in ON_LOG_SCALE:
        number = "%{customdata:.4g}"
    return f"<b>%{{y}}</b><br>step %{{x:,.0f}}<br>{statistic.label}: {number}<extra></extra>"


def _colours(table: Floats, statistic: Statistic[Any]) -> dict[str, Any]:
    """Return Plotly's colour settings; the scales themselves are the template's."""
    if statistic.is_share:
        ticks = {0.0: "0 %", 0.25: "25 %", 0.5: "50 %", 0.75: "75 %", 1.0: "100 %"}
        return {"zmin": 0.0, "zmax": 1.0, "colorbar": colour_bar(ticks)}
    known = table[np.isfinite(table)]
    if statistic.name in ON_LOG_SCALE:
        return _log_colours(known[known > 0])
    limit = float(np.quantile(np.abs(known), COLOUR_QUANTILE)) if len(known) else 0.0
    low = -1.0 if len(known) and known.min() < 0 else 0.0
    return {"zmin": low * (limit or 1.0), "zmax": limit or 1.0, "colorbar": colour_bar()}


def _log_colours(positive: Floats) -> dict[str, Any]:
    logs = np.log10(positive) if len(positive) else np.zeros(1)
    low, high = np.quantile(logs, [1 - COLOUR_QUANTILE, COLOUR_QUANTILE]) + np.array([-0.05, 0.05])
    ticks = {
        10.0**k * factor
        for k in range(-8, 9)
        for factor in ((1,) if high - low > MANY_DECADES else (1, 2, 5))
    }
    shown = {math.log10(value): f"{value:g}" for value in sorted(ticks) if low <= math.log10(value) <= high}
    colours = theme.SEQUENTIAL  # not by sign: the numbers are logarithms
    return {"zmin": low, "zmax": high, "colorscale": colours, "colorbar": colour_bar(shown)}
