"""`Roots`: which of the modules that are called are models to record.

No idea of hooks or recordings. A root is the first module to be called, gradients enabled, that has trainable parameters
and is not part of a root; so modules that a model keeps in a plain list, and models that are called part by part, are found
as well. A module whose parts are roots already gives those of its parts that are not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from types import FrameType
from weakref import WeakValueDictionary

import torch
from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from actograph.train.distributed import plain_model

REASONS: dict[type[nn.Module], str] = {
    torch.fx.GraphModule: "a traced graph has no layers to tell apart",
    torch.jit.ScriptModule: "TorchScript does not call hooks",
    nn.DataParallel: "DataParallel copies the model at each forward; DistributedDataParallel is recorded",
}
CONSTRUCTOR = "__init__"


class Roots:
    """The models seen so far; keeps none alive."""

    def __init__(self) -> None:
        self._seen = WeakValueDictionary[int, nn.Module]()  # by id: a module need not be hashable
        self._recorded = WeakValueDictionary[int, nn.Module]()
        self._frozen = WeakValueDictionary[int, nn.Module]()
        self.unseen: list[str] = []  # what is not recorded, and why: lines for people

    def is_settled(self, module: nn.Module) -> bool:
        """Tell whether nothing is left to be decided about a module."""
        return id(module) in self._seen

    def take(self, module: nn.Module) -> list[nn.Module]:
        """Settle a module that is being called; return what is to be recorded from now on.

        Of a model wrapped by ``torch.compile`` that is the model inside, whose forward has not begun.
        """
        self._seen[id(module)] = module
        module = plain_model(_inside(module))
        if isinstance(module, ParametrizationList):  # a weight is being computed, as when it is registered
            self._settle(module)
            return []
        reason = _reason_against(module)
        if reason is not None:
            self._settle(module)
            self.unseen.append(f"{type(module).__name__} is not recorded: {reason}")
            return []
        if not any(parameter.requires_grad for parameter in module.parameters()):
            self._seen[id(module)] = self._frozen[id(module)] = module
            return []
        parts = list(self._new_parts(module))
        self._settle(module)
        self._recorded.update({id(part): part for part in module.modules()})
        return parts

    def look_again(self) -> None:
        """Take modules without trainable parameters into account again: they may have been thawed."""
        for key in list(self._frozen):
            self._seen.pop(key, None)
        self._frozen.clear()

    def settle(self, modules: Iterable[nn.Module]) -> None:
        """Take it that modules belong to what is recorded; nothing more is decided about them."""
        self._seen.update({id(module): module for module in modules})

    def _settle(self, module: nn.Module) -> None:
        self.settle(module.modules())

    def _new_parts(self, module: nn.Module) -> Iterator[nn.Module]:
        if not any(id(part) in self._recorded for part in module.modules()):
            yield module
            return
        for child in module.children():
            yield from self._new_parts(child)


def is_being_made() -> bool:
    """Tell whether a module's constructor is running, which calls a part of it to see the shape that it returns.

    Looks through the Python stack. What is called in there is a part of something that has not been called yet.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        is_constructor = code.co_name == CONSTRUCTOR and code.co_argcount > 0
        if is_constructor and isinstance(frame.f_locals.get(code.co_varnames[0]), nn.Module):
            return True
        frame = frame.f_back
    return False


def is_symbolic(args: object) -> bool:
    """Tell whether a module is called to describe a model, with Keras' placeholders for tensors, and computes nothing."""
    placeholders = sys.modules.get("keras.src.backend.common.keras_tensor")
    return placeholders is not None and any(isinstance(one, placeholders.KerasTensor) for one in _flat(args))


def _flat(value: object) -> Iterator[object]:
    if isinstance(value, (list, tuple)):
        for one in value:
            yield from _flat(one)
    else:
        yield value


def _inside(module: nn.Module) -> nn.Module:
    """Return the model that ``torch.compile`` has wrapped; any other as it is."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")  # importing it takes seconds
    while dynamo is not None and isinstance(module, dynamo.OptimizedModule):
        module = module._orig_mod
    return module


def _reason_against(module: nn.Module) -> str | None:
    """Return why a module cannot be recorded; None if it can."""
    return next((reason for kind, reason in REASONS.items() if isinstance(module, kind)), None)
