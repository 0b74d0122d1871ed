"""`ActographCallback` for Keras 3 on torch: what every layer did at each step of its optimizers, phases, epochs and metrics.

No idea of how anything is recorded: `TrainerRun` has that. Keras' optimizers are not torch's, and it keeps layers in lists:
a `StandIn` shows the steps, `KerasModel` the layers.
"""

from __future__ import annotations

from typing import Any, Unpack

from actograph.errors import UsageError
from actograph.integrations.keras_model import KerasModel
from actograph.integrations.stand_in import StandIn
from actograph.integrations.trainer_run import VALID, TrainerRun, WatchOptions, missing
from actograph.recording.recording import TRAIN
from actograph.runlog.view import RunView

try:
    import keras
except ImportError as error:
    raise missing("keras", "keras", error) from error


class ActographCallback(keras.callbacks.Callback):
    """Record a fit: ``model.fit(..., callbacks=[ActographCallback()])``; the options are those of `actograph.watch`."""

    def __init__(self, **options: Unpack[WatchOptions]) -> None:
        super().__init__()
        self._run = TrainerRun(options)
        self._epoch = 0

    @property
    def view(self) -> RunView:
        """The run of the latest fit as it is now; a UsageError before the first one."""
        return self._run.view

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin the run; a UsageError on another backend than torch, and with ``compile(jit_compile=True)``."""
        backend = keras.backend.backend()
        if backend != "torch":
            raise UsageError(f"Keras runs on {backend}: set KERAS_BACKEND=torch before keras is imported")
        if self.model.jit_compile:
            raise UsageError(
                "model.compile(jit_compile=True): layers in compiled steps are not seen; leave it out"
            )
        model = KerasModel(self.model)
        self._run.begin(model, _stand_in_for(self.model.optimizer, model), model.hidden)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Note where an epoch begins."""
        self._epoch = epoch
        self._run.phase(TRAIN, epoch=epoch)

    def on_test_begin(self, logs: Any = None) -> None:
        """Tell validation from training."""
        self._run.phase(VALID, epoch=self._epoch)

    def on_test_end(self, logs: Any = None) -> None:
        """Note what the validation has found."""
        self._run.note(logs or {})

    def on_train_end(self, logs: Any = None) -> None:
        """End the run."""
        self._run.end()


def _stand_in_for(optimizer: Any, model: KerasModel) -> StandIn:
    every = optimizer.gradient_accumulation_steps or 1
    trained = [variable.value for variable in model.whole.trainable_variables]

    def settings() -> list[dict[str, float]]:
        return [
            {"lr": float(optimizer.learning_rate)}
        ]  # sync: Keras waits for its device after each batch anyway

    def is_update() -> bool:  # the public number counts updates, not batches
        return every == 1 or (int(optimizer._iterations) + 1) % every == 0

    return StandIn(optimizer, "apply", [trained], settings, is_update)
