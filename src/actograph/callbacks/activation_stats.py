"""`ActivationStats`: record every layer of a Learner's model at every step.

No idea of hooks, rows or files: `Recording` has those.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from actograph.callbacks.run_callback import RunCallback
from actograph.hooks.functional import AUTO, Functional, check_functional
from actograph.hooks.leaves import Select
from actograph.recording.recording import Recording
from actograph.runlog.store import RunWriter
from actograph.show.activations import ActivationView
from actograph.train.loop import Loop
from actograph.train.step_precision import MixedPrecision
from actograph.train.step_wrapper import find_step


class ActivationStats(RunCallback):
    """Record mean, std, near-zero share, extremes, zeros, non-finite values and histogram of each layer's output.

    Several fits of one Learner go on in one run, told apart by their events. After training the numbers are in
    ``learn.activation_stats``, and in ``open_run(path).activation_stats`` from any process.

    Args:
        select: which layers: a pattern on names, a module class, a predicate (name, module), or a list; None: all leaves.
        budget: share of the step time that recording may take, its first second not counted; steps are thinned evenly to
            keep it. None: every step.
        out: run directory; None makes ``runs/<date>-<time>-<name>``, ":memory:" keeps the run in memory.
        name: what to call the run; the model's class when None.
        config: plain data to keep with the run and to show in the report; nothing else of the caller is stored.
        grad: whether to record the gradients of the loss by these outputs too: ``learn.activation_stats.gradients``.
        functional: whether to record activations called as functions (``F.relu``), which slows each call of torch in the
            forward by some microseconds; "auto" does if the first training forward has some.

    """

    unique = True
    leads: ClassVar[bool] = True
    records_parameters: ClassVar[bool] = False

    def __init__(
        self,
        select: Select | None = None,
        budget: float | None = 0.03,
        out: str | Path | None = None,
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
        *,
        grad: bool = False,
        functional: Functional = AUTO,
    ) -> None:
        super().__init__(budget, out, name, config)
        self.select = select
        self.grad = grad
        self.functional = check_functional(functional)
        self._precision: MixedPrecision | None = None

    @property
    def activations(self) -> ActivationView:
        """Statistics and figures of each layer, as the run is now."""
        return ActivationView(self.view)

    def before_fit(self, loop: Loop) -> None:
        """Begin the run, or go on with it; ``validate()`` alone records nothing."""
        super().before_fit(loop)
        self._precision = find_step(loop.step, MixedPrecision) if self.grad else None

    def after_loss(self, loop: Loop) -> None:
        """Note the training loss, and what it is going to be multiplied with."""
        super().after_loss(loop)
        if self._is_fitting and self._precision is not None:
            self.recording.loss_scale = self._precision.scale

    def _record_into(self, writer: RunWriter) -> Recording:
        return Recording(
            writer, select=self.select, budget=self.budget, grad=self.grad, functional=self.functional
        )
