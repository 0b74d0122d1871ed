"""`GradientStats`: record gradient, weights and update of every parameter at every step.

No idea of hooks, rows or files: `Recording` has those.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from actograph.callbacks.run_callback import RunCallback
from actograph.recording.recording import Recording
from actograph.runlog.store import RunWriter
from actograph.show.parameters import GradientView
from actograph.train.loop import Loop
from actograph.train.step_clip import Clip
from actograph.train.step_wrapper import find_step


class GradientStats(RunCallback):
    """Record each parameter's gradient norm, largest gradient, share of zeros, weight norm and norm of the update.

    Gradients are measured in ``before_step``: complete, unscaled and not clipped; how much of them clipping left is in the
    scalar ``clip_ratio``. Together with `ActivationStats` both record into one run, whose directory, name and budget are
    those of `ActivationStats`. Keeps a copy of the weights.

    Args:
        budget: share of the step time that recording may take, its first second not counted; steps are thinned evenly to
            keep it. None: every step.
        out: run directory; None makes ``runs/<date>-<time>-<name>``, ":memory:" keeps the run in memory.
        name: what to call the run; the model's class when None.
        config: plain data to keep with the run and to show in the report; nothing else of the caller is stored.

    """

    unique = True
    leads: ClassVar[bool] = False
    records_parameters: ClassVar[bool] = True

    def __init__(
        self,
        budget: float | None = 0.03,
        out: str | Path | None = None,
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(budget, out, name, config)

    @property
    def gradients(self) -> GradientView:
        """Statistics and figures of each parameter, as the run is now."""
        return GradientView(self.view)

    def before_step(self, loop: Loop) -> None:
        """Measure the gradients."""
        super().before_step(loop)
        if find_step(loop.step, Clip) is None:  # else whoever leads has just measured them
            self.recording.gradients()

    def _record_into(self, writer: RunWriter) -> Recording:
        return Recording(writer, budget=self.budget, layers=False)
