"""`KerasModel`: a Keras model on torch as a tree of modules, which is how torch shows layers.

No idea of training. Keras registers layers that a model has with itself and not with torch. Nothing of Keras is imported:
a model that is given is a model of Keras.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle


class KerasModel(nn.Module):
    """A Keras model's layers, under their names; its forwards are those of the model itself."""

    whole: Any

    def __init__(self, whole: Any) -> None:
        super().__init__()
        vars(self)["whole"] = whole  # not registered: torch would take it for a layer
        for layer in _layers_in(whole):
            self.add_module(_name_of(layer), _tree(layer))

    @property
    def hidden(self) -> list[nn.Module]:
        """The model, and all layers of it that have layers of their own."""
        return [
            self.whole,
            *(one for one in self.whole._flatten_layers(include_self=False) if _layers_in(one)),
        ]

    def named_parameters(
        self,
        prefix: str = "",
        recurse: bool = True,  # noqa: FBT001, FBT002  torch's
        remove_duplicate: bool = True,  # noqa: FBT001, FBT002
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the weights by Keras' paths, without the model's own name: "dense.kernel"."""
        seen: set[int] = set()
        for variable in self.whole.weights:
            if id(variable.value) not in seen or not remove_duplicate:
                seen.add(id(variable.value))
                name = ".".join(variable.path.split("/")[1:] or [variable.name])
                yield prefix + name, variable.value

    def register_forward_pre_hook(self, hook: Any, **options: Any) -> RemovableHandle:
        """Register a hook before the model's forwards."""
        handle: RemovableHandle = self.whole.register_forward_pre_hook(hook, **options)
        return handle

    def register_forward_hook(self, hook: Any, **options: Any) -> RemovableHandle:
        """Register a hook after the model's forwards."""
        handle: RemovableHandle = self.whole.register_forward_hook(hook, **options)
        return handle


def _layers_in(layer: Any) -> list[Any]:
    """Return a layer's own layers, in Keras' order."""
    found: list[Any] = layer._flatten_layers(include_self=False, recursive=False)
    return found


def _tree(layer: Any) -> nn.Module:
    inside = _layers_in(layer)
    if not inside:
        found: nn.Module = layer
        return found
    return nn.ModuleDict({_name_of(one): _tree(one) for one in inside})


def _name_of(layer: Any) -> str:
    name: str = layer.name.replace(".", "_")
    return name
