"""Checks that every callback has to pass, on a tiny fit each; use them in the tests of your own.

No idea of any particular callback: ``make`` returns a new one, and a check raises ``AssertionError`` if it misbehaves.

>>> from actograph.train.events import Callback
>>> class Quiet(Callback):
...     def after_step(self, loop: object) -> None: ...
>>> check_callback(Quiet)
"""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import torch
from torch import nn

from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop
from actograph.train.names import snake_name
from actograph.train.state import ControlFlow, SkipBatch, SkipStep, StopFit
from actograph.train.step import Supervised

MakeCallback: TypeAlias = Callable[[], Callback]
CallbackCheck: TypeAlias = Callable[[MakeCallback], None]

_NUM_EPOCHS = 2
_MODULE_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_OPTIMIZER_HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
_GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks")


class BrokenOnPurposeError(Exception):
    """What the checks raise in the middle of a fit."""


class Interruption(Callback):
    """Raise in every train batch, in one of the events where something is always under way."""

    stage = Stage.SETUP

    def __init__(self, event: str, error: BaseException) -> None:
        self.event = event
        self.error = error

    def before_fit(self, loop: Loop) -> None:
        """Raise if asked to."""
        self._raise_at("before_fit")

    def before_batch(self, loop: Loop) -> None:
        """Raise if asked to."""
        self._raise_at("before_batch")

    def after_loss(self, loop: Loop) -> None:
        """Raise if asked to."""
        self._raise_at("after_loss")

    def before_step(self, loop: Loop) -> None:
        """Raise if asked to."""
        self._raise_at("before_step")

    def after_epoch(self, loop: Loop) -> None:
        """Raise if asked to."""
        self._raise_at("after_epoch")

    def _raise_at(self, event: str) -> None:
        if event == self.event:
            raise self.error


INTERRUPTIONS: tuple[tuple[str, type[BaseException]], ...] = tuple(
    (event, kind)
    for kind in (StopFit, BrokenOnPurposeError, KeyboardInterrupt)
    for event in ("before_fit", "before_batch", "after_loss", "before_step", "after_epoch")
)
SKIPS: tuple[tuple[str, type[ControlFlow]], ...] = (
    ("before_batch", SkipBatch),
    ("after_loss", SkipBatch),
    ("before_step", SkipStep),
)


def check_callback(make: MakeCallback) -> None:
    """Run every check."""
    for check in CALLBACK_CHECKS:
        check(make)


def check_it_fits_twice(make: MakeCallback) -> None:
    """One instance serves two fits, with a valid loader and without."""
    for is_valid in (True, False):
        loop, callback = tiny_loop(is_valid=is_valid), make()
        loop.fit(_NUM_EPOCHS, [callback])
        loop.fit(_NUM_EPOCHS, [callback])


def check_it_bears_validation_alone(make: MakeCallback) -> None:
    """``validate()`` works before and after a fit, and trains nothing."""
    loop, callback = tiny_loop(), make()
    before = weights(loop.model)
    loop.validate([callback])
    assert weights(loop.model) == before, f"{_name(callback)} changed weights in validate()"
    loop.fit(1, [callback])
    loop.validate([callback])


def check_it_bears_skipped_batches(make: MakeCallback) -> None:
    """Batches without a loss and without a step do no harm."""
    for event, kind in SKIPS:
        tiny_loop().fit(_NUM_EPOCHS, [make(), Interruption(event, kind())])


def check_it_leaves_no_trace(make: MakeCallback) -> None:
    """Hooks, rates, flags and global state are as before: after success, StopFit, an error and Ctrl-C."""
    for event, kind in (("never", BrokenOnPurposeError), *INTERRUPTIONS):
        loop, callback = tiny_loop(), make()
        before = traces(loop)
        interrupted_fit(loop, callback, event, kind)
        after = traces(loop)
        different = [name for name in before if before[name] != after[name]]
        assert not different, f"{_name(callback)} left {different} changed after {kind.__name__} in {event}"


def check_it_swallows_no_error(make: MakeCallback) -> None:
    """Let an error and Ctrl-C leave the fit."""
    for event, kind in INTERRUPTIONS:
        callback = make()
        raised = interrupted_fit(tiny_loop(), callback, event, kind)
        wanted = None if kind is StopFit else kind
        assert raised is wanted, f"{_name(callback)} turned {kind.__name__} in {event} into {raised}"


def check_it_changes_nothing_as_an_observer(make: MakeCallback) -> None:
    """In the stages MEASURE and REPORT: weights and random state are bit for bit those of a fit without it."""
    if make().stage < Stage.MEASURE:
        return
    plain, observed = tiny_loop(), tiny_loop()
    results = []
    for loop, callbacks in ((plain, []), (observed, [make()])):
        torch.manual_seed(1)
        loop.fit(_NUM_EPOCHS, callbacks)
        results.append((weights(loop.model), torch.get_rng_state().tolist(), loop.values))
    assert results[0] == results[1], (
        f"{_name(make())} is an observer but changed weights, losses or random state"
    )


def check_its_cleanup_is_harmless(make: MakeCallback) -> None:
    """``cleanup_fit`` may come before ``before_fit``, and twice."""
    loop, callback = tiny_loop(), make()
    callback.cleanup_fit(loop)
    loop.fit(1, [callback])
    callback.cleanup_fit(loop)


def check_the_model_can_be_copied_and_saved(make: MakeCallback) -> None:
    """After a fit the model is the same kind of thing: copied, pickled, with the same state names."""
    loop, callback = tiny_loop(), make()
    names = list(loop.model.state_dict())
    loop.fit(1, [callback])
    assert list(loop.model.state_dict()) == names, f"{_name(callback)} changed the names of the model's state"
    copy.deepcopy(loop.model)
    pickle.dumps(loop.model)


CALLBACK_CHECKS: tuple[CallbackCheck, ...] = (
    check_it_fits_twice,
    check_it_bears_validation_alone,
    check_it_bears_skipped_batches,
    check_it_leaves_no_trace,
    check_it_swallows_no_error,
    check_it_changes_nothing_as_an_observer,
    check_its_cleanup_is_harmless,
    check_the_model_can_be_copied_and_saved,
)


def tiny_loop(*, is_valid: bool = True) -> Loop:
    """Return a loop over three small batches, the last one uneven, with dropout and momentum in play."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
        batches = [(torch.randn(size, 4), torch.randint(0, 3, (size,))) for size in (5, 5, 2)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step = Supervised(model, nn.functional.cross_entropy, optimizer)
    model.eval()  # the fit has to give this back
    return Loop(model, optimizer, step, batches, batches[:2] if is_valid else None)


def interrupted_fit(
    loop: Loop, callback: Callback, event: str, kind: type[BaseException]
) -> type[BaseException] | None:
    """Fit with an interruption in ``event``; return the class of what came out."""
    try:
        loop.fit(_NUM_EPOCHS, [callback, Interruption(event, kind("on purpose"))])
    except BaseException as error:
        return type(error)
    return None


def weights(model: nn.Module) -> list[list[float]]:
    """Return all weights as numbers."""
    return [parameter.detach().flatten().tolist() for parameter in model.parameters()]


def traces(loop: Loop) -> dict[str, Any]:
    """Return what a callback could leave behind, by name."""
    torch_module = sys.modules["torch.nn.modules.module"]
    return {
        "hooks on modules": _counts(loop.model.modules(), _MODULE_HOOKS),
        "hooks on the optimizer": _counts([loop.optimizer], _OPTIMIZER_HOOKS),
        "hooks on all modules": _counts([torch_module], _GLOBAL_HOOKS),
        "hooks on parameters": _counts(
            loop.model.parameters(), ("_backward_hooks", "_post_accumulate_grad_hooks")
        ),
        "training flags": [module.training for module in loop.model.modules()],
        "rates": [(group["lr"], group["momentum"]) for group in loop.optimizer.param_groups],
        "standard output": (sys.stdout, sys.stderr),
        "gradient mode": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
        "exception hook": sys.excepthook,
    }


def _counts(owners: Iterable[Any], names: Iterable[str]) -> list[int]:
    return [len(getattr(owner, name, None) or ()) for owner in owners for name in names]


def _name(callback: Callback) -> str:
    return snake_name(type(callback))
