"""The sample of the weights: where there are few its numbers are those of numpy on all values, else they are near."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from actograph.hooks.weight_sample import (
    MAX_WEIGHTS,
    WIDTH,
    Moment,
    UpdateNumbers,
    WeightSample,
    draw_sample,
    update_numbers,
)
from actograph.layout.row import Floats


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, width: int
) -> tuple[UpdateNumbers, list[dict[str, list[Floats]]]]:
    """Return the sample's numbers of each step, and all matrices and gradients before and after each."""
    sample = draw_sample(optimizer)
    assert sample is not None
    moments: list[Moment] = []
    products = []
    seen = []
    matrices = [p for p in model.parameters() if p.ndim > 1]
    torch.manual_seed(1)
    for step in range(steps):
        model(torch.randn(8, width)).square().mean().backward()
        sample.begin(step)
        before = [p.detach().double().numpy().copy() for p in matrices]
        gradients = [p.grad.double().numpy().copy() for p in matrices if p.grad is not None]
        optimizer.step()
        optimizer.zero_grad()
        found, moment = sample.end()
        moments.append(moment)
        products.append(torch.cat(found).double().numpy())
        after = [p.detach().double().numpy().copy() for p in matrices]
        seen.append({"before": before, "after": after, "gradients": gradients})
    return update_numbers(moments, np.stack(products)), seen


def flat(arrays: list[Floats]) -> Floats:
    return np.concatenate([array.ravel() for array in arrays])


def cosine(a: Floats, b: Floats) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def naive(seen: list[dict[str, list[Floats]]], step: int) -> UpdateNumbers:
    now = seen[step]
    updates = [a - b for a, b in zip(now["after"], now["before"], strict=True)]
    ratios = [np.linalg.norm(u) / np.linalg.norm(w) for u, w in zip(updates, now["before"], strict=True)]
    agreement = cosine(flat(now["gradients"]), flat(seen[step - 1]["gradients"])) if step else np.nan
    rms = [float(np.sqrt(np.mean(flat(one) ** 2))) for one in (now["before"], updates)]
    return UpdateNumbers(*(np.array([x]) for x in (np.median(ratios), max(ratios), *rms, agreement)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_of_small_weights_are_those_of_numpy(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        model = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 5), nn.Tanh(), nn.Linear(5, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        found, seen = train(model, optimizer, 6, 6)
    finally:
        torch.set_default_dtype(torch.float32)
    for step in range(6):
        for value, wanted in zip(found, naive(seen, step), strict=True):
            assert value[step] == pytest.approx(
                wanted[0], rel=1e-3, nan_ok=True
            )  # float32, differences of weights


def test_numbers_of_large_weights_are_near_those_of_all_values() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 8))
    found, seen = train(model, torch.optim.Adam(model.parameters(), lr=1e-3), 4, 64)
    for step in range(1, 4):
        for value, wanted in zip(found, naive(seen, step), strict=True):
            assert value[step] == pytest.approx(wanted[0], rel=0.15, abs=0.05)


def test_only_matrices_are_drawn_and_only_some_of_many() -> None:
    model = nn.Sequential(*[nn.Linear(3, 3) for _ in range(40)])
    sample = draw_sample(torch.optim.SGD(model.parameters(), lr=0.1))
    assert sample is not None
    sample.begin(0)
    assert sample.end()[1].num_weights == MAX_WEIGHTS


def test_vectors_are_drawn_where_there_are_no_matrices_and_nothing_where_there_is_nothing() -> None:
    vector = nn.Parameter(torch.ones(7))
    assert draw_sample(torch.optim.SGD([vector], lr=0.1)) is not None
    frozen = nn.Parameter(torch.ones(3, 3), requires_grad=False)
    assert draw_sample(torch.optim.SGD([frozen], lr=0.1)) is None


@pytest.mark.parametrize(
    "weight",
    [
        torch.randn(40, 60, dtype=torch.bfloat16),
        torch.randn(40, 60).t(),
        torch.randn(8, 8, 5, 5).contiguous(memory_format=torch.channels_last),
        torch.randn(40, 60, dtype=torch.float16),
    ],
    ids=["bfloat16", "transposed", "channels last", "float16"],
)
def test_weights_of_other_types_and_layouts_are_followed(weight: torch.Tensor) -> None:
    parameter = nn.Parameter(weight)
    sample = WeightSample([parameter])
    parameter.grad = torch.ones_like(parameter)
    sample.begin(0)
    with torch.no_grad():
        parameter.mul_(1.5)
    products, moment = sample.end()
    numbers = update_numbers([moment], torch.cat(products).double().numpy()[None])
    assert numbers.update_ratio[0] == pytest.approx(0.5, rel=0.02)
    assert moment.num_values == min(weight.numel(), WIDTH)


def test_other_memory_of_a_parameter_is_noticed() -> None:
    parameter = nn.Parameter(torch.randn(4, 4))
    sample = WeightSample([parameter])
    assert sample.is_valid
    parameter.data = torch.randn(4, 4)
    assert not sample.is_valid


def test_cosines_are_known_only_right_after_another_update() -> None:
    parameter = nn.Parameter(torch.randn(4, 4))
    parameter.grad = torch.randn(4, 4)
    sample = WeightSample([parameter])
    cosines = []
    for number in (0, 1, 3):
        sample.begin(number)
        with torch.no_grad():
            parameter.add_(parameter.grad)
        products, moment = sample.end()
        cosines.append(update_numbers([moment], torch.cat(products).double().numpy()[None]).grad_cosine[0])
    assert np.isnan(cosines[0])
    assert np.isnan(cosines[2])
    assert cosines[1] == pytest.approx(1.0)


def test_a_weight_without_gradient_counts_as_not_moved() -> None:
    weights = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))]
    weights[0].grad = torch.ones(2, 2)
    sample = WeightSample(weights)
    sample.begin(0)
    with torch.no_grad():
        weights[0].add_(0.1)
    products, moment = sample.end()
    numbers = update_numbers([moment], torch.cat(products).double().numpy()[None])
    assert numbers.update_ratio[0] == pytest.approx(0.1, rel=1e-5)
