"""Split a model's parameters into groups, from the input to the output, and check that an optimizer holds them.

No idea of rates or of freezing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

import torch
from torch import nn

from actograph.errors import UsageError

Part: TypeAlias = "nn.Module | nn.Parameter | Iterable[Part]"
Splitter: TypeAlias = Callable[[nn.Module], Sequence[Part]]

_MAX_NAMES = 5  # of parameters, in a message


def split(model: nn.Module, splitter: Splitter) -> list[list[nn.Parameter]]:
    """Return the groups that ``splitter`` makes: of each a module, a parameter, or any nesting of these.

    A UsageError names parameters that are in no group (and are to be trained), in two, or not the model's, and empty groups.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    >>> [len(group) for group in split(model, lambda model: [model[0], model[1]])]
    [2, 2]
    """
    groups = [list(dict.fromkeys(_parameters(part))) for part in splitter(model)]
    names = {parameter: name for name, parameter in model.named_parameters()}
    counts = Counter(parameter for group in groups for parameter in group)
    if not groups or not all(groups):
        raise UsageError(f"the splitter made {len(groups)} groups of {[len(group) for group in groups]} parameters: "
                         "each needs at least one")  # fmt: skip
    if foreign := sum(parameter not in names for parameter in counts):
        raise UsageError(f"the splitter gave {foreign} parameters that are not the model's")
    if twice := [names[parameter] for parameter, count in counts.items() if count > 1]:
        raise UsageError(f"the splitter put {listed(twice)} into more than one group")
    if missing := [
        name for parameter, name in names.items() if parameter.requires_grad and parameter not in counts
    ]:
        raise UsageError(
            f"the splitter left out {listed(missing)}: put them into a group, or set requires_grad_(False) on them"
        )
    return groups


def check_optimizer(optimizer: torch.optim.Optimizer, *modules: nn.Module) -> None:
    """Raise UsageError unless the optimizer holds all parameters to be trained of the first module, and none of others.

    The modules are the model, and a loss function with parameters of its own, of which it may hold some.
    """
    held = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    known = {parameter for module in modules for parameter in module.parameters()}
    to_train = {
        name: parameter for name, parameter in modules[0].named_parameters() if parameter.requires_grad
    }
    missing = [name for name, parameter in to_train.items() if parameter not in held]
    num_foreign = len(held - known)
    if num_foreign or missing:
        raise UsageError(
            f"the optimizer {type(optimizer).__name__} holds {num_foreign} parameters that are not the model's and "
            f"lacks {len(missing)} of the model's {len(to_train)}{f' ({listed(missing)})' if missing else ''}: "
            "make it from the parameters that opt_func is given; what is not to be trained needs requires_grad_(False)"
        )


def listed(names: Sequence[str]) -> str:
    """Return the first few names in words.

    >>> listed(["a", "b", "c", "d", "e", "f", "g"])
    'a, b, c, d, e and 2 more'
    """
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more


def _parameters(part: Part) -> Iterator[nn.Parameter]:
    if isinstance(part, nn.Parameter):
        yield part
    elif isinstance(part, nn.Module):
        yield from part.parameters()
    else:
        for inner in part:
            yield from _parameters(inner)
