"""The figures that belong to a run and to a finding: which numbers to draw, which steps to highlight.

No idea of pages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import plotly.graph_objects as go

from actograph.rules.rule import Finding, Severity
from actograph.runlog.view import STATISTICS, RunView
from actograph.show import finding_figures as drawn
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
# Rules whose evidence is neither that nor the loss alone, by the beginning of the rule's name.
FIGURE_OF_RULE: Mapping[str, Callable[[RunView, Finding], go.Figure | None]] = {
    "learning-rate": drawn.loss_with_rate,
    "missing-warmup": drawn.loss_with_rate,
    "momentum": drawn.loss_with_rate,
    "initialization": drawn.depth_profile,
    "missing-normalization": drawn.depth_profile,
    "vanishing-gradients": drawn.depth_profile,
    "head-initialization": drawn.depth_profile,
    "softmax-in-hidden-layer": drawn.depth_profile,
    "inputs": drawn.inputs_over_time,
    "exploding-gradients": drawn.gradient_over_time,
    "clipping": drawn.gradient_over_time,
    "optimizer-epsilon": drawn.gradient_over_time,
}
BY_LAYER = (drawn.depth_profile,)  # these have layers along their axis, not steps
SEVERITY_COLOURS = {
    Severity.NOTE: theme.BLUE,
    Severity.WARNING: theme.ORANGE,
    Severity.ERROR: theme.RED,
}
HIGHLIGHT = 0.14  # opacity: the curve stays readable
FINDING_PX = 230
TWO_PANELS_PX = 330


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
    """Draw what a finding is about, its steps highlighted: what `FIGURE_OF_RULE` says, a layer's statistic, or the loss."""
    draw = next((one for start, one in FIGURE_OF_RULE.items() if finding.rule.startswith(start)), None)
    figure = None if draw is None else draw(view, finding)
    if figure is None:
        figure = run_loss(view) if finding.layer is None else _statistic_curve(view, finding)
        draw = None
    if draw not in BY_LAYER:
        figure.add_shape(
            type="rect", xref="x", yref="paper", x0=finding.first_step - 0.5, x1=finding.last_step + 0.5, y0=0, y1=1,
            fillcolor=SEVERITY_COLOURS[finding.severity], opacity=HIGHLIGHT, line={"width": 0}, layer="below",
        )  # fmt: skip
    panels = sum(1 for name in figure.layout if str(name).startswith("yaxis"))
    return figure.update_layout(height=FINDING_PX if panels <= 1 else TWO_PANELS_PX)


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
