"""A sequence of layers that knows by which name and options it was built.

No idea of which networks there are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import nn

from actograph.errors import UsageError
from actograph.models.activations import Activation, activation_name

Option: TypeAlias = int | float | str | list[int] | None


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The name and options with which ``registry.build_model`` builds a network again, without its weights.

    For a network of other making ``name`` is ``package.module:Class``, and there are no options.
    """

    name: str
    options: Mapping[str, Option] = field(default_factory=dict)

    @property
    def is_built_in(self) -> bool:
        """Whether the name is one of actograph's own."""
        return ":" not in self.name

    def to_json(self) -> dict[str, object]:
        """Return what `from_json` takes.

        >>> ModelConfig("mlp", {"in_features": 4, "num_classes": 2}).to_json()
        {'name': 'mlp', 'options': {'in_features': 4, 'num_classes': 2}}
        """
        return {"name": self.name, "options": dict(self.options)}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> ModelConfig:
        """Undo `to_json`; a UsageError says what cannot be used."""
        name, options = data.get("name"), data.get("options")
        if not isinstance(name, str) or not isinstance(options, Mapping):
            raise UsageError(
                f"a model has name {name!r} and options {options!r}; give a string and a dictionary"
            )
        return cls(name, options)


def config_with(act: Activation, name: str, **options: Option) -> ModelConfig | None:
    """Return the config of a network with this activation; None where the activation has no name."""
    known = activation_name(act)
    return None if known is None else ModelConfig(name, {**options, "act": known})


class Network(nn.Sequential):
    """Named layers, and the ``config`` they were built from; None where it cannot be written down.

    A slice of it, and one with layers of the user's own making, has none.
    """

    def __init__(self, layers: OrderedDict[str, nn.Module], config: ModelConfig | None = None) -> None:
        super().__init__(layers)
        self.config = config
