"""Sharpness against the eigenvalues of the whole Hessian."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from actograph.study.hessian import adam_bound, adam_preconditioner, largest_eigenvalue, sharpness

LOSS = nn.CrossEntropyLoss()


def tiny() -> tuple[nn.Module, Tensor, Tensor]:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    return model, 2 * torch.randn(20, 3), torch.randint(3, (20,))


def whole_hessian(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the Hessian (parameters, parameters), float64."""
    model = model.double()
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(LOSS(model(x.double()), y), parameters, create_graph=True)
    entries = [entry for gradient in gradients for entry in gradient.flatten()]
    rows = [torch.autograd.grad(entry, parameters, retain_graph=True) for entry in entries]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


def test_sharpness_is_the_largest_eigenvalue_of_the_hessian() -> None:
    model, x, y = tiny()
    found = sharpness(model, LOSS, x, y)
    assert found == pytest.approx(float(torch.linalg.eigvalsh(whole_hessian(model, x, y))[-1]), rel=0.05)


def test_preconditioned_sharpness_is_the_largest_eigenvalue_of_the_divided_hessian() -> None:
    model, x, y = tiny()
    optimizer = torch.optim.AdamW(model.parameters(), eps=1e-5, foreach=False)
    for _ in range(3):
        optimizer.zero_grad()
        LOSS(model(x), y).backward()
        optimizer.step()
    divided_by = adam_preconditioner(optimizer)
    found = sharpness(model, LOSS, x, y, divided_by)
    values = torch.linalg.eigvals(whole_hessian(model, x, y) / divided_by[:, None].double()).real
    assert found == pytest.approx(float(values.max()), rel=0.05)


def test_adam_divides_by_the_unbiased_root_mean_square_of_its_gradients() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = torch.optim.Adam([weight], betas=(0.9, 0.99), eps=0.5)
    squares = torch.zeros(2, dtype=torch.float64)
    for step in range(3):
        weight.grad = torch.tensor([1.0 + step, -3.0])
        squares = 0.99 * squares + 0.01 * weight.grad.double() ** 2
        optimizer.step()
    expected = (squares / (1 - 0.99**3)).sqrt() + 0.5
    assert torch.allclose(adam_preconditioner(optimizer).double(), expected)


def test_largest_eigenvalue_is_the_most_positive_of_many() -> None:
    root = torch.randn(60, 60, dtype=torch.float64)
    matrix = (root + root.T).float()
    found = largest_eigenvalue(lambda vector: matrix @ vector, 60, max_products=60, tolerance=1e-3)
    assert found == pytest.approx(float(torch.linalg.eigvalsh(matrix.double())[-1]), rel=1e-3)


def test_a_loss_that_does_not_bend_has_sharpness_zero() -> None:
    weights = nn.Linear(2, 1, bias=False)
    assert sharpness(weights, lambda prediction, _: prediction.sum(), torch.ones(3, 2), torch.ones(3)) == 0


def test_measuring_leaves_model_and_random_state_as_they_were() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert math.isfinite(
        sharpness(model, LOSS, torch.randn(8, 3, generator=torch.Generator()), torch.arange(8) % 3)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_loss_that_is_no_number_has_no_sharpness() -> None:
    model, x, y = tiny()
    assert math.isnan(sharpness(model, LOSS, x * math.nan, y))


def test_adams_bound_is_38_over_the_rate_at_the_usual_beta() -> None:
    assert adam_bound(0.01, 0.9) == pytest.approx(3800)
