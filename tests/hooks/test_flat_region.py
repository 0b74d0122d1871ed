"""Every flat region against autograd: inside the slope is below 0.05, outside it is not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from actograph.hooks.flat_region import REGIONS, flat_region
from actograph.layout.layer import FLAT_SLOPE, Nonlinearity, Side
from actograph.sketch.reference import in_flat_region

MODULES = [cls() for cls in REGIONS] + [
    nn.GELU(approximate="tanh"),
    nn.Hardtanh(-0.3, 2.0),
    nn.Softplus(beta=3.0),
    nn.ELU(alpha=0.7),
    nn.CELU(alpha=2.0),
    nn.LeakyReLU(0.04),
]


@pytest.mark.parametrize("module", MODULES, ids=repr)
def test_the_region_is_where_the_slope_is_small(module: nn.Module) -> None:
    region = flat_region(module)
    assert region is not None
    x = torch.linspace(-12, 12, 48_001, dtype=torch.float64, requires_grad=True)
    y = module(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    inside = in_flat_region(y if region.side is Side.OUTPUT else x, region)
    off_edge = (slope.abs() - FLAT_SLOPE).abs() > 2e-3  # at the very edge float64 decides
    kink = x.abs() < 1e-9  # no derivative there
    for corner in (module.min_val, module.max_val) if isinstance(module, nn.Hardtanh) else (-3.0, 3.0, 6.0):
        kink |= (x - corner).abs() < 1e-9
    judged = off_edge & ~kink
    assert judged.sum() > 40_000
    assert torch.equal(inside[judged], (slope.abs() < FLAT_SLOPE)[judged])


def test_a_linear_layer_has_no_flat_region() -> None:
    assert flat_region(nn.Linear(2, 2)) is None
    assert flat_region(nn.Conv2d(1, 1, 1)) is None


def test_a_subclass_is_not_taken_for_its_parent() -> None:
    class Other(nn.ReLU):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    assert flat_region(Other()) is None


def test_a_leaky_slope_that_is_steep_enough_is_not_flat() -> None:
    assert flat_region(nn.LeakyReLU(0.2)) is None
    steep, dead = flat_region(nn.LeakyReLU(0.01)), flat_region(nn.LeakyReLU(0.0))
    assert steep is not None
    assert dead is not None
    assert (steep.nonlinearity, dead.nonlinearity) == (Nonlinearity.LOW_SLOPE, Nonlinearity.RECTIFIER)
