"""The training loop: output, loss, gradients, update, zero the gradients, with an event after each.

No idea of what callbacks do with the events, nor of how a step is computed (``step.py``). Never waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from actograph.errors import UsageError
from actograph.train.batches import batches, length, num_train_batches
from actograph.train.device import device_of
from actograph.train.events import (
    Callback,
    Event,
    Handler,
    check_allowed,
    dispatch_table,
    handler_name,
    in_order,
)
from actograph.train.metrics import Mean, Metrics, metric_values, named_metrics
from actograph.train.names import snake_name
from actograph.train.position import LoaderStart
from actograph.train.state import (
    Batch,
    ControlFlow,
    Phase,
    Progress,
    Resume,
    SkipBatch,
    SkipStep,
    StopFit,
)
from actograph.train.step import TrainStep


class Loop:
    """Everything a callback may see, and the loop that fires its events.

    Example: ``Loop(model, optimizer, Supervised(model, loss_func, optimizer), batches).fit(3)``.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        step: TrainStep,
        train_loader: Iterable[Any],
        valid_loader: Iterable[Any] | None = None,
        *,
        metrics: Metrics = (),
        device: torch.device | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.step = step
        self.train_loader = train_loader
        self.valid_loader = valid_loader
        self.device = device_of(model) if device is None else device
        self.metrics = named_metrics(metrics, self.device)  # of the valid phase, by name
        self.progress = Progress()
        self.batch = Batch(None, None)
        self.train_loss = Mean()  # of the current epoch
        self.valid_loss = Mean()
        self.is_epoch_whole = False  # no phase of the current epoch was cut short
        self.stop_reason: str | None = None  # of the last fit, where StopFit ended it
        self.callbacks: tuple[Callback, ...] = ()  # of the fit that runs, or of the last one, in order
        self.event: Event | None = None  # the last one fired
        self.is_running = False
        self.resume: Resume | None = None  # where the next fit goes on, after a checkpoint was loaded
        self.train_start = LoaderStart()  # of the current epoch's train phase
        self.num_train_batches = 0  # in an epoch of the fit that runs, or of the last one
        self.is_train_open = False  # the train loader was not read to its end
        self.own_groups: list[dict[str, Any]] = []  # the optimizer's settings before the fit
        self._handlers: Mapping[Event, tuple[Handler, ...]] = dispatch_table(())

    def fit(self, num_epochs: int, callbacks: Iterable[Callback] = (), *, steps: int | None = None) -> None:
        """Train for ``num_epochs``, validating after each; ``steps`` is the number of batches in an epoch."""
        if num_epochs < 1:
            raise UsageError(f"epochs must be at least 1, not {num_epochs}")
        if self.valid_loader is not None and length(self.valid_loader) == 0:
            raise UsageError("the valid loader is empty: it has 0 batches; give None to train without one")
        self.num_train_batches = num_batches = num_train_batches(self.train_loader, steps)
        if self.resume is not None:
            self.resume.check(num_epochs, num_batches, num_frozen(self.model))

        def run_epochs() -> None:
            self.step.zero()  # gradients left from before the fit
            for epoch in range(self._first_epoch(), num_epochs):
                self._start_epoch(epoch)
                self._scope(Callback.before_epoch, run_epoch, Callback.after_epoch)

        def run_epoch() -> None:
            self._phase(Phase.TRAIN, self.train_loader, num_batches, limit=steps)
            if self.valid_loader is not None:
                self._phase(Phase.VALID, self.valid_loader, length(self.valid_loader))
            self.is_epoch_whole = True

        self._run(num_epochs, run_epochs, callbacks)

    def _first_epoch(self) -> int:
        """Return the epoch to begin with, having put everything back if that lies between two epochs."""
        resume = self.resume
        if resume is None:
            return 0
        if resume.num_done is None:
            self._restore(resume)
        return resume.epoch

    def _restore(self, resume: Resume) -> None:
        resume.restore()
        self.resume = None
        if resume.stop_reason is not None:
            raise StopFit(resume.stop_reason)

    def _start_epoch(self, epoch: int) -> None:
        self.is_epoch_whole = False
        self.progress.start_epoch(epoch)
        self.train_loss.reset()
        self.valid_loss.reset()
        for metric in self.metrics.values():
            metric.reset()

    def _phase(
        self, phase: Phase, loader: Iterable[Any], num_batches: int | None, limit: int | None = None
    ) -> None:
        is_train = phase is Phase.TRAIN
        compute = self._train_batch if is_train else self._valid_batch
        self.progress.start_phase(phase, num_batches)
        self.model.train(is_train)

        def run_batches() -> None:
            items, num_done = self._open(loader) if is_train else (iter(loader), 0)
            for batch in batches(items, self.device, self.progress, limit, num_done):
                self.batch = batch
                self._scope(Callback.before_batch, compute, Callback.after_batch)
            if self.progress.num_gathered:  # the last batch was skipped: no window reaches into another epoch
                self._step_if_complete(is_last=True)
            self.is_train_open = self.is_train_open and not (is_train and limit is None)
            self.progress.end_phase()

        with torch.set_grad_enabled(is_train):
            self._scope(Callback.before_phase, run_batches, Callback.after_phase)

    def _open(self, loader: Iterable[Any]) -> tuple[Iterator[Any], int]:
        """Return the train loader's batches, and how many lie behind: those of a fit that goes on in the middle."""
        self.is_train_open = True
        resume = self.resume
        if resume is None:
            self.train_start = LoaderStart.of(loader)
            return iter(loader), 0
        self._restore(resume)
        assert resume.num_done is not None
        return resume.start(), resume.num_done

    def _train_batch(self) -> None:
        step, batch, progress = self.step, self.batch, self.progress
        batch.pred = step.forward(batch)
        self.fire(Callback.after_forward)
        batch.loss = step.loss(batch)
        self.fire(Callback.after_loss)
        self.train_loss.update(batch.loss, batch.size)
        step.backward(batch.loss)
        progress.num_gathered += 1
        try:
            self.fire(Callback.after_backward)
        except SkipStep:
            self._end_step(has_moved=False)
        else:
            self._step_if_complete(is_last=progress.batch + 1 == progress.num_batches)

    def _step_if_complete(self, *, is_last: bool) -> None:
        step = self.step
        if not step.complete(is_last=is_last):
            return
        try:
            self.fire(Callback.before_step)
            has_moved = step.update()
        except SkipStep:
            has_moved = False
        self._end_step(has_moved=has_moved)

    def _end_step(self, *, has_moved: bool) -> None:
        self.progress.end_step(is_skipped=not has_moved)
        if has_moved:
            self.fire(Callback.after_step)
        self.step.zero()

    def _valid_batch(self) -> None:
        step, batch = self.step, self.batch
        batch.pred = step.forward(batch)
        self.fire(Callback.after_forward)
        batch.loss = step.loss(batch)
        self.fire(Callback.after_loss)
        self.valid_loss.update(batch.loss, batch.size)
        for metric in self.metrics.values():
            metric.update(batch.pred, batch.y)

    def _scope(self, before: Event, body: Callable[[], None], after: Event) -> None:
        """Fire ``before``, run ``body``, fire ``after``: also when a callback stops the fit, never after an error."""
        try:
            self.fire(before)
            body()
        except SkipBatch:  # comes from inside a batch only: see SkipBatch.allowed_in
            pass
        except StopFit as stop:
            self.stop_reason = self.stop_reason or stop.reason
            self.fire(after)
            raise
        self.fire(after)

    def fire(self, event: Event) -> None:
        """Call every callback that handles ``event``; then obey the strongest request that one of them raised."""
        self.event = event
        request: ControlFlow | None = None
        for handler in self._handlers[event]:
            try:
                handler(self)
            except ControlFlow as raised:
                check_allowed(raised, event, handler)
                if isinstance(raised, StopFit):  # a checkpoint saved in this event already knows
                    self.stop_reason = self.stop_reason or raised.reason
                if request is None or raised.strength > request.strength:
                    request = raised
            except BaseException as error:
                error.add_note(f"raised by the callback {handler_name(handler)} in {event.__name__}")
                raise
        if request is not None:
            raise request

    def _run(self, num_epochs: int, body: Callable[[], None], callbacks: Iterable[Callback]) -> None:
        """Run ``body`` between ``before_fit`` and ``after_fit``; clean up whatever happens."""
        if self.is_running:
            raise UsageError("this loop is running already: a callback cannot start another fit of it")
        ordered = in_order(callbacks)
        self._handlers = dispatch_table(ordered)
        self.callbacks = ordered
        self.own_groups = settings(self.optimizer)
        self.progress.start_fit(num_epochs)
        self.stop_reason = None
        with ExitStack() as stack:
            stack.enter_context(self._claimed())
            stack.enter_context(kept_training_flags(self.model))
            for callback in ordered:
                stack.callback(self._clean, callback)
            try:
                self._scope(Callback.before_fit, body, Callback.after_fit)
            except StopFit as stop:
                self.stop_reason = self.stop_reason or stop.reason
            except BaseException as error:
                error.add_note(f"actograph: {self.progress}")
                raise

    @contextmanager
    def _claimed(self) -> Iterator[None]:
        self.is_running = True
        try:
            yield
        finally:
            self.is_running = False
            self.batch = Batch(None, None)  # lets go of the last batch's memory

    def validate(self, callbacks: Iterable[Callback] = ()) -> dict[str, float]:
        """Run the valid phase alone, between ``before_fit`` and ``after_fit``, and return its values."""
        loader = self.valid_loader
        if loader is None:
            raise UsageError("there is no valid loader to validate with")

        def run_phase() -> None:
            self._start_epoch(0)
            self._phase(Phase.VALID, loader, length(loader))

        self._run(0, run_phase, callbacks)
        return self.values

    @property
    def values(self) -> dict[str, float]:
        """Losses and metrics of the current epoch so far; those of a phase that has seen no batch are missing."""
        values = {}
        if self.train_loss.count:
            values["train_loss"] = self.train_loss.compute()
        if self.valid_loss.count:
            values["valid_loss"] = self.valid_loss.compute()
            values |= metric_values(self.metrics)
        return values

    def _clean(self, callback: Callback) -> None:
        try:
            callback.cleanup_fit(self)
        except BaseException as error:
            error.add_note(f"raised by the callback {snake_name(type(callback))} in cleanup_fit")
            raise


def num_frozen(model: nn.Module) -> int:
    """Return how many parameters require no gradient."""
    return sum(not parameter.requires_grad for parameter in model.parameters())


def settings(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return each parameter group's rate, momentum and so on, without its parameters."""
    return [
        {  # a rate may be a tensor, which torch's schedulers change in place
            name: value.detach().clone() if isinstance(value, torch.Tensor) else value
            for name, value in group.items()
            if name != "params"
        }
        for group in optimizer.param_groups
    ]


@contextmanager
def kept_training_flags(model: nn.Module) -> Iterator[None]:
    """Give every module its ``training`` flag back, whatever happens in between."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag
