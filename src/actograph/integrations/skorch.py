"""`ActographCallback` for skorch: phases, epochs and the validation's metrics beside what every layer did.

No idea of how anything is recorded: `TrainerRun` has that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actograph.hooks.functional import AUTO, Functional
from actograph.hooks.leaves import Select
from actograph.integrations.trainer_run import VALID, TrainerRun, missing, without
from actograph.recording.recording import TRAIN
from actograph.runlog.view import RunView

try:
    from skorch.callbacks import Callback
except ImportError as error:
    raise missing("skorch", "skorch", error) from error


class ActographCallback(Callback):
    """Record a net's training: ``NeuralNetClassifier(Module, callbacks=[ActographCallback()])``.

    The arguments are those of `actograph.watch`, attributes of the same names as scikit-learn asks for; each fit is a run.
    """

    def __init__(
        self,
        out: str | Path | None = None,
        name: str | None = None,
        select: Select | None = None,
        budget: float | None = 0.03,
        functional: Functional = AUTO,
        *,
        grad: bool = False,
        gradients: bool = False,
    ) -> None:
        self.out = out
        self.name = name
        self.select = select
        self.budget = budget
        self.functional = functional
        self.grad = grad
        self.gradients = gradients

    def initialize(self) -> ActographCallback:
        """Take the arguments as they are now."""
        self.run_ = TrainerRun(self.get_params(deep=False))
        return self

    def _get_param_names(self) -> list[str]:
        return ["out", "name", "select", "budget", "functional", "grad", "gradients"]

    @property
    def view(self) -> RunView:
        """The run of the latest fit as it is now; a UsageError before the first one."""
        return self.run_.view

    def on_train_begin(self, net: Any, X: object = None, y: object = None, **_: object) -> None:  # noqa: N803  skorch's
        """Begin the run."""
        self.run_.begin(net.module_, net.optimizer_)

    def on_batch_begin(self, net: Any, batch: object = None, training: object = None, **_: object) -> None:
        """Tell training from validation."""
        self.run_.phase(TRAIN if training else VALID, epoch=len(net.history) - 1)

    def on_epoch_end(self, net: Any, *_: object, **__: object) -> None:
        """Note what the epoch was worth."""
        metrics = without("valid_", net.history[-1])
        if metrics.pop("batch_count", None):  # there was a validation
            self.run_.phase(VALID, epoch=len(net.history) - 1)
            self.run_.note(metrics)

    def on_train_end(self, net: Any, *_: object, **__: object) -> None:
        """End the run."""
        self.run_.end()
