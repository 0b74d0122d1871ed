"""The figures that belong to a run and to a finding: which numbers to draw, which steps to highlight.

No idea of pages.
"""

from __future__ import annotations

import plotly.graph_objects as go

from actograph.rules.rule import Finding, Severity
from actograph.runlog.view import STATISTICS, RunView
from actograph.show import theme
from actograph.show.figures import base_figure, loss_curve, schedule_panels
from actograph.show.series import LOSS, VALID, schedules, training_loss
from actograph.show.timeaxis import STEP_TITLE, boundaries, draw_marks, step_middles

# What shows a rule's evidence best: the first statistic whose key is part of the rule's name.
STATISTIC_OF_RULE = {
    "dead": "dead",
    "saturat": "flat",
    "near-zero": "near_zero",
    "non-finite": "non_finite",
    "sparse": "zeros",
    "": "std",
}
SEVERITY_COLOURS = {
    Severity.NOTE: theme.BLUE,
    Severity.WARNING: theme.ORANGE,
    Severity.ERROR: theme.RED,
}
HIGHLIGHT = 0.14  # opacity: the curve stays readable
FINDING_PX = 230


def run_loss(view: RunView) -> go.Figure:
    """Draw the run's loss, raw and smoothed, and its validation loss."""
    losses, smooth = training_loss(view)
    valid = view.scalar(LOSS, VALID)
    figure = loss_curve(
        losses.steps,
        losses.values,
        smooth,
        valid=(valid.steps, valid.values) if len(valid) else None,
        marks=boundaries(view),
    )
    if losses.first_non_finite is not None:
        _mark_non_finite(figure, losses.first_non_finite)
    return figure


def run_schedule(view: RunView) -> go.Figure:
    """Draw the run's learning rate, momentum and whatever else follows a schedule."""
    curves = {name: (series.steps, series.values) for name, series in schedules(view).items()}
    return schedule_panels(curves, boundaries(view))


def finding_figure(view: RunView, finding: Finding) -> go.Figure:
    """Draw what a finding is about, its steps highlighted: the layer's telling statistic, or the loss."""
    figure = run_loss(view) if finding.layer is None else _statistic_curve(view, finding)
    figure.add_shape(
        type="rect", xref="x", yref="paper", x0=finding.first_step - 0.5, x1=finding.last_step + 0.5, y0=0, y1=1,
        fillcolor=SEVERITY_COLOURS[finding.severity], opacity=HIGHLIGHT, line={"width": 0}, layer="below",
    )  # fmt: skip
    return figure.update_layout(height=FINDING_PX)


def _statistic_curve(view: RunView, finding: Finding) -> go.Figure:
    name = next(statistic for part, statistic in STATISTIC_OF_RULE.items() if part in finding.rule)
    statistic = STATISTICS[name]
    assert finding.layer is not None
    values = view.column(name)[:, view.layer_index(finding.layer)]
    figure = base_figure(go.Figure())
    figure.add_scatter(
        x=step_middles(view), y=values, mode="lines", name=statistic.label, showlegend=False,
        line={"color": SEVERITY_COLOURS[finding.severity], "width": 2},
        hovertemplate="step %{x:,}<br>" + ("%{y:.1%}" if statistic.is_share else "%{y:.4g}") + "<extra></extra>",
    )  # fmt: skip
    if statistic.is_share:
        figure.update_yaxes(range=[-0.03, 1.03], tickformat=".0%")
    figure.update_xaxes(title_text=STEP_TITLE)
    figure.update_yaxes(title_text=statistic.label)
    draw_marks(figure, boundaries(view))
    return figure


def _mark_non_finite(figure: go.Figure, step: int) -> None:
    line = {"color": theme.RED, "width": 1.5}
    figure.add_shape(type="line", xref="x", yref="paper", x0=step, x1=step, y0=0, y1=1, line=line)
    figure.add_annotation(
        xref="x", yref="paper", x=step, y=0, text=f"not finite from step {step:,}", showarrow=False, xanchor="right",
        yanchor="bottom", font={"color": theme.RED, "size": 11},
    )  # fmt: skip
