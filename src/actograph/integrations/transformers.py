"""`ActographCallback` for Hugging Face's Trainer: phases, epochs and the evaluation's metrics beside what every layer did.

No idea of how anything is recorded: `TrainerRun` has that.
"""

from __future__ import annotations

import math
from typing import Any, Unpack

from actograph.integrations.trainer_run import VALID, TrainerRun, WatchOptions, missing, without
from actograph.recording.recording import TRAIN
from actograph.runlog.view import RunView

try:
    from accelerate.optimizer import AcceleratedOptimizer
    from transformers import TrainerCallback
except ImportError as error:
    raise missing("transformers", "transformers[torch]", error) from error

TIMES = ("runtime", "per_second", "preparation_time")  # metrics that end so are no metrics of the model


class ActographCallback(TrainerCallback):
    """Record a training: ``Trainer(..., callbacks=[ActographCallback()])``; the options are those of `actograph.watch`."""

    def __init__(self, **options: Unpack[WatchOptions]) -> None:
        self._run = TrainerRun(options)

    @property
    def view(self) -> RunView:
        """The run of the latest training as it is now; a UsageError before the first one."""
        return self._run.view

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **_: Any
    ) -> None:
        """Begin the run."""
        inner = optimizer.optimizer if isinstance(optimizer, AcceleratedOptimizer) else optimizer
        self._run.begin(model, inner)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note where an epoch begins, and where training goes on after an evaluation in its midst."""
        self._run.phase(TRAIN, epoch=int(state.epoch or 0))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell evaluation from training: it is about to come."""
        if control.should_evaluate:
            self.on_prediction_step(args, state, control)

    on_epoch_end = on_step_end

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell evaluation from training where nobody has announced it."""
        self._run.phase(VALID, epoch=max(math.ceil(state.epoch or 0) - 1, 0))

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        """Note what the evaluation has found."""
        found = without("eval_", metrics or {})
        self._run.note({name: value for name, value in found.items() if not name.endswith(TIMES)})

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """End the run."""
        self._run.end()
