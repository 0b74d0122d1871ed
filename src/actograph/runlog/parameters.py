"""`ParameterView`: what was recorded of a run's parameters as numpy columns.

No idea of files or torch. As in `view`, numbers are derived here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from actograph.errors import UsageError
from actograph.layout.parameter import ParameterField, ParameterInfo, empty_parameter_rows
from actograph.layout.row import Floats
from actograph.runlog.buckets import ParameterBucket, with_all_parameters
from actograph.runlog.names import position_of
from actograph.runlog.statistic import Statistic, ratio
from actograph.runlog.timeaxis import TimeAxis


@dataclass(frozen=True)
class ParameterView(TimeAxis[ParameterBucket]):
    """Gradients, weights and updates of each parameter over time. Axes: T buckets in time order, P parameters."""

    parameters: tuple[ParameterInfo, ...] = ()
    buckets: tuple[ParameterBucket, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "buckets", tuple(with_all_parameters(self.buckets)))

    @property
    def names(self) -> list[str]:
        """Qualified names of the parameters."""
        return [parameter.name for parameter in self.parameters]

    @cached_property
    def rows(self) -> Floats:
        """Rows (T, P, NUM_PARAMETER_FIELDS)."""
        if not self.buckets:
            return empty_parameter_rows(0, len(self.parameters))
        return np.stack([bucket.rows for bucket in self.buckets])

    def index(self, parameter: int | str) -> int:
        """Return the position of a parameter given by position (negative too) or name; UsageError if there is none."""
        return position_of(parameter, self.names, "parameter")

    def column(self, name: str) -> Floats:
        """Return one of `PARAMETER_STATISTICS` for all parameters over time: (T, P), NaN where it is not defined."""
        if name not in PARAMETER_STATISTICS:
            raise UsageError(f"no statistic {name!r}: choose one of {', '.join(PARAMETER_STATISTICS)}")
        return PARAMETER_STATISTICS[name].derive(self)

    def first_step(self, parameter: int | str, what: ParameterField) -> int | None:
        """Return the exact first step of one of the ``FIRST_...`` fields, None if it never came to that."""
        first = self.rows[:, self.index(parameter), what].min(initial=np.inf)
        return int(first) if np.isfinite(first) else None


def _sum(view: ParameterView, field: ParameterField) -> Floats:
    column: Floats = view.rows[..., field]
    return column


def _mean(
    part: ParameterField, whole: ParameterField, label: str, *, is_share: bool = False
) -> Statistic[ParameterView]:
    """Return the statistic of a sum over the steps that it is a sum over."""
    name = part.name.lower()
    return Statistic(name, label, lambda view: ratio(_sum(view, part), _sum(view, whole)), is_share)


def _grad_max(view: ParameterView) -> Floats:
    largest = _sum(view, ParameterField.GRAD_MAX)
    return np.where(np.isfinite(largest), largest, np.nan)


def _update_ratio(view: ParameterView) -> Floats:
    return ratio(_sum(view, ParameterField.UPDATE_NORM), _sum(view, ParameterField.WEIGHT_NORM))


def _missing(view: ParameterView) -> Floats:
    steps = _sum(view, ParameterField.STEPS)
    there = _sum(view, ParameterField.FINITE) + _sum(view, ParameterField.NON_FINITE)
    return ratio(steps - there, steps)


PARAMETER_STATISTICS: Mapping[str, Statistic[ParameterView]] = {
    statistic.name: statistic
    for statistic in (
        _mean(ParameterField.GRAD_NORM, ParameterField.FINITE, "gradient norm"),
        Statistic("grad_max", "largest |gradient|", _grad_max),
        _mean(
            ParameterField.GRAD_ZEROS, ParameterField.FINITE, "share of zeros in the gradient", is_share=True
        ),
        _mean(ParameterField.WEIGHT_NORM, ParameterField.MOVED, "weight norm"),
        _mean(ParameterField.UPDATE_NORM, ParameterField.MOVED, "update norm"),
        Statistic("update_ratio", "update norm / weight norm", _update_ratio),
        Statistic("missing", "share of steps without a gradient", _missing, is_share=True),
        _mean(
            ParameterField.NON_FINITE, ParameterField.STEPS, "share of steps with NaN or Inf", is_share=True
        ),
        _mean(
            ParameterField.ZERO_UPDATES, ParameterField.STEPS, "share of steps without effect", is_share=True
        ),
    )
}
