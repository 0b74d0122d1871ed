"""Figures of one layer: its curves, the colorful dimension, which units fired.

No idea of files or pages, and no numbers of its own: what is drawn is what the run view holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from actograph.layout.row import Floats
from actograph.runlog.view import STATISTICS, RunView
from actograph.show import theme
from actograph.show.figures import MARGIN, base_figure, colour_bar, head_panel, stacked_panels
from actograph.show.spectrum import Spectrum, spectrum
from actograph.show.timeaxis import STEP_TITLE, boundaries, draw_marks, step_edges, step_middles, step_range

PICTURE_HEIGHT_PX = 400
SHARES = {"near_zero": theme.BLUE, "zeros": theme.GREY, "flat": theme.ORANGE, "dead": theme.RED}
RARE_SHARES = {"non_finite": theme.PURPLE}  # drawn only where there is any
# of the legend, short enough for one line on a phone
SHORT_LABELS = {
    "near_zero": "near zero",
    "zeros": "zero",
    "flat": "flat",
    "dead": "dead units",
    "non_finite": "NaN, Inf",
}

Drawn = NDArray[np.float32]


def layer_curves(view: RunView, layer: int | str) -> go.Figure:
    """Draw mean with the 5 % to 95 % range, standard deviation, and shares of one layer above a common step axis."""
    index = view.layer_index(layer)
    names = ("mean", "std", "q05", "q95", *SHARES, *RARE_SHARES)
    values = {name: drawn(view.column(name)[:, index]) for name in names}
    figure = stacked_panels([("mean and 5-95 %", 1.0), ("std", 0.7), ("share", 0.9)])
    steps = drawn(step_middles(view))
    _add_range(figure, steps, values["q05"], values["q95"])
    _add_line(figure, 1, steps, values, "mean", theme.BLUE)
    _add_line(figure, 2, steps, values, "std", theme.GREEN)
    for name, colour in (SHARES | RARE_SHARES).items():
        known = values[name][np.isfinite(values[name])]
        if len(known) and (name in SHARES or known.any()):
            _add_line(figure, 3, steps, values, name, colour)
    figure.update_yaxes(range=[-0.03, 1.03], tickformat=".0%", row=3, col=1)
    figure.update_yaxes(rangemode="tozero", row=2, col=1)
    _legend_below(figure)
    figure.update_xaxes(range=step_range(view))
    draw_marks(figure, boundaries(view))
    return figure


def gradient_curves(gradients: RunView, layer: int | str) -> go.Figure:
    """Draw the root mean square and the largest of the gradients by a layer's output, and the share of zeros in them.

    ``gradients`` is `RunView.gradients`. The first axis is logarithmic: gradients span decades over a training.
    """
    index = gradients.layer_index(layer)
    low, high, rms, zeros, bad = (
        gradients.column(name)[:, index] for name in ("min", "max", "rms", "zeros", "non_finite")
    )
    figure = stacked_panels([("gradient", 1.0), ("share", 0.6)])
    steps = drawn(step_middles(gradients))
    curves = {"largest": (np.fmax(-low, high), theme.GREY), "root mean square": (rms, theme.BLUE)}
    for name, (values, colour) in curves.items():
        figure.add_scatter(
            x=steps, y=drawn(np.where(values > 0, values, np.nan)), mode="lines", name=name, row=1, col=1,
            line={"color": colour, "width": 1.8}, hovertemplate="%{y:.4g}",
        )  # fmt: skip
    figure.update_yaxes(type="log", nticks=5, exponentformat="e", row=1, col=1)
    _add_line(figure, 2, steps, {"zeros": drawn(zeros)}, "zeros", theme.ORANGE)
    if np.nansum(bad) > 0:
        _add_line(figure, 2, steps, {"non_finite": drawn(bad)}, "non_finite", theme.PURPLE)
    figure.update_yaxes(range=[-0.03, 1.03], tickformat=".0%", row=2, col=1)
    _legend_below(figure)
    figure.update_xaxes(range=step_range(gradients))
    draw_marks(figure, boundaries(gradients))
    return figure


def color_dim(view: RunView, layer: int | str, picture: str | None = None) -> go.Figure:
    """Draw the colorful dimension of a layer: its histogram over time, colours for the logarithm of the counts.

    The y axis is logarithmic to both sides of zero; the row about zero holds exact zeros. ``picture`` is an image source
    (`strips.color_strip` of the same layer) to be put into the axes instead of the numbers, for small files.
    """
    rows = spectrum(view, layer)
    figure = base_figure(go.Figure(), height=PICTURE_HEIGHT_PX)
    if not rows.is_empty:
        if picture is None:
            _add_counts(figure, view, rows)
        else:
            _add_picture(figure, step_edges(view), rows, picture)
        ticks = rows.ticks()
        figure.update_yaxes(tickvals=list(ticks), ticktext=list(ticks.values()))
        figure.update_yaxes(range=[rows.edges[0], rows.edges[-1]])
        figure.update_xaxes(range=step_range(view))
    figure.update_xaxes(title_text=STEP_TITLE, showgrid=False)
    figure.update_yaxes(title_text="activation (log scale to both sides)", showgrid=False, zeroline=False)
    head_panel(figure, "values per step")
    draw_marks(figure, boundaries(view))
    return figure


def count_ticks(highest: float) -> dict[float, str]:
    """Return positions (log1p of the count) and labels of the colour bar up to log1p of the highest count."""
    counts = [0, *(10**k for k in range(10))]
    return {float(np.log1p(n)): _in_words(n) for n in counts if np.log1p(n) <= highest}


def drawn(values: Floats) -> Drawn:
    """Return values as they are drawn: half the file size, and a screen has fewer than 2^24 pixels across."""
    with np.errstate(over="ignore"):  # beyond 3e38 a curve leaves every axis
        return values.astype(np.float32)


def _add_counts(figure: go.Figure, view: RunView, rows: Spectrum) -> None:
    shown = np.where(rows.log_counts > 0, rows.log_counts, np.nan)
    described = [f"{low:.3g} to {high:.3g}" for low, high in zip(rows.lows, rows.highs, strict=True)]
    text = np.repeat(np.array(described)[:, None], shown.shape[1], axis=1)
    figure.add_heatmap(
        x=step_edges(view), y=rows.edges, z=shown.astype(np.float32), text=text,
        customdata=np.expm1(rows.log_counts).astype(np.float32), colorscale=theme.SEQUENTIAL, **_count_scale(rows, "z"),
        hovertemplate="step %{x:,.0f}<br>values %{text}<br>%{customdata:,.1f} a step<extra></extra>",
    )  # fmt: skip


def _add_picture(figure: go.Figure, edges: Floats, rows: Spectrum, source: str) -> None:
    figure.add_layout_image(
        source=source, xref="x", yref="y", x=edges[0], y=rows.edges[-1], sizex=edges[-1] - edges[0],
        sizey=rows.edges[-1] - rows.edges[0], sizing="stretch", layer="below",
    )  # fmt: skip
    marker = {"color": [0.0], "colorscale": theme.SEQUENTIAL, "showscale": True, **_count_scale(rows, "c")}
    figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, showlegend=False, hoverinfo="skip")


def _count_scale(rows: Spectrum, letter: str) -> dict[str, Any]:
    highest = float(rows.log_counts.max())
    bar = colour_bar(count_ticks(highest))
    return {f"{letter}min": 0.0, f"{letter}max": highest, "colorbar": bar}


def _legend_below(figure: go.Figure) -> None:
    legend = {
        "yref": "container",
        "y": 0,
        "yanchor": "bottom",
        "x": 0,
        "xanchor": "left",
        "traceorder": "normal",
    }
    figure.update_layout(legend=legend, hovermode="x unified", margin=MARGIN | {"b": 84})


def _add_range(figure: go.Figure, steps: Drawn, low: Drawn, high: Drawn) -> None:
    hidden = {"width": 0}
    figure.add_scatter(
        x=steps, y=low, mode="lines", line=hidden, showlegend=False, name="5 %", row=1, col=1,
        hovertemplate="%{y:.4g}",
    )  # fmt: skip
    figure.add_scatter(
        x=steps, y=high, mode="lines", line=hidden, fill="tonexty", fillcolor="rgba(58,127,196,0.2)",
        showlegend=False, name="95 %", row=1, col=1, hovertemplate="%{y:.4g}",
    )  # fmt: skip


def _add_line(
    figure: go.Figure, row: int, steps: Drawn, values: Mapping[str, Drawn], name: str, colour: str
) -> None:
    statistic = STATISTICS[name]
    number = "%{y:.1%}" if statistic.is_share else "%{y:.4g}"
    figure.add_scatter(
        x=steps, y=values[name], mode="lines", name=SHORT_LABELS.get(name, statistic.label), row=row, col=1,
        line={"color": colour, "width": 1.8}, hovertemplate=number, showlegend=statistic.is_share,
    )  # fmt: skip


def _in_words(count: int) -> str:
    for unit, suffix in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count // unit}{suffix}"
    return str(count)
