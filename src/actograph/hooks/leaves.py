"""Which modules are hooked, and the named tensors of a nested output.

No idea of recording.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from actograph.errors import UsageError

# Selects layers: a pattern on the qualified name ("block*.conv"), a module class, a predicate, or several of these
Select = str | type[nn.Module] | Callable[[str, nn.Module], bool] | Sequence["Select"]

ROOT_NAME = "model"  # the name of a model that is itself a leaf
OPAQUE = (nn.MultiheadAttention,)  # their children are parameters in disguise and are never called
# layers of torch's own that people give children (fake quantization, a low-rank addition): layers all the same
WITH_CHILDREN = (nn.Linear, _ConvNd, nn.Embedding)
HOLDERS = (nn.ParameterList, nn.ParameterDict)  # parameters of the module that has them; never called either


def leaf_modules(model: nn.Module, select: Select | None = None) -> dict[str, nn.Module]:
    """Return the modules to hook by qualified name, each module once, in definition order.

    Leaves are modules without children; one whose only children hold parameters or parametrizations is a leaf too, and so is
    a kind of `torch.nn.Linear` (convolution, embedding) that has children, which are looked at as well. What TorchScript has
    compiled has none. Raises UsageError when ``select`` matches none of them.
    """
    leaves = {name or ROOT_NAME: module for name, module in _walk(model, "")}
    if select is None:
        return leaves
    chosen = {name: module for name, module in leaves.items() if matches(select, name, module)}
    if not chosen:
        raise UsageError(f"select={select!r} matches no layer; the layers are {', '.join(leaves)}")
    return chosen


def scripted_modules(model: nn.Module) -> list[str]:
    """Return the names of the parts of a model, itself among them, that TorchScript runs: they take no hooks."""
    names = [name for name, one in model.named_modules() if isinstance(one, torch.jit.ScriptModule)]
    outer = [name for name in names if not any(name.startswith(f"{one}.") for one in names if one)]
    return outer if "" not in outer else [ROOT_NAME]


def own_parameters(leaf: nn.Module) -> Iterator[nn.Parameter]:
    """Yield a leaf's parameters, those that it keeps in a list or dictionary too."""
    yield from leaf.parameters(recurse=False)
    for child in leaf.children():
        if isinstance(child, HOLDERS):
            yield from child.parameters()


def tensors_of(output: object, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a nested output with their paths ("0", "1.0", "logits")."""
    if isinstance(output, Tensor):
        yield path, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from tensors_of(value, _join(path, str(key)))
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        for member in dataclasses.fields(output):
            yield from tensors_of(getattr(output, member.name), _join(path, member.name))
    elif isinstance(output, (tuple, list)):
        for index, value in enumerate(output):
            yield from tensors_of(value, _join(path, str(index)))


def _walk(module: nn.Module, name: str, seen: set[int] | None = None) -> Iterator[tuple[str, nn.Module]]:
    seen = set() if seen is None else seen
    if id(module) in seen or isinstance(module, torch.jit.ScriptModule):
        return
    seen.add(id(module))
    children = {
        key: child
        for key, child in module.named_children()
        if key != "parametrizations" and not isinstance(child, HOLDERS)
    }
    if not children or isinstance(module, OPAQUE):
        yield name, module
        return
    if isinstance(module, WITH_CHILDREN):
        yield name, module
    for key, child in children.items():
        yield from _walk(child, _join(name, key), seen)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def matches(select: Select, name: str, module: nn.Module) -> bool:
    """Tell whether a layer of this name, computed by this module, is selected."""
    if isinstance(select, str):
        return fnmatch.fnmatchcase(name, select)
    if isinstance(select, type):
        return isinstance(module, select)
    if isinstance(select, Sequence):
        return any(matches(one, name, module) for one in select)
    return select(name, module)
