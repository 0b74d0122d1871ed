"""`Observer`: watches a script that knows nothing of it, and drives a `Recording` with what it sees.

No idea of scripts, files or measuring. torch's global hooks show which modules are called and which optimizers step;
`BackwardListener` has the rest. Nothing that goes wrong here reaches the script: the recording stops, and a line says so.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from weakref import WeakMethod, ref

import torch
from torch import nn
from torch.nn.modules.loss import _Loss
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from actograph.hooks.recomputation import will_be_repeated
from actograph.observe.backward import BackwardListener
from actograph.observe.lead import Lead
from actograph.observe.patches import listeners, patched
from actograph.observe.roots import Roots, is_being_made, is_symbolic
from actograph.recording.recording import Recording


class Observer:
    """Use as a context manager around what is to be observed; closing the recording is left to the caller.

    Args:
        recording: gets every model and every optimizer of this process as they are first used.
        gradients: whether to record the optimizers' parameters, and what clipping leaves of their gradients.
        complain: told in one line when the recording has failed.

    """

    def __init__(self, recording: Recording, *, gradients: bool, complain: Callable[[str], None]) -> None:
        self.recording = recording
        self.roots = Roots()
        self._gradients = gradients
        self._complain = complain
        self._lead = Lead()
        self._running: ref[Optimizer] | None = None  # others that step inside its step are its own business
        self._backward = _Listener(self, self._guarded, gradients=gradients)
        self._is_active = False
        self._lock = (
            threading.RLock()
        )  # a script may train several models at once, each on a thread of its own
        self._undo = contextlib.ExitStack()
        recording.on_error = self._fail
        recording.on_remark = self._note_remark

    def __enter__(self) -> Observer:
        self._is_active = True
        with contextlib.ExitStack() as undo:
            undo.callback(register_module_forward_pre_hook(self._before_forward).remove)
            undo.callback(register_optimizer_step_pre_hook(self._before_step).remove)
            undo.callback(register_optimizer_step_post_hook(self._after_step).remove)
            undo.enter_context(patched(self._backward))
            self._undo = undo.pop_all()
        if sys.platform != "win32":
            forget = WeakMethod(self.stop)
            os.register_at_fork(after_in_child=lambda: (stop := forget()) and stop())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._undo.close()

    def stop(self) -> None:
        """Observe no more. The global hooks stay, doing nothing: this may be inside of one."""
        self._is_active = False
        self.recording.detach()

    def adopt(self, model: nn.Module, parts: Iterable[nn.Module] = ()) -> None:
        """Record a model before it is called: somebody in the script knows it. Its ``parts`` are not looked at."""

        def attach() -> None:
            self._attach(model, None, is_running=False)
            self.roots.settle(parts)

        self._guarded(attach)

    def tell(self, action: Callable[[], None]) -> None:
        """Do what somebody in the script has to say to the recording; an error in it ends the recording only."""
        self._guarded(action)

    @property
    def is_active(self) -> bool:
        """Whether anything is recorded still."""
        return self._is_active

    def _guarded(self, action: Callable[..., None], *args: object) -> None:
        if not self._is_active or self.recording.is_paused:
            return
        with self._lock:
            try:
                action(*args)
            except Exception as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.stop()
        self._complain(
            f"recording has failed at step {self.recording.num_steps} ({type(error).__name__}: {error}); "
            "the script goes on, and what was recorded before is kept"
        )

    def _note_remark(self, line: str, is_asked_for: bool) -> None:  # noqa: FBT001  a callback
        if is_asked_for:
            self.roots.unseen.append(line)

    def _before_forward(self, module: nn.Module, args: object) -> None:
        # traced as the constant True: nothing is attached inside a compiled region
        if torch.compiler.is_compiling():
            return
        if isinstance(module, _Loss) and not torch.is_grad_enabled():
            self._guarded(self.recording.targets, None, None)
        if self.roots.is_settled(module) or not (torch.is_grad_enabled() or will_be_repeated()):
            return
        if not (is_symbolic(args) or torch.jit.is_tracing() or is_being_made()):  # type: ignore[attr-defined, no-untyped-call]
            self._guarded(self._attach, module, args)

    def _attach(self, module: nn.Module, args: object, *, is_running: bool = True) -> None:
        for part in self.roots.take(module):
            self.recording.attach(part, is_running=is_running and part is module, inputs=args)

    def _before_step(
        self, optimizer: Optimizer, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> None:
        self._guarded(self._begin_update, optimizer, args, kwargs)

    def _begin_update(
        self, optimizer: Optimizer, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> None:
        running = None if self._running is None else self._running()
        if running is None:
            self._running = ref(optimizer)
        elif running is not optimizer:
            return
        # clipped before it was known whose gradients these are
        is_unmeasured = self._gradients and self._backward.is_clipped
        if optimizer not in self.recording and self.recording.is_open and not is_unmeasured:
            self._add(optimizer)
        if optimizer in self.recording:
            self.recording.begin_update(optimizer, args, kwargs)

    def _add(self, optimizer: Optimizer) -> None:
        self.recording.optimizer(optimizer, gradients=self._gradients, hooked=False)
        self.roots.look_again()

    def _after_step(self, optimizer: Optimizer, *_: object) -> None:
        self._guarded(self._end_update, optimizer)

    def _end_update(self, optimizer: Optimizer) -> None:
        if self._running is None or self._running() is not optimizer:
            return
        self._running = None
        if optimizer not in self.recording:
            # it has a closure or its gradients were clipped: its updates are seen from the next one on
            self._add(optimizer)
        else:
            self.recording.end_update(optimizer)
        self.recording.note_update(optimizer)
        self.recording.note_losses(optimizer)
        self._backward.forget()
        if self._lead.ends_step(self.recording.number_of(optimizer), is_open=self.recording.is_open):
            self.recording.end_step()


class _Listener(BackwardListener):
    """Knows for whom it listens, which is how the observer of this process is found."""

    def __init__(self, observer: Observer, guarded: Callable[..., None], *, gradients: bool) -> None:
        super().__init__(observer.recording, guarded, gradients=gradients)
        self.observer = observer


def present_observer() -> Observer | None:
    """Return who observes the script that runs in this process; None where nobody does, or the recording has failed."""
    found = (one.observer for one in listeners() if isinstance(one, _Listener))
    return next((observer for observer in found if observer.is_active), None)
