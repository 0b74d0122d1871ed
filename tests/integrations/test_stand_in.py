from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from actograph.integrations.stand_in import StandIn
from actograph.integrations.trainer_run import TrainerRun


class Foreign:
    """An optimizer that is none of torch's; every second call only gathers."""

    def __init__(self, parameters: Sequence[Tensor], every: int = 1) -> None:
        self.parameters, self.every, self.num_calls, self.rate = parameters, every, 0, 0.5

    @property
    def moves_next(self) -> bool:
        return (self.num_calls + 1) % self.every == 0

    @torch.no_grad()
    def apply(self, factor: float = 1.0) -> str:
        if self.moves_next:
            for parameter in self.parameters:
                assert parameter.grad is not None
                parameter.sub_(self.rate * factor * parameter.grad)
        self.num_calls += 1
        return "applied"


def train(every: int, *, run: TrainerRun | None = None, dies: bool = False) -> tuple[nn.Module, Foreign]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = Foreign(list(model.parameters()), every)
    if run is not None:
        stand_in = StandIn(
            optimizer, "apply", [optimizer.parameters], lambda: [{"lr": optimizer.rate}],
            lambda: optimizer.moves_next,
        )  # fmt: skip
        run.begin(model, stand_in)
    for step in range(4):
        model.zero_grad()
        loss = model(torch.randn(8, 4)).square().mean()
        loss.backward()
        optimizer.rate = 1.0 / (step + 1)
        assert optimizer.apply(factor=0.5) == "applied"
    if run is not None and not dies:
        run.end()
    return model, optimizer


@pytest.mark.parametrize("every", [1, 2])
def test_another_library_s_updates_are_seen_and_are_the_same(every: int) -> None:
    run = TrainerRun({"out": ":memory:", "budget": None, "gradients": True})
    observed, optimizer = train(every, run=run)
    plain, _ = train(every)
    for one, other in zip(observed.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)
    assert "apply" not in vars(optimizer)
    view = run.view
    rates = 1.0 / np.arange(1.0, 5.0)[every - 1 :: every]
    np.testing.assert_allclose(view.scalar("lr").values, rates)
    assert view.last_steps.tolist() == list(range(4 // every))
    # by hand: an update is half the rate times the gradient
    ratio = view.parameters.column("update_ratio") * view.parameters.column("weight_norm")
    np.testing.assert_allclose(ratio, 0.5 * rates[:, None] * view.parameters.column("grad_norm"), rtol=1e-4)


def test_a_fit_that_died_leaves_the_method_until_the_next_begins() -> None:
    run = TrainerRun({"out": ":memory:"})
    _, first = train(1, run=run, dies=True)
    assert first.apply() == "applied"
    train(1, run=run)
    assert "apply" not in vars(first)
