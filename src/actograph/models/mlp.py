"""A multilayer perceptron: the network without a notion of space, for comparison.

No idea of training.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from actograph.models.activations import Activation, build_activation
from actograph.models.blocks import check_count, check_counts
from actograph.models.network import Network, config_with

HIDDEN = (128, 128)


def mlp(
    in_features: int,
    num_classes: int,
    hidden: Sequence[int] = HIDDEN,
    act: Activation = nn.ReLU,
) -> Network:
    """Build flatten, then linear layers ``in_features``-128-128-``num_classes`` with activations between.

    Takes any shape of ``in_features`` numbers a sample, returns logits (batch, num_classes).

    Raises UsageError for counts below 1 or an unknown ``act``.

    >>> [name for name, _ in mlp(784, 10).named_children()]
    ['flatten', 'hidden1', 'hidden2', 'output']
    """
    check_count("in_features", in_features)
    check_count("num_classes", num_classes)
    check_counts("hidden", hidden)
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    inputs = in_features
    for number, features in enumerate(hidden, start=1):
        linear = nn.Linear(inputs, features)
        layers[f"hidden{number}"] = nn.Sequential(OrderedDict(linear=linear, act=build_activation(act)))
        inputs = features
    layers["output"] = nn.Linear(inputs, num_classes)
    config = config_with(act, "mlp", in_features=in_features, num_classes=num_classes, hidden=list(hidden))
    return Network(layers, config)
