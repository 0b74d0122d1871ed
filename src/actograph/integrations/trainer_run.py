"""`TrainerRun`: the run of one fit of somebody's trainer: where it begins and ends, its phases and its metrics.

No idea of any trainer. In a script that ``actograph run`` observes there is a run already: what is said here goes into it.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from actograph.errors import MissingExtraError, UsageError
from actograph.hooks.functional import Functional
from actograph.hooks.leaves import Select
from actograph.integrations.stand_in import StandIn
from actograph.observe.observer import Observer, present_observer
from actograph.observe.watch import watch
from actograph.recording.new_run import free_directory
from actograph.recording.recording import Recording
from actograph.runlog.view import RunView

VALID = "valid"
Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer]


class WatchOptions(TypedDict, total=False):
    """The options of `watch`, which every adapter takes."""

    out: str | Path | None
    name: str | None
    select: Select | None
    budget: float | None
    grad: bool
    gradients: bool
    functional: Functional


class TrainerRun:
    """Drives a recording as a trainer's callback says; each fit is a run of its own.

    A copy, and what is unpickled, has the options and no run.
    """

    def __init__(self, options: WatchOptions) -> None:
        self.options = options
        self._recording: Recording | None = None
        self._observer: Observer | None = None
        self._model: nn.Module | None = None  # of the fit
        self._undo = contextlib.ExitStack()  # what was put in place for the fit
        self.is_fitting = False  # a run has begun and not ended
        self._phase: tuple[str, int | None] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(TrainerRun(self.options))

    @property
    def recording(self) -> Recording:
        """The recording of the latest fit; a UsageError before the first one."""
        if self._recording is None:
            raise UsageError("nothing is recorded yet: ActographCallback begins with the first fit")
        return self._recording

    @property
    def view(self) -> RunView:
        """The run of the latest fit as it is now."""
        return self.recording.view()

    def begin(self, model: nn.Module, optimizers: Optimizers, parts: Iterable[nn.Module] = ()) -> None:
        """Begin to record; a stand-in is put in place. ``parts`` belong to the model, though torch does not know it.

        Raises UsageError where `watch` does.
        """
        self.end("failed")  # a fit before this one that did not come to its end
        self._observer, self._phase = present_observer(), None
        if self._observer is None:
            out = self.options.get("out")
            if self._recording is not None:
                out = free_directory(out)
            options: WatchOptions = {**self.options, "out": out}
            self._recording = watch(model, optimizers, **options)
        else:
            self._warn_of_options()
            self._model = model  # which may stand for another library's, and nobody else keeps
            self._observer.adopt(model, parts)
            self._recording = self._observer.recording
        if isinstance(optimizers, StandIn):
            optimizers.install()
            self._undo.callback(optimizers.remove)
        self.is_fitting = True

    def pause(self) -> None:
        """Leave out of an observed script's run what is trained until `end`."""
        self._observer = present_observer()
        if self._observer is not None:
            self._observer.recording.is_paused = True

    def phase(self, name: str, epoch: int | None = None) -> None:
        """Say what follows: "train" or "valid", and in which epoch; said again it does nothing."""
        if self.is_fitting and (name, epoch) != self._phase:
            self._phase = name, epoch
            details = {} if epoch is None else {"epoch": epoch}
            self._tell(partial(self.recording.phase, name, **details))

    def note(self, metrics: Mapping[str, object]) -> None:
        """Note numbers of the present phase; what is not a number is left out."""
        numbers = {
            name: number for name, value in metrics.items() if (number := number_of(value)) is not None
        }
        if self.is_fitting and numbers:
            self._tell(partial(self.recording.step, **numbers))

    def end(self, status: str = "finished") -> None:
        """Store the rest; the run of an observed script goes on."""
        if self._observer is not None:
            self._observer.recording.is_paused = False
        if not self.is_fitting:
            return
        self.is_fitting, self._model = False, None
        self._undo.close()
        if self._observer is None:
            self.recording.close(status)
        else:
            self._tell(partial(self.recording.phase, None))
            self._observer = None

    def _warn_of_options(self) -> None:
        usual = inspect.signature(watch).parameters
        chosen = [name for name, value in self.options.items() if value != usual[name].default]
        if chosen:
            warnings.warn(
                f"`actograph run` records this script as its own options say; {', '.join(chosen)} of ActographCallback does "
                "not count",
                UserWarning,
                stacklevel=4,
            )

    def _tell(self, action: partial[None]) -> None:
        if self._observer is None:
            action()
        else:
            self._observer.tell(action)


def number_of(value: object) -> float | None:
    """Return a number as a float; None for anything else, such as True.

    >>> number_of(torch.tensor([0.5])), number_of(3), number_of("3"), number_of(torch.ones(2))
    (0.5, 3.0, None, None)
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, (Tensor, np.ndarray)):
        return float(value.item()) if np.prod(value.shape) == 1 else None  # sync: once an epoch
    return float(value) if isinstance(value, (int, float, np.number)) else None


def without(prefix: str, metrics: Mapping[str, object]) -> dict[str, object]:
    """Return the metrics whose names begin with a prefix, without it.

    >>> without("val_", {"val_loss": 0.5, "loss": 0.25})
    {'loss': 0.5}
    """
    return {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}


def missing(module: str, package: str, error: ImportError) -> MissingExtraError:
    """Return the error for an adapter whose library cannot be imported."""
    return MissingExtraError(
        f"actograph.integrations.{module} needs {package}, which cannot be imported ({error}): pip install {package}"
    )
