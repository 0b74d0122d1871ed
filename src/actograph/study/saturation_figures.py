"""The figures of the saturation study.

No idea of trials, and nothing is computed here but means over the seeds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from actograph.show import theme
from actograph.show.figures import HEIGHT, base_figure
from actograph.study.study import Results

PANELS = {
    "tails_start": "share in the saturated tails",
    "zero_start": "share flat at zero",
    "near_zero_start": "share near zero",
    "ratio_start": "log10 of gradient, first / last block",
}
PANELS_HEIGHT = 620
MARKER_PX = 9


def suspects(results: Results) -> go.Figure:
    """Draw the accuracy of each network against four numbers of its first step; one colour for each activation."""
    figure = make_subplots(rows=2, cols=2, shared_yaxes=True, vertical_spacing=0.14, horizontal_spacing=0.05)
    base_figure(figure, height=PANELS_HEIGHT)
    for name, colour in _colours(results).items():
        chosen = [one for one in results.variants if _options(results, one)["act"] == name]
        for position, (column, title) in enumerate(PANELS.items()):
            row, col = divmod(position, 2)
            figure.add_scatter(
                x=[results.mean(one, column).value for one in chosen],
                y=[results.mean(one, "accuracy").value for one in chosen],
                text=chosen,
                name=name,
                legendgroup=name,
                showlegend=position == 0,
                mode="markers",
                marker={
                    "size": MARKER_PX,
                    "color": colour,
                    "symbol": [_symbol(_options(results, one)) for one in chosen],
                },
                hovertemplate="%{text}<br>%{x:.3g}: %{y:.3f}",
                row=row + 1,
                col=col + 1,
            )
            figure.update_xaxes(title_text=title, row=row + 1, col=col + 1)
    figure.update_yaxes(title_text="accuracy", col=1)
    legend = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.01, "yanchor": "bottom"}
    return figure.update_layout(legend=legend, margin_t=50)


def by_block(results: Results, column: str, depth: int, title: str, *, is_log: bool = True) -> go.Figure:
    """Draw a number of each block, mean over the seeds, of the networks of one depth; dashed with BatchNorm."""
    figure = base_figure(go.Figure(), height=HEIGHT)
    for name, colour in _colours(results).items():
        for variant in results.variants:
            options = _options(results, variant)
            if (options["act"], options["depth"]) != (name, depth) or options["start"] is not None:
                continue
            values = np.array([values[column] for values in results.of(variant).values()])  # (seeds, blocks)
            figure.add_scatter(
                x=list(range(1, depth + 1)),
                y=values.mean(axis=0),
                name=name,
                legendgroup=name,
                showlegend=options["norm"] is None,
                mode="lines",
                line={"color": colour, "width": 2, "dash": "solid" if options["norm"] is None else "dash"},
                hovertemplate="block %{x}: %{y:.3g}",
            )
    figure.update_xaxes(title_text="block, the first is next to the image")
    figure.update_yaxes(title_text=title, type="log" if is_log else "linear", exponentformat="power")
    legend = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.01, "yanchor": "bottom"}
    return figure.update_layout(legend=legend, margin_t=50)


def _options(results: Results, variant: str) -> dict[str, Any]:
    return dict(next(one.trial.options for one in results.outcomes if one.trial.variant == variant))


def _colours(results: Results) -> dict[str, str]:
    names = list(dict.fromkeys(_options(results, one)["act"] for one in results.variants))
    return dict(zip(names, theme.LINES, strict=False))


def _symbol(options: dict[str, Any]) -> str:
    if options["norm"] is not None:
        return "circle-open"
    return {None: "circle", 1.0: "cross", 10.0: "x"}[options["start"]]
