"""`ActivationStats`: record every layer of a Learner's model at every step.

No idea of hooks, rows or files: `Recording` has those. This only says when what happens.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actograph.errors import UsageError
from actograph.hooks.leaves import Select
from actograph.recording.pacing import check_budget
from actograph.recording.recording import Recording, check_unattached, status_after
from actograph.recording.watch import new_run
from actograph.runlog.view import RunView
from actograph.show.activations import ActivationView
from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop
from actograph.train.state import Phase


class ActivationStats(Callback):
    """Record mean, std, near-zero share, extremes, zeros, non-finite values and histogram of each layer's output.

    Several fits of one Learner go on in one run, told apart by their events. After training the numbers are in
    ``learn.activation_stats``, and in ``open_run(path).activation_stats`` from any process.

    Args:
        select: which layers: a pattern on names, a module class, a predicate (name, module), or a list; None: all leaves.
        budget: share of the step time that recording may take; steps are thinned evenly to keep it. None: every step.
        out: run directory; None makes ``runs/<date>-<time>-<name>``, ":memory:" keeps the run in memory.
        name: what to call the run; the model's class when None.
        config: plain data to keep with the run and to show in the report; nothing else of the caller is stored.

    """

    stage = Stage.MEASURE
    unique = True

    def __init__(
        self,
        select: Select | None = None,
        budget: float | None = 0.03,
        out: str | Path | None = None,
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.select = select
        self.budget = check_budget(budget)
        self.out = out
        self.name = name
        self.config = dict(config or {})
        self._recording: Recording | None = None
        self._num_fits = 0
        self._is_fitting = False

    @property
    def recording(self) -> Recording:
        """The recording of all fits so far; a UsageError before the first one."""
        if self._recording is None:
            raise UsageError("nothing is recorded yet: ActivationStats begins with the first fit")
        return self._recording

    @property
    def view(self) -> RunView:
        """The run as it is now."""
        return self.recording.view()

    @property
    def activations(self) -> ActivationView:
        """Statistics and figures of each layer, as the run is now."""
        return ActivationView(self.view)

    def before_fit(self, loop: Loop) -> None:
        """Begin the run, or go on with it; ``validate()`` alone records nothing."""
        if not loop.progress.num_epochs:
            return
        if self._recording is None:
            self._recording = self._begin(loop)
        self._is_fitting = True
        self._num_fits += 1
        self._recording.attach(loop.model)
        self._recording.optimizer(loop.optimizer)

    def before_phase(self, loop: Loop) -> None:
        """Tell training from validation."""
        if self._is_fitting:
            progress = loop.progress
            self.recording.phase(str(progress.phase), fit=self._num_fits - 1, epoch=progress.epoch)

    def after_loss(self, loop: Loop) -> None:
        """Note the training loss."""
        if self._is_fitting and loop.progress.phase is Phase.TRAIN:
            self.recording.loss(loop.batch.loss)

    def after_phase(self, loop: Loop) -> None:
        """Note what the epoch was worth."""
        if self._is_fitting and loop.progress.phase is Phase.VALID:
            values = loop.values
            metrics = {key: value for key, value in values.items() if key not in ("train_loss", "valid_loss")}
            self.recording.step(
                **({"loss": values["valid_loss"]} if "valid_loss" in values else {}), **metrics
            )

    def cleanup_fit(self, loop: Loop) -> None:
        """Take the hooks off and store the rest, however the fit ended."""
        if self._is_fitting:
            self._is_fitting = False
            stopped = "stopped" if loop.stop_reason is not None else None
            self.recording.close(stopped or status_after(sys.exc_info()[0]))

    def _begin(self, loop: Loop) -> Recording:
        check_unattached(loop.model)
        name = self.name or type(loop.model).__name__.lower()
        config = {
            "model": type(loop.model).__name__,
            "num_parameters": sum(parameter.numel() for parameter in loop.model.parameters()),
            "optimizer": type(loop.optimizer).__name__,
            **self.config,
        }
        return Recording(
            new_run(name, self.out, str(loop.device), config), select=self.select, budget=self.budget
        )
