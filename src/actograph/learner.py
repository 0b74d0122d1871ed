"""The Learner: a model, data, a loss and an optimizer put together, with the usual callbacks.

No loop of its own: ``train/loop.py`` has it, and this overrides nothing there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import nn

from actograph.callbacks.activation_stats import ActivationStats
from actograph.callbacks.collection import CallbackCollection
from actograph.callbacks.progress import Progress
from actograph.callbacks.recorder import Recorder
from actograph.callbacks.schedule import ScheduleParams
from actograph.errors import UsageError
from actograph.show.activations import ActivationView
from actograph.train.device import device_of, move
from actograph.train.events import Callback, Plan, in_order, plan
from actograph.train.loop import Loop, kept_training_flags
from actograph.train.metrics import Metric
from actograph.train.schedules import constant, cosine_peak, one_cycle
from actograph.train.state import Batch
from actograph.train.step import LossFunction, StepFactory, Supervised

OptimizerFactory: TypeAlias = Callable[..., torch.optim.Optimizer]
LoaderPair: TypeAlias = tuple[Iterable[Any], Iterable[Any] | None]

DEFAULT_CALLBACKS: tuple[type[Callback], ...] = (Recorder, Progress)


@runtime_checkable
class HasLoaders(Protocol):
    """A pair of loaders with names, such as ``actograph.data.Loaders``."""

    @property
    def train(self) -> Iterable[Any]:
        """Batches to learn from."""

    @property
    def valid(self) -> Iterable[Any] | None:
        """Batches to measure on, if there are any."""


class Learner:
    """Train a model; callbacks see and change everything through its ``Loop``.

    ``opt_func`` is called once with the model's parameters and ``lr=``; ``step`` with model, loss function and
    optimizer. A callback in ``callbacks`` takes the place of the default of its class; ``defaults=()`` leaves all out.

    >>> x = torch.linspace(-1, 1, 64).reshape(64, 1)
    >>> batches = list(zip(x.split(16), (2 * x).split(16)))
    >>> learn = Learner(nn.Linear(1, 1), (batches, None), nn.functional.mse_loss, lr=0.1, defaults=[Recorder])
    >>> learn.fit(20)
    >>> bool(learn.recorder.losses[-1] < 0.01)
    True
    """

    def __init__(
        self,
        model: nn.Module,
        loaders: HasLoaders | LoaderPair,
        loss_func: LossFunction,
        opt_func: OptimizerFactory = torch.optim.AdamW,
        lr: float = 1e-3,
        metrics: Sequence[Metric] = (),
        callbacks: Iterable[Callback] = (),
        step: StepFactory = Supervised,
        device: torch.device | str | None = None,
        defaults: Iterable[type[Callback]] = DEFAULT_CALLBACKS,
    ) -> None:
        self.model = model
        self.train_loader, self.valid_loader = as_pair(loaders)
        self.loss_func = loss_func
        self.opt_func = opt_func
        self.lr = lr
        self.metrics = metrics
        self.step = step
        self.device = device_of(model) if device is None else torch.device(device)
        given = tuple(callbacks)
        added = tuple(cls() for cls in defaults if not any(isinstance(callback, cls) for callback in given))
        self.callbacks = CallbackCollection(in_order((*added, *given)))

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer, made on first need and kept over all fits; the model is on its device then."""
        self.model.to(self.device)
        if isinstance(self.loss_func, nn.Module):
            self.loss_func.to(self.device)  # class weights
        return self.opt_func(self.model.parameters(), lr=self.lr)

    @cached_property
    def loop(self) -> Loop:
        """The loop, made on first need and kept over all fits."""
        return Loop(
            self.model,
            self.optimizer,
            self.step(self.model, self.loss_func, self.optimizer),
            self.train_loader,
            self.valid_loader,
            metrics=self.metrics,
            device=self.device,
        )

    @property
    def recorder(self) -> Recorder:
        """The callback that keeps losses, rates and epochs."""
        return self.callbacks[Recorder]

    @property
    def activation_stats(self) -> ActivationView:
        """Statistics and figures of each layer so far, from the `ActivationStats` callback of any fit.

        Raises CallbackNotFoundError when no fit had one.
        """
        return self.callbacks[ActivationStats].activations

    def fit(
        self,
        epochs: int,
        lr: float | None = None,
        *,
        callbacks: Iterable[Callback] = (),
        steps: int | None = None,
    ) -> None:
        """Train for ``epochs``, at the rate ``lr`` or the optimizer's own.

        ``steps`` is the number of batches in an epoch, needed where the train loader has no length. The callbacks run
        in this fit only, and stay reachable through ``self.callbacks``.
        """
        visitors = tuple(callbacks)
        if lr is not None:
            visitors = (ScheduleParams(lr=constant(lr)), *visitors)
        self._fit(epochs, visitors, steps)

    def fit_one_cycle(
        self,
        epochs: int,
        lr_max: float | None = None,
        *,
        div: float = 25,
        div_final: float = 1e5,
        pct_start: float = 0.25,
        moms: tuple[float, float, float] = (0.95, 0.85, 0.95),
        callbacks: Iterable[Callback] = (),
        steps: int | None = None,
    ) -> None:
        """Train with the one-cycle policy (Smith 2018), in fastai's shape.

        The rate rises from ``lr_max / div`` to ``lr_max`` and falls to ``lr_max / div_final``, while momentum (Adam's
        beta1) goes the other way. Without ``lr_max`` the largest rate is the optimizer's own. Rates of several
        parameter groups keep their ratios.
        """
        if lr_max is None:
            lr_max = max(group["lr"] for group in self.optimizer.param_groups)
        schedules = ScheduleParams(
            lr=one_cycle(lr_max, div, div_final, pct_start), momentum=cosine_peak(*moms, pct_start)
        )
        self._fit(epochs, (schedules, *callbacks), steps)

    def validate(self) -> dict[str, float]:
        """Measure the valid loader; returns ``valid_loss`` and the metrics by name."""
        return self.loop.validate(self.callbacks.permanent)

    def predict(self, x: Any) -> Any:
        """Return the model's output for ``x``, in eval mode and without gradients, on the device."""
        step = self.loop.step
        with kept_training_flags(self.model), torch.no_grad():
            self.model.eval()
            return step.forward(Batch(move(x, self.device), None))

    def plan(self, callbacks: Iterable[Callback] = ()) -> Plan:
        """Return who runs when in a fit with these extra callbacks; print it."""
        return plan((*self.callbacks.permanent, *callbacks))

    def _fit(self, epochs: int, visitors: tuple[Callback, ...], steps: int | None) -> None:
        in_order((*self.callbacks.permanent, *visitors))  # refuses before anything is kept
        self.callbacks.keep(visitors)
        self.loop.fit(epochs, (*self.callbacks.permanent, *visitors), steps=steps)


def as_pair(loaders: HasLoaders | LoaderPair) -> LoaderPair:
    """Return the train and the valid loader, the latter possibly None.

    A UsageError says what was given instead of ``Loaders`` or a pair.
    """
    if isinstance(loaders, HasLoaders):
        return loaders.train, loaders.valid
    if isinstance(loaders, (tuple, list)) and len(loaders) == 2:  # noqa: PLR2004 - train and valid
        train, valid = loaders
        return train, valid
    raise UsageError(
        f"loaders must be a Loaders or a pair (train, valid), valid possibly None, not {type(loaders).__name__}"
    )
