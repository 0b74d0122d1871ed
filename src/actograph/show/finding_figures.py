"""Figures for findings that neither the loss nor one layer's statistic shows: rate, depth, inputs, gradients.

No idea of rules: `evidence` says which finding gets which figure. Each returns None where the run lacks what it draws.
"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from actograph.layout.row import Floats
from actograph.rules.rule import Finding
from actograph.runlog.scalars import ScalarSeries
from actograph.runlog.view import RunView
from actograph.show import theme
from actograph.show.figures import base_figure, short_name, spans_decades, stacked_panels
from actograph.show.series import LOSS, training_loss
from actograph.show.timeaxis import STEP_TITLE, boundaries, draw_marks

RATE = "lr"
INPUT = "input"  # phase of the scalars about a model's input
STEP_HOVER = "step %{x:,}<br>%{y:.4g}"


def loss_with_rate(view: RunView, _: Finding) -> go.Figure | None:
    """Draw the loss above the learning rate, with a common step axis."""
    return _below_loss(view, "learning rate", view.scalar(RATE), theme.GREEN)


def inputs_over_time(view: RunView, _: Finding) -> go.Figure | None:
    """Draw mean and extremes of the model's input at each step where they were measured."""
    names = {"mean": theme.BLUE, "min": theme.GREY, "max": theme.GREY}
    found = {name: view.scalar(name, INPUT) for name in names}
    if not len(found["mean"]):
        return None
    figure = base_figure(go.Figure())
    for name, series in found.items():
        line = {"color": names[name], "width": 2 if name == "mean" else 1}
        figure.add_scatter(
            x=series.steps, y=series.values, name=name, mode="lines", line=line, hovertemplate=STEP_HOVER
        )
    figure.update_xaxes(title_text=STEP_TITLE).update_yaxes(title_text="input of the model")
    draw_marks(figure, boundaries(view))
    return figure


def gradient_over_time(view: RunView, _: Finding) -> go.Figure | None:
    """Draw the loss above the norm of the whole gradient, from the parameters' norms."""
    norms = view.parameters.column("grad_norm")
    if not norms.size:
        return None
    whole = np.sqrt(np.nansum(norms**2, axis=1))
    steps = view.parameters.first_steps.astype(np.float64)
    series = ScalarSeries(steps, whole, whole, whole)
    return _below_loss(view, "gradient norm", series, theme.PURPLE)


def depth_profile(view: RunView, finding: Finding) -> go.Figure | None:
    """Draw the spread of every layer's output, input first, at the finding's first step; its own layer stands out."""
    if not view.layers or not len(view.buckets):
        return None
    position = int(np.clip(np.searchsorted(view.first_steps, finding.first_step), 0, len(view.buckets) - 1))
    values: Floats = view.column("std")[position]
    names = [layer.name for layer in view.layers]
    colours = [theme.RED if name == finding.layer else theme.BLUE for name in names]
    figure = base_figure(go.Figure())
    figure.add_bar(
        x=list(range(len(names))), y=values, marker={"color": colours}, customdata=names, showlegend=False,
        hovertemplate="<b>%{customdata}</b><br>standard deviation %{y:.4g}<extra></extra>",
    )  # fmt: skip
    labels = [short_name(name) for name in names]
    figure.update_xaxes(tickvals=list(range(len(names))), ticktext=labels, title_text="layers, input first")
    is_wide = spans_decades(values[values > 0])
    title = f"standard deviation at step {int(view.first_steps[position]):,}"
    return figure.update_yaxes(title_text=title, type="log" if is_wide else "linear")


def _below_loss(view: RunView, title: str, series: ScalarSeries, colour: str) -> go.Figure | None:
    losses, smooth = training_loss(view)
    if not len(losses) or not len(series):
        return None
    figure = stacked_panels([(LOSS, 1.0), (title, 1.0)])
    line = {"color": theme.BLUE, "width": 1}
    figure.add_scatter(
        x=losses.steps, y=losses.values, mode="lines", line=line, opacity=0.4, showlegend=False, name="loss",
        hovertemplate=STEP_HOVER, row=1, col=1,
    )  # fmt: skip
    figure.add_scatter(
        x=losses.steps, y=smooth, mode="lines", line=line | {"width": 2.2}, showlegend=False, name="loss, smoothed",
        hovertemplate=STEP_HOVER, row=1, col=1,
    )  # fmt: skip
    figure.add_scatter(
        x=series.steps, y=series.values, mode="lines", line={"color": colour, "width": 2}, showlegend=False, name=title,
        hovertemplate=STEP_HOVER, row=2, col=1,
    )  # fmt: skip
    for row, values in ((1, losses.values), (2, series.values)):
        figure.update_yaxes(type="log" if spans_decades(values) else "linear", row=row, col=1)
    draw_marks(figure, boundaries(view))
    return figure
