from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from actograph.train.optimizers import fused

KINDS = [
    (torch.optim.AdamW, {"weight_decay": 0.1}),
    (torch.optim.Adam, {"amsgrad": True}),
    (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    (torch.optim.Adagrad, {}),
]
FORMATS = (torch.contiguous_format, torch.channels_last)


def network(memory_format: torch.memory_format = torch.contiguous_format) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4, 2))
    return in_format(model.double(), memory_format)


def in_format(model: nn.Module, memory_format: torch.memory_format) -> nn.Module:
    moved: nn.Module = model.to(memory_format=memory_format)  # type: ignore[call-overload]
    return moved


def train(model: nn.Module, optimizer: torch.optim.Optimizer, num_steps: int = 3) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(num_steps):
        x = torch.randn(5, 2, 4, 4, generator=generator, dtype=torch.float64)
        model(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def assert_equal_weights(ours: nn.Module, theirs: nn.Module) -> None:
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("cls", "options"), KINDS)
@pytest.mark.parametrize("memory_format", FORMATS)
def test_fused_updates_equal_plain_ones(cls: Any, options: dict[str, Any], memory_format: Any) -> None:
    ours, theirs = network(memory_format), network()
    optimizer = fused(cls, **options)(ours.parameters(), lr=0.05)
    assert optimizer.defaults["fused"] is True
    train(ours, optimizer)
    train(theirs, cls(theirs.parameters(), lr=0.05, **options))
    assert_equal_weights(ours, theirs)


@pytest.mark.parametrize(("cls", "options"), KINDS)
def test_a_change_of_the_memory_layout_mixes_nothing_up(cls: Any, options: dict[str, Any]) -> None:
    """torch's fused kernels alone would: they read state and gradients in the order of their memory."""
    ours, theirs = network(), network()
    mine, other = (
        fused(cls, **options)(ours.parameters(), lr=0.05),
        cls(theirs.parameters(), lr=0.05, **options),
    )
    train(ours, mine)
    in_format(ours, torch.channels_last)
    train(ours, mine)
    train(theirs, other)
    train(theirs, other)
    assert_equal_weights(ours, theirs)


def test_gradients_of_another_layout_are_brought_into_that_of_the_weights() -> None:
    ours, theirs = network(), network()
    for model, make in ((ours, fused(torch.optim.SGD)), (theirs, torch.optim.SGD)):
        optimizer = make(model.parameters(), lr=0.1)
        for index, parameter in enumerate(model.parameters()):
            gradient = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)).double()
            parameter.grad = gradient.contiguous(memory_format=FORMATS[gradient.ndim == 4])
        optimizer.step()
    assert_equal_weights(ours, theirs)


def test_groups_keep_their_settings() -> None:
    model = network()
    conv, *rest = model.parameters()
    optimizer = fused(torch.optim.AdamW)([{"params": [conv], "lr": 0.5}, {"params": rest}], lr=0.1)
    assert [(group["lr"], group["fused"]) for group in optimizer.param_groups] == [(0.5, True), (0.1, True)]


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(2, device="meta"), torch.zeros(2, dtype=torch.complex64), torch.zeros(4)[::2]],
)
def test_what_cannot_be_fused_is_plain(tensor: torch.Tensor) -> None:
    optimizer = fused(torch.optim.AdamW)([nn.Parameter(tensor)], lr=0.1)
    assert not optimizer.defaults["fused"]


def test_an_optimizer_without_a_fused_form_is_torchs_own_error() -> None:
    with pytest.raises(TypeError, match="fused"):
        fused(torch.optim.RMSprop)(network().parameters(), lr=0.1)
