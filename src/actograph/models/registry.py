"""The networks that the command line knows by name.

No idea of the command line: `build_model` is an ordinary function.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import nn

from actograph.errors import UsageError
from actograph.models.blocks import check_count
from actograph.models.cnn import simple_cnn
from actograph.models.mlp import mlp

# name -> factory(num_classes, in_channels, size), for square images of `size` pixels a side
MODELS: Mapping[str, Callable[[int, int, int], nn.Module]] = MappingProxyType(
    {
        "simple_cnn": lambda num_classes, in_channels, _size: simple_cnn(num_classes, in_channels),
        "simple_cnn_bn": lambda num_classes, in_channels, _size: simple_cnn(
            num_classes, in_channels, norm="batch"
        ),
        "mlp": lambda num_classes, in_channels, size: mlp(in_channels * size * size, num_classes),
    }
)


def build_model(name: str, num_classes: int, in_channels: int = 1, size: int = 28) -> nn.Module:
    """Build the network called ``name`` for square images of ``size`` pixels a side.

    The convolutional networks take any size; ``size`` tells the others.

    Raises UsageError for a name that `MODELS` does not have, with the names and the nearest one.

    >>> build_model("mlp", num_classes=10)[-1].out_features
    10
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UsageError(f"no model is called {name!r}{hint}; the names are {', '.join(sorted(MODELS))}")
    check_count("size", size)
    return MODELS[name](num_classes, in_channels, size)
