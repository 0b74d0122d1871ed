"""A network that goes on training where it already knows what can be known: its loss does not come down, and need not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from actograph.observe.watch import watch
from actograph.rules.loss_not_decreasing import LossNotDecreasing
from actograph.rules.rule import Abstention, Finding
from actograph.runlog.view import RunView

CLASSES, FEATURES, BATCH, SPREAD, STEPS = 5, 8, 256, 1.6, 80


def train(model: nn.Module, lr: float, centers: torch.Tensor) -> RunView:
    """Train on clusters that overlap, so that a loss remains."""
    random = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    with watch(model, optimizer, ":memory:", budget=None) as recording:
        for _ in range(STEPS):
            y = torch.randint(0, CLASSES, (BATCH,), generator=random)
            x = centers[y] + SPREAD * torch.randn(BATCH, FEATURES, generator=random)
            nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
    return recording.view()


@pytest.mark.parametrize("is_trained", [True, False])
def test_a_loss_that_begins_below_chance_need_not_come_down(is_trained: bool) -> None:
    torch.manual_seed(0)
    centers = torch.randn(CLASSES, FEATURES)
    model = nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, CLASSES))
    if is_trained:
        for _ in range(3):
            train(model, 0.1, centers)
    said = list(LossNotDecreasing().check(train(model, 1e-6, centers)))
    assert [type(one) for one in said] == [Abstention if is_trained else Finding]
    assert not is_trained or "trained before" in said[0].reason  # type: ignore[union-attr]
