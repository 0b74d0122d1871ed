"""Suggestions against fastai's own numbers, and against laws that any curve has to obey."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from actograph.layout.row import Floats
from actograph.sweep.range_test import lr_find
from actograph.sweep.suggestions import (
    SUGGESTIONS,
    exponential_rates,
    minimum,
    slide,
    steep,
    usable_part,
    valley,
)
from actograph.train.loop import Loop
from actograph.train.step import Supervised

NAMES = ("valley", "steep", "minimum", "slide")
# Learner.lr_find of fastai 2.8.12 (torch 2.14.1), one linear layer, plain SGD, and a loss function that gives the numbers
# of `scripted` in turn: iterations made, smoothed loss after 41 of them, and what `NAMES` suggest, all float32.
# After a NaN, where we stop, fastai goes on to the 100th iteration.
GOLDEN = {
    ("typical", 100): (95, 2.2790103, (0.0014454398, 0.019054607, 0.052480745, 0.0091201086)),
    ("typical", 60): (60, 2.2790103, (0.0085769594, 1.1659144, 0.15848932, 0.00073564227)),
    ("noisy", 100): (100, 2.3385389, (0.0075857756, 0.039810717, 0.15848932, 0.083176374)),
    ("noisy", 60): (60, 2.3385389, (0.054116953, 8.5769591e-07, 0.15848932, 0.011659144)),
    ("nan", 100): (81, 2.2790103, (0.001, 0.019054607, 0.020892961, 0.0091201086)),
    ("nan", 60): (60, 2.2790103, (0.0085769594, 1.1659144, 0.15848932, 0.00073564227)),
    ("late", 100): (100, 2.303021, (0.010964782, 0.91201085, 0.33113112, 0.20892961)),
    ("late", 60): (60, 2.303021, (0.073564224, 1.1659144, 0.15848932, 0.015848933)),
    ("early", 100): (74, 2.1884413, (0.00010964782, 0.00033113113, 0.00043651583, 0.00019054607)),
    ("early", 60): (60, 2.1884413, (0.0046415888, 0.073564224, 0.15848932, 0.015848933)),
    ("rising", 100): (89, 0.50952882, (4.7863009e-06, 1.3182567e-06, 6.3095735e-08, 0.00033113113)),
    ("rising", 60): (60, 0.50952882, (6.3095737e-05, 8.5769591e-07, 1.5848932e-07, 0.015848933)),
}  # fmt: skip
FLOAT32 = 1e-6  # relative


def scripted(name: str, k: int) -> float:
    noise = math.sin(12.9898 * k * k + 78.233 * k)

    def falling(low: float, middle: float, width: float) -> float:
        return 2.3 - (2.3 - low) / (1 + math.exp((middle - k) / width))

    if name == "nan" and k >= 80:
        return math.nan
    return {
        "typical": falling(0.5, 55, 6) + 0.05 * noise + math.exp(min((k - 85) / 2, 80)),
        "noisy": falling(0.9, 60, 8) + 0.4 * noise + math.exp(min((k - 92) / 2, 80)),
        "nan": falling(0.5, 55, 6) + 0.05 * noise,
        "late": falling(0.2, 75, 5) + 0.02 * noise,
        "early": falling(1.0, 40, 4) + 0.1 * noise + math.exp(min((k - 60) / 3, 80)),
        "rising": 0.5 + 0.02 * noise + math.exp(min((k - 70) / 8, 80)),
    }[name]


def scripted_loop(loss_at: Callable[[int], float]) -> Loop:
    """Return a loop whose losses are those of ``loss_at``, whatever is trained."""
    model, made = nn.Linear(1, 1), iter(range(10_000))

    def loss_func(pred: Tensor, y: Tensor) -> Tensor:
        return pred.sum() * 0 + loss_at(next(made))

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batches = [(torch.zeros(1, 1), torch.zeros(1))] * 8
    return Loop(model, optimizer, Supervised(model, loss_func, optimizer), batches)


@pytest.mark.parametrize(("name", "num_it"), GOLDEN)
def test_on_equal_losses_the_numbers_are_those_of_fastai(name: str, num_it: int) -> None:
    num, smoothed, rates = GOLDEN[name, num_it]
    is_refused = name == "rising" or (name, num_it) in (
        ("noisy", 60),
        ("late", 60),
    )  # no fall, or none beyond the noise
    found = lr_find(scripted_loop(lambda k: scripted(name, k)), num_it=num_it)
    assert len(found.rates) == num
    assert found.smoothed[40] == pytest.approx(smoothed, rel=FLOAT32)
    part = usable_part(found.smoothed, num_it)
    suggested = [SUGGESTIONS[name](found.rates[part], found.smoothed[part]) for name in NAMES]
    assert suggested == pytest.approx(rates, rel=FLOAT32)
    assert found.suggestions == ({} if is_refused else dict(zip(NAMES, suggested, strict=True)))


CURVES = st.lists(st.floats(0.01, 100.0), min_size=20, max_size=90).map(np.array)


@given(losses=CURVES, factor=st.sampled_from([0.25, 1.0, 8.0]))
def test_suggestions_move_with_the_rates(losses: Floats, factor: float) -> None:
    rates = exponential_rates(1e-6, 1.0, len(losses))
    for suggest in SUGGESTIONS.values():
        assert suggest(rates * factor, losses) == suggest(rates, losses) * factor


@given(losses=CURVES)
def test_the_valley_lies_where_the_longest_fall_found_by_trying_all_says(losses: Floats) -> None:
    lengths: list[int] = []
    for i, loss in enumerate(losses):
        lengths.append(1 + max((lengths[j] for j in range(i) if losses[j] > loss), default=0))
    end = lengths.index(max(lengths))
    start = end - lengths[end] if end else 0
    index = start + int((end - start) / 3) + int((end - start) / 6)
    rates = exponential_rates(1e-6, 1.0, len(losses))
    assert valley(rates, losses) == rates[index]


def test_the_slope_is_that_over_the_logarithm_of_the_rate() -> None:
    rates = np.array([1e-4, 2e-4, 1e-2, 1e-1, 1.0])
    losses = np.array([4.0, 3.9, 2.0, 1.0, 1.0])  # per unit of the rate the first fall would be the steepest
    assert steep(rates, losses) == 2e-4
    assert minimum(rates, losses) == pytest.approx(0.01)


def test_where_no_interval_is_level_the_slide_goes_to_the_lowest_rate() -> None:
    rates = exponential_rates(1e-6, 1.0, 40)
    assert slide(rates, np.arange(40.0) ** 2) == rates[0]
    assert slide(rates, np.arange(40.0)) == rates[40 - 16]


def test_the_usable_part_leaves_both_ends_and_what_is_not_finite_out() -> None:
    assert usable_part(np.ones(80), 100) == slice(10, 75)
    assert usable_part(np.array([1.0] * 97 + [np.nan] * 3), 100) == slice(10, 95)
    assert usable_part(np.array([1.0] * 50 + [np.nan, 1.0]), 100) == slice(10, 50)
