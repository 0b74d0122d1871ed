"""`ActographCallback` for Lightning: phases, epochs and the validation's metrics beside what every layer did.

No idea of how anything is recorded: `TrainerRun` has that.
"""

from __future__ import annotations

from typing import Any, Unpack

from actograph.integrations.trainer_run import VALID, TrainerRun, WatchOptions, missing
from actograph.recording.recording import TRAIN, status_after
from actograph.runlog.view import RunView

try:
    from lightning.pytorch import Callback
except ImportError:
    try:  # the same library under its other name
        from pytorch_lightning import Callback
    except ImportError as error:
        raise missing("lightning", "lightning", error) from error

PREFIXES = ("val_", "valid_", "val/", "valid/")  # names say what the phase says already


class ActographCallback(Callback):
    """Record a fit: ``Trainer(callbacks=[ActographCallback()])``; the options are those of `actograph.watch`."""

    def __init__(self, **options: Unpack[WatchOptions]) -> None:
        self._run = TrainerRun(options)
        self._others: set[str] = set()  # names of metrics that are not the validation's
        self._names: set[str] = set()  # that are

    @property
    def view(self) -> RunView:
        """The run of the latest fit as it is now; a UsageError before the first one."""
        return self._run.view

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin the run, after the sanity check."""
        self._names = set()
        self._run.begin(pl_module, trainer.optimizers)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: object, batch_idx: int) -> None:
        """Note where an epoch begins, and where training goes on after a validation in its midst."""
        self._run.phase(TRAIN, epoch=trainer.current_epoch)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Tell validation from training, and its metrics from others: Lightning keeps them together."""
        self._others = set(trainer.callback_metrics) - self._names
        self._run.phase(VALID, epoch=trainer.current_epoch)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Note what the validation has found."""
        self._names = set(trainer.callback_metrics) - self._others
        self._run.note({_short(name): trainer.callback_metrics[name] for name in sorted(self._names)})

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """End the run."""
        self._run.end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """End the run where the fit died."""
        self._run.end(status_after(type(exception)))


def _short(name: str) -> str:
    return next((name.removeprefix(one) for one in PREFIXES if name.startswith(one)), name)
