"""`open_run`: a run as a user looks at it after training, in any process.

No idea of training.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import plotly.graph_objects as go

from actograph.rules.diagnose import diagnose
from actograph.rules.rule import Diagnosis
from actograph.runlog.reader import read_run
from actograph.runlog.view import RunView
from actograph.show.activations import ActivationView
from actograph.show.evidence import run_loss, run_schedule
from actograph.show.find import find_run
from actograph.show.parameters import GradientView
from actograph.show.report import write_report

REPORT = "report.html"


def open_run(path: Path | str) -> Run:
    """Open a run by path or by name below ``runs``.

    Raises RunNotFoundError.
    """
    directory = find_run(path)
    return Run(directory, read_run(directory))


class Run:
    """A recorded run: its numbers, findings and figures. It shows the moment at which it was opened."""

    def __init__(self, path: Path, view: RunView) -> None:
        self.path = path
        self.view = view

    @property
    def activation_stats(self) -> ActivationView:
        """What every layer's output did."""
        return ActivationView(self.view)

    @property
    def gradient_stats(self) -> GradientView:
        """What every parameter's gradient, weights and update did; without parameters where none were recorded."""
        return GradientView(self.view)

    @cached_property
    def _diagnosis(self) -> Diagnosis:
        return diagnose(self.view)

    def diagnosis(self) -> Diagnosis:
        """Return what is wrong, where, since when, and what to do about it."""
        return self._diagnosis

    def plot_loss(self) -> go.Figure:
        """Draw the loss, raw and smoothed, and the validation loss."""
        return run_loss(self.view)

    def plot_sched(self) -> go.Figure:
        """Draw learning rate, momentum and whatever else follows a schedule."""
        return run_schedule(self.view)

    def report(self, path: Path | str | None = None) -> Path:
        """Write the report, by default into the run's directory, and return its path."""
        return write_report(self.view, self.diagnosis(), Path(path) if path else self.path / REPORT)
