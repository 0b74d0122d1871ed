"""`GradientView`: what every parameter's gradient and update did, in numbers and figures, during training and after.

No idea of hooks or files: it reads a run view.
"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from actograph.layout.row import Floats
from actograph.runlog.parameters import PARAMETER_STATISTICS
from actograph.runlog.scalars import ScalarSeries
from actograph.runlog.view import RunView
from actograph.show import theme
from actograph.show.figures import draw_map, stacked_panels
from actograph.show.timeaxis import boundaries, draw_marks, step_edges, step_middles

GRAD_NORM, CLIP_RATIO = "grad_norm", "clip_ratio"
LOG_SPACE = 1.1  # factor left free above and below a curve on a logarithmic axis


class GradientView:
    """The recorded parameters of a run. A parameter is given by position (negative too) or by name."""

    def __init__(self, view: RunView) -> None:
        self.view = view

    def __len__(self) -> int:
        return len(self.view.parameters.parameters)

    @property
    def names(self) -> list[str]:
        """Names of the parameters."""
        return self.view.parameters.names

    @property
    def steps(self) -> Floats:
        """Step of each recorded bucket (T,): the middle one where old steps have merged."""
        return step_middles(self.view.parameters)

    def column(self, parameter: int | str, statistic: str = GRAD_NORM) -> Floats:
        """Return one of `PARAMETER_STATISTICS` of a parameter over time (T,); NaN where it is not defined."""
        parameters = self.view.parameters
        return parameters.column(statistic)[:, parameters.index(parameter)]

    @property
    def total_norm(self) -> ScalarSeries:
        """Norm of all gradients together, at every recorded step."""
        return self.view.scalar(GRAD_NORM)

    @property
    def clip_ratio(self) -> ScalarSeries:
        """Norm of the gradients that the optimizer used over their norm before clipping; 1 where nothing was clipped."""
        return self.view.scalar(CLIP_RATIO)

    def plot_norm(self) -> go.Figure:
        """Draw the norm of all gradients together, and the clip ratio where gradients were clipped."""
        return gradient_norm(self.view)

    def plot(self, statistic: str = "update_ratio") -> go.Figure:
        """Draw one of `PARAMETER_STATISTICS` for all parameters over time; "update_ratio" and "grad_norm" tell most."""
        return parameter_map(self.view, statistic)


def parameter_map(view: RunView, statistic: str) -> go.Figure:
    """Draw one of `PARAMETER_STATISTICS` for all parameters (rows) over time (columns of true width)."""
    parameters = view.parameters
    table = parameters.column(statistic)
    described = PARAMETER_STATISTICS[statistic]
    return draw_map(table, parameters.names, step_edges(parameters), described, boundaries(view))


def gradient_norm(view: RunView) -> go.Figure:
    """Draw the norm of all gradients together, and below it the clip ratio where it was ever less than 1."""
    norm, ratio = view.scalar(GRAD_NORM), view.scalar(CLIP_RATIO)
    was_clipped = bool((ratio.low < 1.0).any())
    figure = stacked_panels([("gradient norm", 1.0), *([("clip ratio", 0.6)] if was_clipped else [])])
    _add_curve(figure, 1, norm, theme.BLUE, "%{y:.4g}")
    figure.update_yaxes(type="log", range=_log_range(norm.values), row=1, col=1)
    if was_clipped:
        _add_curve(figure, 2, ratio, theme.ORANGE, "%{y:.3f}")
        figure.update_yaxes(range=[-0.03, 1.03], row=2, col=1)
    draw_marks(figure, boundaries(view))
    return figure


def _add_curve(figure: go.Figure, row: int, series: ScalarSeries, colour: str, number: str) -> None:
    figure.add_scatter(
        x=series.steps, y=series.values, mode="lines", line={"color": colour, "width": 1.8}, row=row, col=1,
        showlegend=False, hovertemplate=f"step %{{x:,}}<br>{number}<extra></extra>",
    )  # fmt: skip


def _log_range(values: Floats) -> list[float] | None:
    known = values[np.isfinite(values) & (values > 0)]
    if not len(known):
        return None
    return [float(np.log10(known.min() / LOG_SPACE)), float(np.log10(known.max() * LOG_SPACE))]
