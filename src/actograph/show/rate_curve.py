"""The curve of a learning-rate range test, as a figure and as a few lines of text.

No idea of how it was measured, nor of what makes a rate a good one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import plotly.graph_objects as go

from actograph.layout.row import Floats
from actograph.show import theme
from actograph.show.figures import base_figure
from actograph.show.rate_picture import height_of_fall

FALL_SHARE = 0.4  # of the axis, at least: a loss that blows up leaves the panel
ROOM = 0.08  # of the span, above and below
SYMBOLS = ("circle", "diamond", "square", "triangle-up")


def rate_curve(
    rates: Floats,
    losses: Floats,
    smoothed: Floats,
    suggestions: Mapping[str, float],
    repeats: Iterable[tuple[Floats, Floats]] = (),
) -> go.Figure:
    """Draw losses, raw and smoothed, over the rates (all (n,)), and mark the suggested rates on the smoothed curve.

    ``repeats`` are rates and smoothed losses of single tests, drawn thin. What blows up leaves the panel.
    """
    figure = base_figure(go.Figure())
    hover = "rate %{x:.2g}<br>%{y:.4g}"
    for one_rates, one_losses in repeats:
        figure.add_scatter(
            x=one_rates, y=one_losses, mode="lines", line={"color": theme.GREY, "width": 1}, opacity=0.6,
            showlegend=False, hoverinfo="skip",
        )  # fmt: skip
    figure.add_scatter(
        x=rates, y=losses, name="loss", mode="lines", line={"color": theme.BLUE, "width": 1}, opacity=0.4,
        hovertemplate=hover,
    )  # fmt: skip
    figure.add_scatter(
        x=rates, y=smoothed, name="smoothed", mode="lines", line={"color": theme.BLUE, "width": 2.2},
        hovertemplate=hover,
    )  # fmt: skip
    for (name, rate), colour, symbol in zip(suggestions.items(), theme.LINES[1:], SYMBOLS, strict=False):
        figure.add_scatter(
            x=[rate], y=[loss_at(rate, rates, smoothed)], name=f"{name} {rate:.2g}", mode="markers", hovertemplate=hover,
            marker={"color": colour, "size": 11, "symbol": symbol},
        )  # fmt: skip
    figure.update_xaxes(title_text="learning rate", type="log", exponentformat="power", dtick=1)
    figure.update_yaxes(title_text="loss", range=_span(losses, smoothed))
    return figure


def loss_at(rate: float, rates: Floats, smoothed: Floats) -> float:
    """Return the height of a curve at one rate, between two points straight in the rate's logarithm."""
    known = np.isfinite(smoothed)
    return float(np.interp(np.log(rate), np.log(rates[known]), smoothed[known]))


def _span(losses: Floats, smoothed: Floats) -> list[float] | None:
    """Return the ends of the axis; None leaves them to Plotly."""
    known = smoothed[np.isfinite(smoothed)]
    if not len(known) or not np.ptp(known):
        return None
    low, fall_top = float(min(known.min(), losses[np.isfinite(losses)].min())), height_of_fall(known)
    high = min(float(known.max()), low + (fall_top - low) / FALL_SHARE)
    room = ROOM * (high - low)
    return [low - room, high + room]
