from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actograph.errors import UsageError
from actograph.train.schedules import (
    constant,
    cosine,
    cosine_peak,
    flat_cosine,
    join,
    linear,
    one_cycle,
)

# (progress, rate, momentum) of fastai's fit_one_cycle(lr_max=0.06), worked out by hand from its published formula
# start + (1 + cos(pi (1 - p))) (end - start) / 2, with p the progress inside the part of 25 % or 75 %.
# At p = 1/2 a part is half way; at p = 1/3 the cosine is 1/2, so a quarter of the way is done.
GOLDEN = [
    (0.0, 0.0024, 0.95),
    (0.125, 0.0312, 0.90),
    (0.25, 0.06, 0.85),
    (0.5, 0.06 - 0.25 * (0.06 - 6e-7), 0.875),
    (0.625, (0.06 + 6e-7) / 2, 0.90),
    (0.75, 0.06 - 0.75 * (0.06 - 6e-7), 0.925),
    (1.0, 6e-7, 0.95),
]


@pytest.mark.parametrize(("progress", "rate", "momentum"), GOLDEN)
def test_one_cycle_equals_fastais_published_formula(progress: float, rate: float, momentum: float) -> None:
    assert one_cycle(0.06)(progress) == pytest.approx(rate, rel=1e-12)
    assert cosine_peak(0.95, 0.85, 0.95)(progress) == pytest.approx(momentum, rel=1e-12)


# fastai's fit_flat_cos(lr=0.06): its combined_cos(0.75, lr, lr, lr / 1e5), from the same formula.
@pytest.mark.parametrize(
    ("progress", "rate"),
    [
        (0.0, 0.06),
        (0.74, 0.06),
        (0.75, 0.06),
        (0.75 + 0.25 / 3, 0.06 - 0.25 * (0.06 - 6e-7)),
        (0.875, (0.06 + 6e-7) / 2),
        (1.0, 6e-7),
    ],
)
def test_flat_cosine_equals_fastais_published_formula(progress: float, rate: float) -> None:
    assert flat_cosine(0.06)(progress) == pytest.approx(rate, rel=1e-12)


def test_one_cycle_equals_torchs_where_torch_is_asked_for_the_same_shape() -> None:
    """torch's phases end one step early: with n steps, its step k is our progress k / (pct n - 1) of the rise."""
    steps, lr_max, div, div_final, pct = 40, 0.1, 25.0, 1e5, 0.25
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr_max, total_steps=steps, pct_start=pct, div_factor=div, final_div_factor=div_final / div
    )
    rise_end = pct * steps - 1
    rise, fall = cosine(lr_max / div, lr_max), cosine(lr_max, lr_max / div_final)
    for step in range(steps):
        part = rise(step / rise_end) if step <= rise_end else fall((step - rise_end) / (steps - 1 - rise_end))
        assert optimizer.param_groups[0]["lr"] == pytest.approx(part, rel=1e-9)
        optimizer.step()
        if step < steps - 1:
            theirs.step()


def test_torchs_own_defaults_end_two_and_a_half_times_lower() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=10)
    for _ in range(9):
        optimizer.step()
        theirs.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1 / 2.5e5)
    assert one_cycle(1.0)(1.0) == pytest.approx(1 / 1e5)


@given(st.floats(0, 1), st.floats(-10, 10), st.floats(-10, 10))
def test_schedules_stay_between_their_ends(progress: float, start: float, end: float) -> None:
    low, high = min(start, end), max(start, end)
    for schedule in (linear(start, end), cosine(start, end)):
        assert low - 1e-9 <= schedule(progress) <= high + 1e-9


@given(st.floats(-10, 10), st.floats(-10, 10))
def test_schedules_begin_and_end_where_told(start: float, end: float) -> None:
    for schedule in (linear(start, end), cosine(start, end)):
        assert math.isclose(schedule(0.0), start, abs_tol=1e-12)
        assert math.isclose(schedule(1.0), end, abs_tol=1e-12)


@given(st.floats(0.01, 0.99))
def test_joined_schedules_of_matching_ends_are_continuous(share: float) -> None:
    schedule = join((share, linear(0.0, 1.0)), (1 - share, linear(1.0, 5.0)))
    assert schedule(share - 1e-9) == pytest.approx(schedule(share + 1e-9), abs=1e-6)


@pytest.mark.parametrize("pct_start", [0.0, 1.0])
def test_a_cycle_may_lack_its_rise_or_its_fall(pct_start: float) -> None:
    schedule = one_cycle(1.0, pct_start=pct_start)
    assert schedule(0.0) == pytest.approx(1.0 if pct_start == 0 else 1 / 25)
    assert schedule(1.0) == pytest.approx(1e-5 if pct_start == 0 else 1.0)


def test_constant_is_constant() -> None:
    assert constant(3.0)(0.7) == 3.0


@pytest.mark.parametrize("shares", [(0.5, 0.6), (1.5, -0.5), (0.2, 0.2), ()])
def test_shares_that_do_not_make_a_whole_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="add up to 1"):
        join(*((share, constant(1.0)) for share in shares))


def test_shares_that_miss_the_whole_by_rounding_only_are_taken() -> None:
    assert join((0.1, constant(1.0)), (0.2, constant(2.0)), (0.7, constant(3.0)))(1.0) == 3.0
