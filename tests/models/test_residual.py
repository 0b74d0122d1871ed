from __future__ import annotations

import pytest
import torch
from torch import nn

from actograph.errors import UsageError
from actograph.models import layer_table, resnet
from actograph.models.residual import ResidualBlock


def convs(model: nn.Module) -> list[nn.Conv2d]:
    return [m for m in model.modules() if isinstance(m, nn.Conv2d)]


@pytest.mark.parametrize(("blocks", "layers"), [(1, 8), (2, 14), (3, 20)])
def test_it_has_as_many_layers_as_its_name_says(blocks: int, layers: int) -> None:
    """He et al. (2016), section 4.2: 6n + 2 weighted layers; 1 x 1 convolutions of shortcuts are not counted."""
    model = resnet(10, blocks=blocks)
    assert sum(conv.kernel_size == (3, 3) for conv in convs(model)) + 1 == layers
    assert sum(conv.kernel_size == (1, 1) for conv in convs(model)) == 2


def test_resnet_20_has_the_parameters_of_the_paper() -> None:
    """He et al. (2016), table 6: 0.27 M, 269,722 by their layers; 2,752 more in our two shortcuts."""
    assert sum(p.numel() for p in resnet(10, 3, blocks=3).parameters()) == 269_722 + 2_752


@pytest.mark.parametrize(
    ("size", "grids"), [((1, 28, 28), (28, 14, 7)), ((3, 32, 32), (32, 16, 8)), ((3, 9, 7), (9, 5, 3))]
)
def test_every_stage_but_the_first_halves_the_grid(size: tuple[int, ...], grids: tuple[int, ...]) -> None:
    rows = {row.name: row for row in layer_table(resnet(10, size[0], blocks=2), size).rows}
    ends = [rows[f"block{number}.act2"].output_shape for number in (2, 4, 6)]
    assert [(shape[-3], shape[-2]) for shape in ends if shape] == list(zip((16, 32, 64), grids, strict=True))


@pytest.mark.parametrize("blocks", [1, 2])
def test_every_block_starts_as_its_shortcut(blocks: int) -> None:
    for block in resnet(10, blocks=blocks).modules():
        if isinstance(block, ResidualBlock):
            x = torch.rand(2, block.conv1.in_channels, 7, 7)
            assert torch.equal(block(x), block.act2(block.shortcut(x)))


def test_the_shortcut_averages_over_every_pixel() -> None:
    shortcut = ResidualBlock(4, 4, 2, nn.ReLU).shortcut
    x = torch.rand(1, 4, 5, 5, requires_grad=True)
    shortcut(x).sum().backward()
    assert x.grad is not None
    assert (x.grad > 0).all()
    assert torch.allclose(shortcut(torch.ones(1, 4, 5, 5)), torch.ones(1, 4, 3, 3))


def test_it_learns_and_all_its_weights_get_gradients() -> None:
    model, x, y = resnet(3, 2), torch.rand(12, 2, 8, 8), torch.arange(12) % 3
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
        has_gradient = [bool(p.grad is not None and p.grad.any()) for p in model.parameters()]
        optimizer.zero_grad()
    assert all(has_gradient)
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes is 0"),
        ({"num_classes": 2, "in_channels": 0}, "in_channels is 0"),
        ({"num_classes": 2, "blocks": 0}, "blocks is 0"),
        ({"num_classes": 2, "channels": ()}, "channels is empty"),
        ({"num_classes": 2, "act": nn.ReLU()}, "give a class or a function"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resnet(**arguments)  # type: ignore[arg-type]
