"""The Learner: a model, data, a loss and an optimizer put together, with the usual callbacks.

No loop of its own: ``train/loop.py`` has it, and this overrides nothing there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast, runtime_checkable

import torch
from torch import nn

from actograph.callbacks.activation_stats import ActivationStats
from actograph.callbacks.collection import CallbackCollection
from actograph.callbacks.gradient_stats import GradientStats
from actograph.callbacks.progress import Progress
from actograph.callbacks.recorder import Recorder
from actograph.callbacks.schedule import ScheduleParams
from actograph.data.loaders import Loaders
from actograph.errors import UsageError
from actograph.inference.export import Export, write_export
from actograph.show.activations import ActivationView
from actograph.show.parameters import GradientView
from actograph.sweep.range_test import lr_find
from actograph.sweep.result import LRFind
from actograph.train.checkpoint import load_checkpoint, load_weights_of, save_checkpoint
from actograph.train.device import device_of, move
from actograph.train.distributed import this_rank
from actograph.train.events import Callback, Plan, in_order, plan
from actograph.train.freezing import Freezing
from actograph.train.loop import Loop, kept_training_flags, num_frozen
from actograph.train.metrics import Metrics
from actograph.train.metrics_classes import ConfusionMatrix
from actograph.train.optimizers import fused
from actograph.train.parameter_groups import Splitter, check_optimizer, split
from actograph.train.predictions import TopLosses, predict_loader, top_losses
from actograph.train.rates import Rate, group_rates, rate_ratios
from actograph.train.schedules import Schedule, constant, cosine_peak, flat_cosine, one_cycle
from actograph.train.state import Batch
from actograph.train.step import LossFunction, StepFactory, Supervised, TrainStep
from actograph.train.step_build import wrapped
from actograph.train.step_precision import Precision

if TYPE_CHECKING:
    import plotly.graph_objects as go

OptimizerFactory: TypeAlias = Callable[..., torch.optim.Optimizer]
LoaderPair: TypeAlias = tuple[Iterable[Any], Iterable[Any] | None]

_FROZEN_PCT_START = 0.99  # of the frozen epochs of fine_tune, as in fastai

DEFAULT_OPTIMIZER: OptimizerFactory = fused(torch.optim.AdamW)
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

    Args:
        model: gives an output for ``x``.
        loaders: ``Loaders`` or a pair (train, valid) of iterables of batches ``(x, y)``, valid possibly None.
        loss_func: gives a scalar for output and ``y``.
        opt_func: makes the optimizer from parameters, or from the groups of ``splitter``, and ``lr=``; called once.
        lr: the optimizer's rate, or one for each group: ``slice(low, high)``, ``slice(high)`` or a list (``group_rates``).
        metrics: measured in the valid phase.
        callbacks: run in every fit; one takes the place of the default of its class.
        step: makes the step from model, loss function and optimizer, where a batch is not computed the plain way.
        device: that of the model when None.
        defaults: callbacks that are there without being asked for.
        splitter: makes groups of parameters, from input to output, for rates of their own and for `freeze`.
        accumulate: batches whose gradients make one step (``Accumulate``).
        clip_norm: largest norm of all gradients together (``Clip``).
        clip_value: largest absolute value of a gradient's entries (``Clip``).
        amp: "bf16" or "fp16": compute in half precision where it is safe (``MixedPrecision``).
        compile: run the model through ``torch.compile``, with these options of it if a dict is given; the names in
            ``model.state_dict()`` stay as they are. Layers are recorded as ever; gradients by their outputs are not, nor are
            activations called as functions.

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
        opt_func: OptimizerFactory = DEFAULT_OPTIMIZER,
        lr: Rate = 1e-3,
        metrics: Metrics = (),
        callbacks: Iterable[Callback] = (),
        step: StepFactory = Supervised,
        device: torch.device | str | None = None,
        defaults: Iterable[type[Callback]] = DEFAULT_CALLBACKS,
        *,
        splitter: Splitter | None = None,
        accumulate: int = 1,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        amp: Precision | None = None,
        compile: bool | Mapping[str, Any] = False,
    ) -> None:
        self.model = model
        self.train_loader, self.valid_loader = as_pair(loaders)
        self.data = loaders if isinstance(loaders, Loaders) else Loaders(self.train_loader, self.valid_loader)
        self.loss_func = loss_func
        self.opt_func = opt_func
        self.lr = lr
        self.metrics = metrics
        self.step = step
        self.splitter = splitter
        self.accumulate = accumulate
        self.clip_norm = clip_norm
        self.clip_value = clip_value
        self.amp = amp
        self.compile = compile
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
        optimizer = self._make_optimizer()
        losses = (self.loss_func,) if isinstance(self.loss_func, nn.Module) else ()
        check_optimizer(optimizer, self.model, *losses)
        return optimizer

    @cached_property
    def loop(self) -> Loop:
        """The loop, made on first need and kept over all fits."""
        return Loop(
            self.model,
            self.optimizer,
            self._make_step(),
            self.train_loader,
            self.valid_loader,
            metrics=self.metrics,
            device=self.device,
        )

    @cached_property
    def freezing(self) -> Freezing:
        """Which parameter groups are frozen."""
        return Freezing(self.model, self.optimizer)

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

    @property
    def gradient_stats(self) -> GradientView:
        """Gradient, weights and update of each parameter so far, from the `GradientStats` callback of any fit."""
        return self.callbacks[GradientStats].gradients

    def fit(
        self,
        epochs: int,
        lr: Rate | None = None,
        *,
        callbacks: Iterable[Callback] = (),
        steps: int | None = None,
    ) -> None:
        """Train for ``epochs``, at the rate ``lr`` or the optimizer's own.

        A number is the rate of the parameter group with the largest one, the others keep their ratio to it;
        ``slice(low, high)``, ``slice(high)`` or a list says each group's (``group_rates``).

        ``steps`` is the number of batches in an epoch, needed where the train loader has no length. The callbacks run
        in this fit only, and stay reachable through ``self.callbacks``.
        """
        visitors = tuple(callbacks)
        if lr is not None:
            visitors = (self._scheduled(lr, constant), *visitors)
        self._fit(epochs, visitors, steps)

    def fit_one_cycle(
        self,
        epochs: int,
        lr_max: Rate | None = None,
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
        beta1) goes the other way. Without ``lr_max`` the largest rate is the optimizer's own. Each parameter group
        follows in its ratio: see `fit`.
        """
        schedules = self._scheduled(
            lr_max,
            lambda largest: one_cycle(largest, div, div_final, pct_start),
            cosine_peak(*moms, pct_start),
        )
        self._fit(epochs, (schedules, *callbacks), steps)

    def fit_flat_cos(
        self,
        epochs: int,
        lr: Rate | None = None,
        *,
        div_final: float = 1e5,
        pct_start: float = 0.75,
        callbacks: Iterable[Callback] = (),
        steps: int | None = None,
    ) -> None:
        """Train at a flat rate for ``pct_start`` of the batches, then let it fall to ``lr / div_final`` by cosine."""
        schedules = self._scheduled(lr, lambda largest: flat_cosine(largest, div_final, pct_start))
        self._fit(epochs, (schedules, *callbacks), steps)

    def fine_tune(
        self,
        epochs: int,
        base_lr: float = 2e-3,
        freeze_epochs: int = 1,
        *,
        lr_mult: float = 100,
        pct_start: float = 0.3,
        div: float = 5,
        callbacks: Iterable[Callback] = (),
        steps: int | None = None,
    ) -> None:
        """Train the last parameter group for ``freeze_epochs``, then all of them for ``epochs`` (fastai's recipe).

        Two one-cycle fits: frozen at ``base_lr``, rising nearly all the time; then thawed, from ``base_lr / 2 / lr_mult`` in
        the first group to ``base_lr / 2`` in the last. Needs a ``splitter``. The model is thawed afterwards, however this
        ends; a `StopFit` in the first fit ends both.
        """
        visitors = tuple(callbacks)
        if self.loop.resume is not None and self.loop.resume.num_frozen == num_frozen(self.model):
            freeze_epochs = 0  # a checkpoint of the second fit was loaded
        self.freeze()
        try:
            if freeze_epochs:
                self.fit_one_cycle(
                    freeze_epochs,
                    slice(base_lr),
                    pct_start=_FROZEN_PCT_START,
                    callbacks=visitors,
                    steps=steps,
                )
        finally:
            self.unfreeze()
        if not (freeze_epochs and self.loop.stop_reason is not None):
            rates = slice(base_lr / 2 / lr_mult, base_lr / 2)
            self.fit_one_cycle(epochs, rates, pct_start=pct_start, div=div, callbacks=visitors, steps=steps)

    def lr_find(
        self,
        start_lr: float = 1e-7,
        end_lr: float = 10.0,
        num_it: int = 100,
        *,
        stop_div: bool = True,
        repeats: int = 1,
        steps: int | None = None,
    ) -> LRFind:
        """Look for a learning rate: ``num_it`` steps at rates that rise from ``start_lr`` to ``end_lr``, then undone.

        ``learn.lr_find().valley`` is the rate to take where in doubt; print the result, or ``plot()`` it. None is suggested
        where the loss does not fall by more than its noise. With ``repeats`` it tells how far the suggestions spread.
        Model, optimizer, scaler, loader and random states are as before afterwards, bit for bit; no callback runs. See
        `actograph.sweep.range_test.lr_find`.
        """
        return lr_find(self.loop, start_lr, end_lr, num_it, stop_div=stop_div, repeats=repeats, steps=steps)

    def freeze(self) -> None:
        """Train the last parameter group only, and the normalization layers of all (see ``Freezing``)."""
        self.freezing.freeze()

    def unfreeze(self) -> None:
        """Train all parameter groups again."""
        self.freezing.unfreeze()

    def freeze_to(self, group: int) -> None:
        """Train the parameter groups from ``group`` on; -1 is the last."""
        self.freezing.freeze_to(group)

    def validate(self) -> dict[str, float]:
        """Measure the valid loader; returns ``valid_loss`` and the metrics by name."""
        return self.loop.validate(self.callbacks.permanent)

    def predict(self, x: Any) -> Any:
        """Return the model's output for ``x``, in eval mode and without gradients, on the device."""
        step = self.loop.step
        with kept_training_flags(self.model), torch.no_grad():
            self.model.eval()
            return step.forward(Batch(move(x, self.device), None))

    def predict_loader(self, loader: Iterable[Any] | None = None) -> tuple[Any, Any]:
        """Return outputs and targets of all batches, joined and on the host; None: of the valid loader.

        Nothing is recorded and no event fired.
        """
        return predict_loader(self.model, self.loop.step, self._loader_or_valid(loader), self.device)

    def top_losses(self, num_samples: int = 9, loader: Iterable[Any] | None = None) -> TopLosses:
        """Return the samples with the largest losses, by their places in the loader; None: of the valid loader."""
        loader = self._loader_or_valid(loader)
        return top_losses(self.model, self.loop.step, self.loss_func, loader, self.device, num_samples)

    def plot_confusion(self, loader: Iterable[Any] | None = None) -> go.Figure:
        """Draw how often each class was taken for which; None: over the valid loader."""
        from actograph.show.confusion import confusion_figure  # noqa: PLC0415 - plotly is slow to import

        matrix = ConfusionMatrix()
        matrix.update(*self.predict_loader(loader))
        return confusion_figure(matrix.compute().numpy(), self.data.class_names)

    def export(self, path: Path | str) -> Path:
        """Write the model, its class names and how its inputs were prepared into one .safetensors file.

        `load_model` rebuilds it in any process, and ``actograph predict FILE IMAGE`` uses it. Of several processes that
        train together rank 0 writes.
        """
        data = self.data
        if not this_rank().is_main:
            return Path(path)
        return write_export(Export(self.model, data.class_names, data.input_size, data.normalization), path)

    def save_checkpoint(self, path: Path | str) -> None:
        """Save everything the later course depends on: between fits, or in an event, see `Checkpoint`."""
        save_checkpoint(self.loop, path, self.callbacks.permanent)

    def load_checkpoint(self, path: Path | str) -> None:
        """Go back to the moment a checkpoint was saved; if that was in a fit, call the same fit again to go on with it.

        On the CPU the fit that goes on gives the weights and losses of one that was never interrupted, bit for bit. Raises
        UsageError, with everything as before, for a file that is not whole and for another model, optimizer or data.
        """
        load_checkpoint(self.loop, path, self.callbacks.permanent)

    def load_weights(self, path: Path | str) -> None:
        """Take the model's weights from a checkpoint, and nothing else: what follows is a new fit."""
        load_weights_of(self.model, path)
        self.loop.resume = None

    def plan(self, callbacks: Iterable[Callback] = ()) -> Plan:
        """Return who runs when in a fit with these extra callbacks; print it."""
        return plan((*self.callbacks.permanent, *callbacks))

    def _loader_or_valid(self, loader: Iterable[Any] | None) -> Iterable[Any]:
        chosen = self.valid_loader if loader is None else loader
        if chosen is None:
            raise UsageError("there is no valid loader: give a loader")
        return chosen

    def _make_optimizer(self) -> torch.optim.Optimizer:
        if isinstance(self.opt_func, torch.optim.Optimizer):
            raise UsageError(
                f"opt_func makes an optimizer, such as torch.optim.SGD; give {type(self.opt_func).__name__} itself, "
                "or functools.partial of it, not an optimizer that is made already"
            )
        if self.splitter is None:
            (lr,) = group_rates(self.lr, 1)
            return self.opt_func(self.model.parameters(), lr=lr)
        groups = split(self.model, self.splitter)
        rates = group_rates(self.lr, len(groups))
        settings = [{"params": group, "lr": rate} for group, rate in zip(groups, rates, strict=True)]
        return self.opt_func(settings, lr=max(rates))

    def _make_step(self) -> TrainStep:
        options = self.compile if isinstance(self.compile, Mapping) else {}
        model = self.model
        if self.compile is not False:
            model = cast("nn.Module", torch.compile(model, **options))
        return wrapped(
            self.step(model, self.loss_func, self.optimizer),
            self.optimizer,
            accumulate=self.accumulate,
            clip_norm=self.clip_norm,
            clip_value=self.clip_value,
            amp=self.amp,
        )

    def _scheduled(
        self, lr: Rate | None, shape: Callable[[float], Schedule], momentum: Schedule | None = None
    ) -> ScheduleParams:
        """Return the schedule of this shape up to ``lr``, or up to the optimizer's own rates."""
        own = [group["lr"] for group in self.optimizer.param_groups]
        rates = own if lr is None else group_rates(lr, len(own))
        ratios = rate_ratios(rates if isinstance(lr, (slice, Sequence)) else own)
        return ScheduleParams(lr=shape(max(rates)), momentum=momentum, ratios=ratios)

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
