"""SageMaker Debugger's built-in rules for deep learning, as plain functions of a recorded run with the documented defaults.

No idea of cases. Source: "List of Debugger built-in rules" in the SageMaker developer guide; the code of the rules is not
public, so what the guide leaves open is decided in the tool's favour and said in a comment. It saves tensors every 500 steps
unless told otherwise: here its rules see every recorded step. Not here: TensorVariance (no defaults), and rules on time,
text, other runs and XGBoost. Where a view lacks what a rule looks at, the rule is silent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np

from actograph.layout import bins
from actograph.layout.layer import LayerInfo, Nonlinearity
from actograph.layout.parameter import ParameterField
from actograph.layout.row import Floats
from actograph.runlog.facts import FactKind
from actograph.runlog.parameters import ParameterView
from actograph.runlog.view import RunView
from faults.rival_smd_losses import (
    check_input_images,
    class_imbalance,
    loss_not_decreasing,
    overfit,
    overtraining,
)
from faults.rival_smd_said import first, lasting, said, stalls
from faults.said import Said, earliest

INACTIVE_SHARE = 0.5  # threshold_layer of DeadRelu and SaturatedActivation: 50 %
TANH_INPUTS = (-9.4999, 9.4999)  # threshold_tanh_min, _max
SIGMOID_INPUTS = (-23.0, 16.99999)  # threshold_sigmoid_min, _max
VARIANCE_RATIO = 10.0  # threshold of PoorWeightInitialization
GRADIENT_RANGE = 0.001  # distribution_range: between the 5th and the 95th percentile
INITIAL_STEPS, INITIAL_PATIENCE = 10, 5  # steps, patience
VANISHING = 1e-7  # mean absolute gradient
LARGE_RATIO, SMALL_RATIO, RATIO_EPSILON = 10.0, 1e-8, 1e-9
UNCHANGED_STEPS, RTOL, ATOL = 3, 1e-5, 1e-8

NORMAL_RANGE = 3.29  # from the 5th to the 95th percentile of a normal distribution, in standard deviations
NORMAL_MEAN_ABS = math.sqrt(2 / math.pi)  # mean |x| of a normal distribution, in standard deviations


def smd(view: RunView) -> list[Said]:
    """Return what its rules say, each once, by the step at which it first holds."""
    return earliest(one for rule in RULES for one in rule(view))


def smd_tensors(view: RunView) -> list[Said]:
    """Return what its rules on tensors say, without those on losses, which hold at some step of nearly every training."""
    return earliest(one for rule in RULES if rule not in LOSS_RULES for one in rule(view))


def exploding_tensor(view: RunView) -> Iterator[Said]:
    """A tensor has NaN or infinity: an output, the loss, a gradient or a weight."""
    steps: list[tuple[str | None, int | None]] = [
        (info.name, view.first_non_finite(info.name)) for info in view.layers
    ]
    steps.append((None, view.scalar("loss").first_non_finite))
    for what in (ParameterField.FIRST_NON_FINITE, ParameterField.FIRST_BAD_WEIGHTS):
        steps += [(_layer(name), view.parameters.first_step(name, what)) for name in view.parameters.names]
    for layer, step in steps:
        if step is not None:
            yield said("ExplodingTensor", layer, step)


def dead_relu(view: RunView) -> Iterator[Said]:
    """More than half of a layer's ReLUs are active in less than 1 % of the values of a step.

    Approximated: a unit (of a convolution: a channel) that fired nowhere in the batch; 1 % of a batch of 32 is less than 1.
    """
    for index, info in enumerate(view.layers):
        if _is_relu(info) and info.num_units:
            is_dead = view.was_called(index) & ((~view.fired(index)).mean(axis=1) > INACTIVE_SHARE)
            yield from first("DeadRelu", [info.name], is_dead[:, None], view.first_steps)


def saturated_activation(view: RunView) -> Iterator[Said]:
    """More than half of a layer's tanh or sigmoid units get inputs beyond the limits, but for 1 % of the values.

    Approximated by the share of all inputs beyond them: which units they belong to is not recorded. The inputs are the
    output of the layer that was called before, where it has the same shape.
    """
    for index, info in enumerate(view.layers):
        limits = {"tanh": TANH_INPUTS, "sigmoid": SIGMOID_INPUTS}.get(info.kind.rpartition(" ")[2].lower())
        if limits is not None and index and view.layers[index - 1].shape == info.shape:
            beyond = (limits[0] > bins.CENTERS) | (limits[1] < bins.CENTERS)
            counts = view.histogram(index - 1).astype(np.float64)
            share = counts[:, beyond].sum(axis=1) / np.maximum(counts.sum(axis=1), 1.0)
            yield from first(
                "SaturatedActivation", [info.name], (share > INACTIVE_SHARE)[:, None], view.first_steps
            )


def poor_weight_initialization(view: RunView) -> Iterator[Said]:
    """At first the inputs of ReLUs have very different variances, or gradients a narrow range, and the loss stalls.

    The guide can be read as any of the three being enough; a narrow range is then found in nearly every training, so the
    loss has to stall as well. Approximated: the range of a normal distribution with the gradient's norm.
    """
    losses = view.scalar("loss")
    is_initial = losses.steps < INITIAL_STEPS
    if not stalls(losses.values[is_initial], INITIAL_PATIENCE, 0.0).any():
        return
    before = [index - 1 for index, info in enumerate(view.layers) if index and _is_relu(info)]
    variances = view.column("std")[:, before] ** 2
    known = np.where(np.isfinite(variances), variances, 1.0)
    differ = known.max(axis=1, initial=0.0) > VARIANCE_RATIO * known.min(axis=1, initial=np.inf)
    differ &= view.first_steps < INITIAL_STEPS
    yield from first("PoorWeightInitialization", [None], differ[:, None], view.first_steps)
    parameters = view.parameters
    widths = NORMAL_RANGE * parameters.column("grad_norm") / np.sqrt(_sizes(parameters))
    narrow = (widths < GRADIENT_RANGE).any(axis=1) & (parameters.first_steps < INITIAL_STEPS)
    yield from first("PoorWeightInitialization", [None], narrow[:, None], parameters.first_steps)


def all_zero(view: RunView) -> Iterator[Said]:
    """A layer's output, a gradient or a weight is zero throughout. Biases are left out: zero is where they begin."""
    yield from first(
        "AllZero", [info.name for info in view.layers], view.column("zeros") >= 1.0, view.first_steps
    )
    weights, names = _weights(view.parameters)
    is_zero = (view.parameters.column("grad_zeros") >= 1.0) | (view.parameters.column("weight_norm") == 0)
    yield from first("AllZero", names, is_zero[:, weights], view.parameters.first_steps)


def vanishing_gradient(view: RunView) -> Iterator[Said]:
    """The mean absolute value of a gradient is below 1e-7.

    Approximated from its norm and its share of zeros, as if the others were normally distributed.
    """
    parameters = view.parameters
    others = 1.0 - parameters.column("grad_zeros")
    mean = NORMAL_MEAN_ABS * np.sqrt(others / _sizes(parameters)) * parameters.column("grad_norm")
    names = [_layer(name) for name in parameters.names]
    yield from first("VanishingGradient", names, mean < VANISHING, parameters.first_steps)


def weight_update_ratio(view: RunView) -> Iterator[Said]:
    """A weight changes by more than ten times its size in a step, or by less than 1e-8 of it. Approximated by norms."""
    parameters = view.parameters
    weights, names = _weights(parameters)
    sizes = parameters.column("weight_norm") + RATIO_EPSILON * np.sqrt(_sizes(parameters))
    ratios = (parameters.column("update_norm") / sizes)[:, weights]
    yield from first("WeightUpdateRatio (large)", names, ratios > LARGE_RATIO, parameters.first_steps)
    yield from first("WeightUpdateRatio (small)", names, ratios < SMALL_RATIO, parameters.first_steps)
    for layer in _unheld_layers(view):
        yield said("WeightUpdateRatio (small)", layer, 1)  # weights of two steps are needed


def unchanged_tensor(view: RunView) -> Iterator[Said]:
    """A weight or the loss is the same (numpy.allclose) in three steps.

    Approximated for weights: the root mean square of the update is below ``atol``. The relative tolerance is no help to
    weights near zero, of which every layer has some, and all of them have to be close.
    """
    parameters = view.parameters
    weights, names = _weights(parameters)
    stands = (parameters.column("update_norm") <= ATOL * np.sqrt(_sizes(parameters)))[:, weights]
    yield from first("UnchangedTensor", names, lasting(stands, UNCHANGED_STEPS - 1), parameters.first_steps)
    for layer in _unheld_layers(view):
        yield said("UnchangedTensor", layer, UNCHANGED_STEPS - 1)
    loss = view.scalar("loss")
    is_close = np.isclose(loss.values[1:], loss.values[:-1], RTOL, ATOL)
    yield from first(
        "UnchangedTensor", [None], lasting(is_close[:, None], UNCHANGED_STEPS - 1), loss.steps[1:]
    )


# Of rules that begin at the same step the more specific one first
RULES = (
    exploding_tensor, dead_relu, saturated_activation, poor_weight_initialization, all_zero, vanishing_gradient,
    unchanged_tensor, weight_update_ratio, class_imbalance, check_input_images, overfit, overtraining, loss_not_decreasing,
)  # fmt: skip

LOSS_RULES = (overfit, overtraining, loss_not_decreasing)


def _weights(parameters: ParameterView) -> tuple[list[int], list[str | None]]:
    """Return positions and layers of what its collection of weights has: names with "weight" in them."""
    chosen = [index for index, name in enumerate(parameters.names) if "weight" in name]
    return chosen, [_layer(parameters.names[index]) for index in chosen]


def _sizes(parameters: ParameterView) -> Floats:
    return np.array([math.prod(one.shape) for one in parameters.parameters], np.float64)


def _layer(parameter: str) -> str:
    return parameter.rpartition(".")[0] or parameter


def _is_relu(info: LayerInfo) -> bool:
    return info.flat is not None and info.flat.nonlinearity is Nonlinearity.RECTIFIER


def _unheld_layers(view: RunView) -> list[str]:
    """Return the layers of whose parameters no optimizer has any: what is saved of them never changes.

    The run has no numbers of these parameters. Frozen ones are among them: the tool does not know of freezing.
    """
    held = {_layer(name) for name in view.parameters.names}
    if not held and not view.facts.of(FactKind.UNKNOWN_PARAMETER):
        return []  # parameters were not recorded
    layers = dict.fromkeys(re.split(r"[:\[]", info.name)[0] for info in view.layers if info.num_parameters)
    return [layer for layer in layers if layer not in held]
