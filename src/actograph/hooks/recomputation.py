"""Tells a forward that is repeated for its gradients, and one without gradients that is training all the same.

No idea of models. Activation checkpointing runs a part of the forward twice: the second time inside the backward, and the
first time, where it is "reentrant", inside an autograd function, which switches gradients off.
"""

from __future__ import annotations

import sys
from types import FrameType

import torch
from torch.autograd.function import FunctionCtx

NO_BACKWARD = -1  # torch's number for "no backward is running"

# Private, and the only sign that holds on every thread that a backward runs on. Without it see `knows_backward`.
CURRENT_BACKWARD = getattr(torch._C, "_current_graph_task_id", None)


def knows_backward() -> bool:
    """Tell whether torch says if a backward is running; else a module is to be counted once a step, and not again."""
    return CURRENT_BACKWARD is not None


def is_in_backward() -> bool:
    """Tell whether autograd is running a backward on this thread; False where it cannot be known."""
    return CURRENT_BACKWARD is not None and CURRENT_BACKWARD() != NO_BACKWARD


def will_be_repeated() -> bool:
    """Tell whether this forward runs inside an autograd function that has to give gradients: it is going to repeat it.

    That is how reentrant checkpointing works, torch's and others'. In an evaluation (``torch.no_grad`` around the whole, or
    nothing that needs a gradient) such a function has no place in a graph. Looks through the Python stack.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "forward" and code.co_argcount:
            first = frame.f_locals.get(code.co_varnames[0])
            if isinstance(first, FunctionCtx) and first.next_functions:  # type: ignore[attr-defined]
                return True
        frame = frame.f_back
    return False
