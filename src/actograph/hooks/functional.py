"""`FunctionalHooks`: records activations that are called as functions (``F.relu(x)``, ``x.sigmoid()``) in a forward.

No idea of steps or files. A mode of torch sees every call of a function of torch while a forward that is measured runs on
this thread; that costs some microseconds a call. So, unless told otherwise, it is on for the first such forward only, and
stays only if it has seen an activation outside of the leaves, which are recorded as modules. A call is named after the
module whose forward made it, which is looked up on the Python stack: no hooks on containers, nothing to fall out of balance.

Compiled code is never looked into: a mode that comes and goes would have it compiled again.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any, Literal
from weakref import ref

import torch
from torch import nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack, _pop_mode, _push_mode
from torch.utils.hooks import RemovableHandle

from actograph.errors import UsageError
from actograph.hooks.functional_table import Activation, activation_of, input_of
from actograph.hooks.hiding import VanishingHook
from actograph.hooks.layer_hooks import LayerHooks, LeafHook
from actograph.hooks.leaves import Select, leaf_modules, matches
from actograph.layout.layer import Side

Functional = bool | Literal["auto"]
AUTO: Literal["auto"] = "auto"

MAX_CALLS = 16  # of one function by one module in one forward that are told apart: a forward often loops over its layers
OWN_FRAMES = 3  # on the stack above whoever has called a function, when it is asked who that was
CALL_S = 5e-6  # what the mode adds to one call of a function of torch: 3 to 6 us on two machines, 6 to 9 on a busy one

NOT_COMPILED = "activations called as functions (F.relu) are not looked for in models with compiled code"


def check_functional(functional: object) -> Functional:
    """Return the option; raises UsageError when it is none of True, False and "auto"."""
    if functional is True or functional is False or functional == AUTO:
        return functional
    raise UsageError(
        f"functional={functional!r}: give True to record activations called as functions, False not to look for them, "
        'or "auto" to look in the first forward'
    )


class FunctionalHooks:
    """Looks for functional activations in the forwards of one model that its `LayerHooks` measure.

    Args:
        hooks: the hooks of the model's leaves; attached before these.
        wanted: True: in each forward; "auto": on after the first forward only if that had some.
        select: which to record: by name, by the class of the module that computes the same, or a predicate of both.
        prefix: put before every name.

    """

    def __init__(
        self, hooks: LayerHooks, wanted: Functional = AUTO, select: Select | None = None, prefix: str = ""
    ) -> None:
        self.hooks = hooks
        self._wanted = wanted
        self._select = select
        self._prefix = prefix
        self._is_settled = wanted is not AUTO
        self._owners: dict[int, tuple[ref[nn.Module], str]] = {}
        self._leaves: set[int] = set()
        self._sites: dict[tuple[str, str], LeafHook | None] = {}  # by name and settings
        self._names: set[str] = set()
        self._open = _OpenForward()
        self._handles: list[RemovableHandle] = []

    def attach(self) -> None:
        """Register the hooks on the model; does nothing when they are registered."""
        if self._handles or not self._wanted:
            return
        model, asked_for = self.hooks.model, self._wanted is True
        if any(_is_compiled(module) for module in model.modules()):
            self.hooks.remark(NOT_COMPILED, is_asked_for=asked_for)
            return
        self.hooks.missing_when_compiled[NOT_COMPILED] = asked_for
        self._owners = {id(module): (ref(module), name) for name, module in model.named_modules()}
        self._leaves = {id(module) for module in leaf_modules(model).values()}
        self._handles = [
            model.register_forward_pre_hook(_Begin(self)),
            model.register_forward_hook(_End(self), always_call=True),
        ]

    def detach(self) -> None:
        """Take everything off; a mode that Ctrl-C has left on this thread too."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._close()

    def begin(self) -> None:
        """See what a forward calls that begins on this thread, if it is measured."""
        forward = self._open
        if forward.mode is not None and self.hooks.depth <= 1:
            self._close()  # of a forward that ended without a word
        forward.depth += 1
        looks = self._wanted if self._is_settled else AUTO
        if forward.depth == 1 and looks and self.hooks.is_measuring:
            forward.mode, self.hooks.has_mode = _ActivationMode(self), True
            forward.mode.__enter__()  # type: ignore[no-untyped-call]

    def end(self, *, succeeded: bool) -> None:
        """See nothing any more once the outermost forward on this thread is over."""
        forward = self._open
        forward.depth = max(forward.depth - 1, 0)
        if forward.depth or forward.mode is None:
            return
        self.hooks.elapsed_s += CALL_S * forward.mode.num_calls
        self._close()
        if succeeded and not self._is_settled:
            self._is_settled, self._wanted = True, bool(self._sites)

    def _close(self) -> None:
        forward = self._open
        mode, forward.mode, forward.depth = forward.mode, None, 0
        self.hooks.has_mode = False
        if mode is not None:
            _take_off(mode)

    def site(
        self, activation: Activation, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> LeafHook | None:
        """Return what measures a call that is about to be made; None where a leaf has it, or nobody wants it."""
        owner = self._calling_module()
        if owner is None:
            return None
        settings = activation.settings(args[1:], kwargs)
        name = f"{owner}.{activation.name}" if owner else activation.name
        key = (name, repr(settings) if settings else "")
        if key not in self._sites:
            self._sites[key] = self._new_site(name, activation, settings)
        return self._sites[key]

    def _new_site(self, name: str, activation: Activation, settings: Mapping[str, object]) -> LeafHook | None:
        if name in self._names:  # the same function, but it does something else
            name += "({})".format(", ".join(f"{key}={value}" for key, value in settings.items()))
        module = activation.as_module(settings)
        if self._select is not None and not matches(self._select, name, module):
            return None
        self._names.add(name)
        return _FunctionSite(self.hooks, self._prefix + name, module, activation.name)

    def _calling_module(self) -> str | None:
        """Return the name of the module whose forward is running; None in a leaf, and outside of the model."""
        frame: FrameType | None = sys._getframe(OWN_FRAMES)
        while frame is not None:
            code = frame.f_code
            if code.co_argcount and code.co_varnames[0] == "self":
                module = frame.f_locals.get("self")
                found = self._owners.get(id(module))
                if found is not None and found[0]() is module:
                    return None if id(module) in self._leaves else found[1]
            frame = frame.f_back
        return None


class _OpenForward(threading.local):
    """What of the model's forwards is open on this thread: modes are a thread's own."""

    depth = 0
    mode: _ActivationMode | None = None


class _ActivationMode(TorchFunctionMode):
    """Shows activations to their sites."""

    def __init__(self, hooks: FunctionalHooks) -> None:
        super().__init__()
        self.num_calls = 0
        self._hooks = hooks

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():
            return func(*args, **kwargs)
        self.num_calls += 1
        activation = activation_of(func)
        if activation is None:
            return func(*args, **kwargs)
        hooks = self._hooks.hooks
        site, x = None, input_of(args, kwargs)
        try:
            site = self._hooks.site(activation, args, kwargs)
        except Exception as error:
            hooks.fail(error)
        if site is None:
            return func(*args, **kwargs)
        if x is not None and site.flat is not None and site.flat.side is Side.INPUT:
            site.observe_input(x)
        output = func(*args, **kwargs)
        site(site.module, (x,), output)
        return output


class _FunctionSite(LeafHook):
    """Measures what one function returns to one module."""

    __slots__ = ("_function", "_own_module")

    max_calls = MAX_CALLS

    def __init__(self, hooks: LayerHooks, name: str, module: nn.Module, function: str) -> None:
        super().__init__(hooks, name, module)
        self._function = function
        self._own_module = module  # which nobody else keeps

    @property
    def kind(self) -> str:
        return f"functional {self._function}"

    def _comes_first(self) -> bool:
        return True


class _Begin(VanishingHook):
    __slots__ = ("functional",)

    def __init__(self, functional: FunctionalHooks) -> None:
        self.functional = functional

    def __call__(self, module: nn.Module, args: object) -> None:
        if not torch.compiler.is_compiling():
            self.functional.begin()


class _End(VanishingHook):
    __slots__ = ("functional",)

    def __init__(self, functional: FunctionalHooks) -> None:
        self.functional = functional

    def __call__(self, module: nn.Module, args: object, output: object) -> None:
        if not torch.compiler.is_compiling():
            self.functional.end(succeeded=output is not None)


def _is_compiled(module: nn.Module) -> bool:
    """Tell whether a module runs compiled code when it is called."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")  # importing it takes seconds
    return module._compiled_call_impl is not None or (
        dynamo is not None and isinstance(module, dynamo.OptimizedModule)
    )


def _take_off(mode: TorchFunctionMode) -> None:
    """Take a mode off this thread, and leave those that were put on after it."""
    if not any(one is mode for one in _get_current_function_mode_stack()):  # type: ignore[no-untyped-call]
        return
    above = []
    while (top := _pop_mode()) is not mode:  # type: ignore[no-untyped-call]
        above.append(top)
    for one in reversed(above):
        _push_mode(one)  # type: ignore[no-untyped-call]
