"""The figures studies have in common: values with their intervals, and curves with bands over a quantity.

No idea of trials, and nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from actograph.show import theme
from actograph.show.figures import HEIGHT, base_figure
from actograph.study.estimate import Estimate

MARKER_PX = 9
ROW_PX, FRAME_PX = 34, 110  # of a row of `intervals`, and of what is around them
BAND_OPACITY = 0.15


def intervals(estimates: Mapping[str, Estimate], axis: str, *, is_log: bool = False) -> go.Figure:
    """Draw a row for each name: the value, and its interval as a bar; names from top to bottom."""
    figure = base_figure(go.Figure(), height=ROW_PX * len(estimates) + FRAME_PX)
    known = [one if one.is_known else None for one in estimates.values()]
    figure.add_scatter(
        x=[one.value for one in estimates.values()],
        y=list(estimates),
        mode="markers",
        marker={"size": MARKER_PX, "color": theme.BLUE},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [0.0 if one is None else one.high - one.value for one in known],
            "arrayminus": [0.0 if one is None else one.value - one.low for one in known],
        },
        hovertemplate="%{y}: %{x:.4g}<extra></extra>",
    )
    figure.update_xaxes(title_text=axis, type="log" if is_log else "linear")
    return figure.update_yaxes(autorange="reversed", automargin=True)


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[Estimate]]],
    x_axis: str,
    y_axis: str,
    *,
    is_log_x: bool = False,
    is_log_y: bool = False,
) -> go.Figure:
    """Draw a line for each name, given as x and estimates of equal length, with a band where the intervals are."""
    figure = base_figure(go.Figure(), height=HEIGHT)
    for position, (name, (xs, estimates)) in enumerate(series.items()):
        colour = theme.LINES[position % len(theme.LINES)]
        _add_band(figure, name, xs, estimates, colour)
        figure.add_scatter(
            x=list(xs),
            y=[one.value for one in estimates],
            name=name,
            legendgroup=name,
            mode="lines+markers",
            line={"color": colour, "width": 2},
            hovertemplate="%{x:.4g}: %{y:.4g}",
        )
    figure.update_xaxes(title_text=x_axis, type="log" if is_log_x else "linear")
    return figure.update_yaxes(title_text=y_axis, type="log" if is_log_y else "linear")


def _add_band(
    figure: go.Figure, name: str, xs: Sequence[float], estimates: Sequence[Estimate], colour: str
) -> None:
    known = [(x, one) for x, one in zip(xs, estimates, strict=True) if one.is_known]
    if not known:
        return
    figure.add_scatter(
        x=[x for x, _ in known] + [x for x, _ in reversed(known)],
        y=[one.high for _, one in known] + [one.low for _, one in reversed(known)],
        name=name,
        legendgroup=name,
        mode="none",
        fill="toself",
        fillcolor=colour,
        opacity=BAND_OPACITY,
        showlegend=False,
        hoverinfo="skip",
    )
