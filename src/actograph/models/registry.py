"""The networks that can be built by name, and how to tell by which name and options one was built.

No idea of the command line or of weights.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from math import isfinite, prod
from types import MappingProxyType

import torch
from torch import nn

from actograph.errors import UsageError
from actograph.models.cnn import CHANNELS as CNN_CHANNELS
from actograph.models.cnn import simple_cnn
from actograph.models.mlp import HIDDEN, mlp
from actograph.models.network import ModelConfig, Network, Option
from actograph.models.residual import CHANNELS as RESNET_CHANNELS
from actograph.models.residual import resnet

MODELS: Mapping[str, Callable[..., Network]] = MappingProxyType(
    {
        "mlp": mlp,
        "resnet": resnet,
        "simple_cnn": simple_cnn,
        "simple_cnn_bn": partial(simple_cnn, norm="batch"),
    }
)
# name -> the option that holds the sizes of its layers, and the sizes that ``width`` multiplies
WIDTHS: Mapping[str, tuple[str, tuple[int, ...]]] = MappingProxyType(
    {
        "mlp": ("hidden", HIDDEN),
        "resnet": ("channels", RESNET_CHANNELS),
        "simple_cnn": ("channels", CNN_CHANNELS),
        "simple_cnn_bn": ("channels", CNN_CHANNELS),
    }
)


def build_model(name: str, **options: Option) -> Network:
    """Build the network called ``name`` with the options of its function.

    Raises UsageError for a name that `MODELS` does not have, with the names and the nearest one, and for
    options that it does not take.

    >>> build_model("mlp", in_features=784, num_classes=10)[-1].out_features
    10
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UsageError(f"no model is called {name!r}{hint}; the names are {', '.join(sorted(MODELS))}")
    signature = inspect.signature(MODELS[name])
    try:
        signature.bind(**options)
    except TypeError as error:
        raise UsageError(f"{name}: {error}; its options are {', '.join(signature.parameters)}") from error
    return MODELS[name](**options)


def build_for_images(
    name: str,
    num_classes: int,
    input_size: tuple[int, ...],
    width: float = 1.0,
    **options: Option,
) -> Network:
    """Build the network called ``name`` for images of ``input_size``, (channels, height, width).

    ``width`` multiplies the filters or features of every layer but the last. Raises what `build_model` raises,
    and UsageError for a ``width`` that is not above 0.

    >>> build_for_images("simple_cnn", 10, (3, 32, 32), width=2).config.options["channels"]
    [16, 32, 64, 128]
    """
    if not (isfinite(width) and width > 0):
        raise UsageError(f"width is {width}; give a factor above 0, such as 2")
    if name in WIDTHS:
        option, sizes = WIDTHS[name]
        options.setdefault(option, [max(round(size * width), 1) for size in sizes])
    if name == "mlp":
        return build_model(name, num_classes=num_classes, in_features=prod(input_size), **options)
    return build_model(name, num_classes=num_classes, in_channels=input_size[0], **options)


def model_config(model: nn.Module) -> ModelConfig:
    """Return with which name and options ``model`` can be built again.

    A network that is not one of actograph's, or no longer as it was built, has the import path of its class
    and no options: its class is needed to use its weights.

    >>> model_config(build_model("mlp", in_features=4, num_classes=2, hidden=[3])).options["hidden"]
    [3]
    >>> model_config(nn.Linear(4, 2))
    ModelConfig(name='torch.nn.modules.linear:Linear', options={})
    """
    if isinstance(model, Network) and model.config is not None and _is_as_built(model, model.config):
        return model.config
    kind = type(model)
    return ModelConfig(f"{kind.__module__}:{kind.__qualname__}")


def rebuild_model(config: ModelConfig) -> Network:
    """Build the network that `model_config` described, with new weights.

    Raises UsageError for a network that is not one of actograph's, or was changed after it was built.
    """
    if not config.is_built_in:
        raise UsageError(
            f"a network of {config.name} cannot be built from its name: it is none of actograph's, or was changed "
            "after it was built; build it yourself and load the weights into it"
        )
    return build_model(config.name, **config.options)


def _is_as_built(model: Network, config: ModelConfig) -> bool:
    """Compare layers, their settings, and the shapes of all weights with a copy that takes no memory."""
    with torch.device("meta"):
        fresh = rebuild_model(config)
    return repr(fresh) == repr(model) and _shapes(fresh) == _shapes(model)


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}
