"""Where each nonlinearity of torch.nn is flat: |f'(x)| < 0.05 (`FLAT_SLOPE`).

No idea of recording. Found from the output where f is monotone: the output is at hand in a forward hook, also for in-place
modules. Otherwise from the input. Bounds are worked out from f', by hand where it is simple and by bisection for the three
that are not monotone; a test holds every entry against autograd.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

from actograph.layout.layer import FLAT_SLOPE, FlatRegion, Nonlinearity, Side

INF = math.inf


def flat_region(module: nn.Module) -> FlatRegion | None:
    """Return where the module is flat, or None when it is not one of the nonlinearities listed in `REGIONS`.

    Subclasses are not looked up: they may compute something else.
    """
    describe = REGIONS.get(type(module))
    return None if describe is None else describe(module)


def _output(kind: Nonlinearity, *intervals: tuple[float, float]) -> FlatRegion:
    return FlatRegion(kind, Side.OUTPUT, intervals)


def _relu(module: nn.Module) -> FlatRegion:
    return _output(Nonlinearity.RECTIFIER, (-INF, 0.0))


def _relu6(module: nn.Module) -> FlatRegion:
    return _output(Nonlinearity.RECTIFIER, (-INF, 0.0), (6.0, INF))


def _sigmoid(module: nn.Module) -> FlatRegion:
    low = (1.0 - math.sqrt(1.0 - 4.0 * FLAT_SLOPE)) / 2.0  # f' = y (1 - y)
    return _output(Nonlinearity.SATURATING, (-INF, low), (1.0 - low, INF))


def _tanh(module: nn.Module) -> FlatRegion:
    edge = math.sqrt(1.0 - FLAT_SLOPE)  # f' = 1 - y^2
    return _output(Nonlinearity.SATURATING, (-INF, -edge), (edge, INF))


def _softsign(module: nn.Module) -> FlatRegion:
    edge = 1.0 - math.sqrt(FLAT_SLOPE)  # f' = (1 - |y|)^2
    return _output(Nonlinearity.SATURATING, (-INF, -edge), (edge, INF))


def _hardtanh(module: nn.Module) -> FlatRegion:
    assert isinstance(module, nn.Hardtanh)
    return _output(Nonlinearity.SATURATING, (-INF, module.min_val), (module.max_val, INF))


def _hardsigmoid(module: nn.Module) -> FlatRegion:
    return _output(Nonlinearity.SATURATING, (-INF, 0.0), (1.0, INF))


def _softplus(module: nn.Module) -> FlatRegion:
    assert isinstance(module, nn.Softplus)
    return _output(
        Nonlinearity.SOFT_RECTIFIER, (-INF, -math.log1p(-FLAT_SLOPE) / module.beta)
    )  # f' = 1 - exp(-beta y)


def _logsigmoid(module: nn.Module) -> FlatRegion:
    return _output(Nonlinearity.SOFT_RECTIFIER, (math.log1p(-FLAT_SLOPE), INF))  # f' = 1 - exp(y)


def _leaky_relu(module: nn.Module) -> FlatRegion | None:
    assert isinstance(module, nn.LeakyReLU)
    slope = module.negative_slope
    if not 0.0 < slope < FLAT_SLOPE:
        return _relu(module) if slope == 0.0 else None
    # A closed interval that leaves out zero: the largest value below it that float32 knows as normal
    return _output(Nonlinearity.LOW_SLOPE, (-INF, -1.2e-38))


def _elu(module: nn.Module) -> FlatRegion:
    assert isinstance(module, nn.ELU)
    return _output(Nonlinearity.LOW_SLOPE, (-INF, FLAT_SLOPE - module.alpha))  # f' = y + alpha for y < 0


def _celu(module: nn.Module) -> FlatRegion:
    assert isinstance(module, nn.CELU)
    return _output(
        Nonlinearity.LOW_SLOPE, (-INF, module.alpha * (FLAT_SLOPE - 1.0))
    )  # f' = y / alpha + 1 for y < 0


def _selu(module: nn.Module) -> FlatRegion:
    scale, alpha = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. 2017
    return _output(
        Nonlinearity.LOW_SLOPE, (-INF, FLAT_SLOPE - scale * alpha)
    )  # f' = y + scale alpha for y < 0


def _hardswish(module: nn.Module) -> FlatRegion:
    turn = -1.5  # f' = (2 x + 3) / 6 between -3 and 3, zero at -1.5
    half = 3.0 * FLAT_SLOPE
    return FlatRegion(Nonlinearity.SOFT_RECTIFIER, Side.INPUT, ((-INF, -3.0), (turn - half, turn + half)))


def _gelu(module: nn.Module) -> FlatRegion:
    assert isinstance(module, nn.GELU)
    return _tail_and_turn(
        _gelu_tanh_slope if module.approximate == "tanh" else _gelu_slope, minimum=-math.sqrt(2.0)
    )


def _silu(module: nn.Module) -> FlatRegion:
    return _tail_and_turn(_silu_slope, minimum=-2.4)


def _mish(module: nn.Module) -> FlatRegion:
    return _tail_and_turn(_mish_slope, minimum=-2.25)


def _tail_and_turn(slope: Callable[[float], float], minimum: float) -> FlatRegion:
    """Return the flat left tail and the narrow band around the turning point of a GELU-like function.

    Its slope is lowest near ``minimum`` (below -`FLAT_SLOPE`), rises to 0 towards -inf and through 0 on the right.
    """
    tail = _bisect(lambda x: slope(x) + FLAT_SLOPE, -20.0, minimum)
    left = _bisect(lambda x: slope(x) + FLAT_SLOPE, minimum, 0.0)
    right = _bisect(lambda x: slope(x) - FLAT_SLOPE, left, 0.0)
    return FlatRegion(Nonlinearity.SOFT_RECTIFIER, Side.INPUT, ((-INF, tail), (left, right)))


def _bisect(function: Callable[[float], float], low: float, high: float) -> float:
    """Return a zero of a function that changes sign once between low and high."""
    rises = function(high) > 0
    for _ in range(60):  # halving 20 sixty times leaves less than a rounding error
        middle = (low + high) / 2.0
        low, high = (low, middle) if (function(middle) > 0) == rises else (middle, high)
    return (low + high) / 2.0


def _gelu_slope(x: float) -> float:
    density = math.exp(-x * x / 2.0) / math.sqrt(2.0 * math.pi)
    return 0.5 * (1.0 + math.erf(x / math.sqrt(2.0))) + x * density


def _gelu_tanh_slope(x: float) -> float:
    scale, cubic = math.sqrt(2.0 / math.pi), 0.044715  # Hendrycks and Gimpel 2016
    inner = math.tanh(scale * (x + cubic * x**3))
    return 0.5 * (1.0 + inner) + 0.5 * x * (1.0 - inner**2) * scale * (1.0 + 3.0 * cubic * x * x)


def _silu_slope(x: float) -> float:
    sigmoid = 1.0 / (1.0 + math.exp(-x))
    return sigmoid * (1.0 + x * (1.0 - sigmoid))


def _mish_slope(x: float) -> float:
    gate = math.tanh(math.log1p(math.exp(x)))
    return gate + x * (1.0 - gate**2) / (1.0 + math.exp(-x))


REGIONS: dict[type[nn.Module], Callable[[nn.Module], FlatRegion | None]] = {
    nn.CELU: _celu,
    nn.ELU: _elu,
    nn.GELU: _gelu,
    nn.Hardsigmoid: _hardsigmoid,
    nn.Hardswish: _hardswish,
    nn.Hardtanh: _hardtanh,
    nn.LeakyReLU: _leaky_relu,
    nn.LogSigmoid: _logsigmoid,
    nn.Mish: _mish,
    nn.ReLU: _relu,
    nn.ReLU6: _relu6,
    nn.SELU: _selu,
    nn.SiLU: _silu,
    nn.Sigmoid: _sigmoid,
    nn.Softplus: _softplus,
    nn.Softsign: _softsign,
    nn.Tanh: _tanh,
}
