"""The gradient noise scale (McCandlish et al. 2018): the batch at which noise and signal of the gradient are of one size.

No idea of which weights of which training it is measured at.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from actograph.data.loaders import Batch
from actograph.study.estimate import CONFIDENCE, Estimate
from actograph.train.device import device_of


@dataclass(frozen=True)
class GradientNorms:
    """Squared norms of the gradients of pairs of batches at the same weights, one entry a pair.

    small: mean over the small batches of a pair, of ``small_size`` samples each
    big: of the batch that these make together, ``big_size`` samples drawn without replacement from ``num_samples``
    """

    small: Sequence[float]
    big: Sequence[float]
    small_size: int
    big_size: int
    num_samples: int

    @property
    def noise(self) -> list[float]:
        """Of each pair an unbiased estimate of S, the sum of the variances of a sample's gradient over the parameters."""
        inverse = 1 / self.small_size - 1 / self.big_size
        return [(small - big) / inverse for small, big in zip(self.small, self.big, strict=True)]

    @property
    def signal(self) -> list[float]:
        """Of each pair an unbiased estimate of the squared norm of the gradient over all samples; can be negative.

        Means of n of N samples without replacement have the variance S/n - S/N: what the two batch sizes lead to is
        short by S/N, which is added. (Dropout's noise does not end with the samples: there it is too much by its share.)
        """
        span = self.big_size - self.small_size
        return [
            (self.big_size * big - self.small_size * small) / span + noise / self.num_samples
            for small, big, noise in zip(self.small, self.big, self.noise, strict=True)
        ]

    @property
    def scale(self) -> Estimate:
        """The noise scale S / G², both averaged over the pairs before the division."""
        return ratio_of_means(self.noise, self.signal)


def ratio_of_means(above: Sequence[float], below: Sequence[float]) -> Estimate:
    """Estimate mean(above) / mean(below) of paired values (n,), with Fieller's interval (1954).

    Where ``below`` cannot be told from zero the interval has no upper end: it is infinite.

    >>> ratio_of_means([2.0, 2.2, 1.8], [1.0, 1.1, 0.9])
    Estimate(value=2.0, low=2.0, high=2.0, num=3)
    """
    a, b = np.asarray(above, np.float64), np.asarray(below, np.float64)
    num, value = len(a), float(a.mean() / b.mean())
    if num == 1 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return Estimate(value, math.nan, math.nan, num)
    spread = float(stats.t.ppf((1 + CONFIDENCE) / 2, num - 1)) ** 2 / num
    covariance = np.cov(a, b) * spread  # (2, 2)
    # the ratios r for which mean(a - r b) cannot be told from zero: square r² - 2 middle r + constant <= 0
    square, constant = b.mean() ** 2 - covariance[1, 1], a.mean() ** 2 - covariance[0, 0]
    middle = a.mean() * b.mean() - covariance[0, 1]
    discriminant = middle**2 - square * constant
    root = math.sqrt(max(discriminant, 0.0))
    if (
        square <= 0
    ):  # all but what lies between the roots, of which the lower one is negative where above is positive
        low = max(float((middle - root) / square), 0.0) if square < 0 and discriminant > 0 else 0.0
        return Estimate(value, low, math.inf, num)
    return Estimate(value, float((middle - root) / square), float((middle + root) / square), num)


def gradient_norms(
    model: nn.Module,
    loss_func: nn.Module,
    loader: Iterable[Batch],
    *,
    small_size: int,
    num_small: int,
    num_samples: int,
    num_passes: int,
) -> GradientNorms:
    """Measure as many pairs of one big and ``num_small`` small batches as each pass over the loader has.

    The loader gives batches of ``small_size``, but for a last one that is left out, of ``num_samples`` in an order that is
    new in each pass. The model is used as it is, and gets no gradients.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    small: list[float] = []
    big: list[float] = []
    for _ in range(num_passes):
        norms: list[float] = []
        total: list[Tensor] = []
        for x, y in loader:
            if len(y) != small_size:
                continue
            gradients = _gradients(model, loss_func, parameters, x, y)
            norms.append(_squared_norm(gradients))
            total = gradients if len(norms) == 1 else [a + b for a, b in zip(total, gradients, strict=True)]
            if len(norms) == num_small:
                small.append(sum(norms) / num_small)
                big.append(_squared_norm(total) / num_small**2)
                norms = []
    return GradientNorms(small, big, small_size, small_size * num_small, num_samples)


def _gradients(
    model: nn.Module, loss_func: nn.Module, parameters: Sequence[nn.Parameter], x: Tensor, y: Tensor
) -> list[Tensor]:
    device = device_of(model)
    loss = loss_func(model(x.to(device)), y.to(device))
    return [gradient.double() for gradient in torch.autograd.grad(loss, parameters, materialize_grads=True)]


def _squared_norm(gradients: Sequence[Tensor]) -> float:
    return sum(float(gradient.square().sum()) for gradient in gradients)


def as_trained(model: nn.Module, batches: Iterable[Batch]) -> nn.Module:
    """Return a copy whose batches can be added up: in training mode, but for its batch norms.

    Dropout's noise is part of the gradient's. A batch norm makes a batch's gradient depend on who is in it together, so that
    a big batch's is not the mean of small ones': there the means over ``batches`` stand in, at the same weights.
    """
    network = copy.deepcopy(model).train()
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    if norms:
        with torch.no_grad():
            update_bn(batches, network, device_of(network))
    for module in norms:
        module.eval()
    return network


def endless(loader: Iterable[Batch]) -> Iterator[Batch]:
    """Yield the loader's batches, pass after pass."""
    while True:
        yield from loader
