from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from actograph.hooks import parameter_norms
from actograph.hooks.parameter_norms import Measured, ParameterNorms, Totals, parameter_rows
from actograph.layout.parameter import ParameterField
from actograph.layout.row import Floats

Rows = tuple[Floats, Totals]


def step(
    norms: ParameterNorms, optimizer: torch.optim.Optimizer, *, number: int = 7, clip: float = math.inf
) -> Rows:
    """One step as `Recording` sees it."""
    norms.measure_gradients(knows_clip=True)
    if math.isfinite(clip):
        nn.utils.clip_grad_norm_(norms.parameters, clip)
    norms.begin_update()
    optimizer.step()
    return rows_of(norms, number)


def rows_of(norms: ParameterNorms, number: int = 7) -> Rows:
    found = norms.end_update()
    assert found is not None
    measured, numbers = found
    rows, totals = parameter_rows([number], measured, numbers.double().numpy()[None])
    return rows[0], Totals(totals.grad_norm[0], totals.clip_ratio[0])


def parameters_with_gradients(seed: int = 0, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    random = torch.Generator().manual_seed(seed)
    parameters = []
    for shape in ((3, 4), (5,), (2, 2, 3), ()):
        parameter = nn.Parameter(torch.randn(shape, generator=random).to(dtype))
        parameter.grad = torch.randn(shape, generator=random).to(dtype).relu()  # with zeros
        parameters.append(parameter)
    return parameters


def in_numpy(tensor: Tensor) -> Floats:
    values: Floats = tensor.detach().double().numpy().copy()
    return values


TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 1e-2, torch.float16: 1e-2}


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_every_number_equals_numpy_in_float64(dtype: torch.dtype) -> None:
    parameters = parameters_with_gradients(dtype=dtype)
    gradients = [in_numpy(p.grad) for p in parameters if p.grad is not None]
    before = [in_numpy(p) for p in parameters]
    optimizer = torch.optim.SGD(parameters, lr=0.5)
    rows, totals = step(ParameterNorms(parameters), optimizer)
    after = [in_numpy(p) for p in parameters]
    expected: dict[ParameterField, list[Any]] = {
        ParameterField.STEPS: [1] * 4,
        ParameterField.FINITE: [1] * 4,
        ParameterField.NON_FINITE: [0] * 4,
        ParameterField.GRAD_NORM: [np.linalg.norm(g) for g in gradients],
        ParameterField.GRAD_ZEROS: [(g == 0).mean() for g in gradients],
        ParameterField.GRAD_MAX: [np.abs(g).max() for g in gradients],
        ParameterField.MOVED: [1] * 4,
        ParameterField.WEIGHT_NORM: [np.linalg.norm(w) for w in before],
        ParameterField.UPDATE_NORM: [np.linalg.norm(b - a) for a, b in zip(before, after, strict=True)],
    }
    for field, values in expected.items():
        np.testing.assert_allclose(rows[:, field], values, rtol=TOLERANCE[dtype], err_msg=field.name)
    total = math.sqrt(sum(float(np.square(g).sum()) for g in gradients))
    assert totals == pytest.approx((total, 1.0), rel=TOLERANCE[dtype])


def test_an_unclipped_step_has_the_ratio_one_exactly() -> None:
    parameters = parameters_with_gradients()
    assert step(ParameterNorms(parameters), torch.optim.SGD(parameters, lr=0.1))[1].clip_ratio == 1.0


@given(seed=st.integers(0, 20), limit=st.floats(0.01, 10))
def test_the_clip_ratio_is_what_clipping_left(seed: int, limit: float) -> None:
    parameters = parameters_with_gradients(seed)
    total = math.sqrt(sum(float(p.grad.double().square().sum()) for p in parameters if p.grad is not None))
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    _, totals = step(ParameterNorms(parameters), optimizer, clip=limit)
    assert totals.clip_ratio == pytest.approx(min(limit / total, 1.0), rel=1e-5)


def test_values_that_were_cut_off_and_gradients_that_were_replaced_count_as_clipped() -> None:
    parameters = parameters_with_gradients()
    norms, optimizer = ParameterNorms(parameters), torch.optim.SGD(parameters, lr=0.1)
    norms.measure_gradients(knows_clip=True)
    before = [in_numpy(p.grad) for p in parameters if p.grad is not None]
    parameters[0].grad = torch.full((3, 4), 0.25)
    parameters[1].grad = None
    nn.utils.clip_grad_value_(parameters[2:], 0.5)
    after = [np.full((3, 4), 0.25), np.zeros(5), *(np.clip(g, -0.5, 0.5) for g in before[2:])]
    norms.begin_update()
    optimizer.step()
    _, totals = rows_of(norms)
    size = [math.sqrt(sum(float(np.square(g).sum()) for g in part)) for part in (after, before)]
    assert totals.clip_ratio == pytest.approx(size[0] / size[1], rel=1e-6)


def test_where_nobody_said_that_gradients_are_complete_the_clip_ratio_is_not_known() -> None:
    parameters = parameters_with_gradients()
    norms = ParameterNorms(parameters)
    norms.begin_update()
    _, totals = rows_of(norms)
    assert totals.grad_norm > 0
    assert math.isnan(totals.clip_ratio)


def test_missing_gradients_are_told_from_zero_ones() -> None:
    parameters = parameters_with_gradients()
    parameters[0].grad = None
    parameters[1].grad = torch.zeros(5)
    rows, _ = step(ParameterNorms(parameters), torch.optim.SGD(parameters, lr=0.1))
    assert rows[:, ParameterField.FINITE].tolist() == [0, 1, 1, 1]
    assert rows[:, ParameterField.STEPS].tolist() == [1] * 4
    assert rows[0, ParameterField.GRAD_MAX] == -math.inf
    assert (rows[1, ParameterField.GRAD_ZEROS], rows[1, ParameterField.GRAD_NORM]) == (1, 0)


def test_a_step_without_any_gradient_has_rows_too() -> None:
    parameters = [nn.Parameter(torch.ones(3))]
    rows, totals = step(ParameterNorms(parameters), torch.optim.SGD(parameters, lr=0.1))
    assert rows[0, [ParameterField.STEPS, ParameterField.FINITE, ParameterField.NON_FINITE]].tolist() == [
        1,
        0,
        0,
    ]
    assert rows[0, ParameterField.WEIGHT_NORM] == pytest.approx(math.sqrt(3))
    assert totals.grad_norm == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_gradients_and_weights_that_are_not_finite_spoil_no_sum(bad: float) -> None:
    parameters = parameters_with_gradients()
    parameters[0].grad = torch.tensor([[bad, 1.0, 1.0, 1.0]] * 3)
    with torch.no_grad():
        parameters[1][0] = bad
    rows, totals = step(ParameterNorms(parameters), torch.optim.SGD(parameters, lr=0.1))
    assert rows[:, ParameterField.NON_FINITE].tolist() == [1, 0, 0, 0]
    assert rows[0, ParameterField.FIRST_NON_FINITE] == 7
    assert rows[0, ParameterField.GRAD_NORM] == 0
    assert rows[:, ParameterField.MOVED].tolist() == [0, 0, 1, 1]
    assert rows[1, ParameterField.FIRST_BAD_WEIGHTS] == 7
    assert not math.isfinite(totals.grad_norm)
    assert math.isnan(totals.clip_ratio)


def test_an_update_without_effect_is_noticed() -> None:
    parameters = parameters_with_gradients()
    parameters[1].grad = torch.zeros(5)
    rows, _ = step(ParameterNorms(parameters), torch.optim.SGD(parameters, lr=0.0))
    assert rows[:, ParameterField.ZERO_UPDATES].tolist() == [1, 0, 1, 1]  # no gradient, no wonder
    assert rows[:, ParameterField.FIRST_ZERO_UPDATE].tolist() == [7, math.inf, 7, 7]


def test_sparse_complex_and_mixed_parameters() -> None:
    embedding = nn.Embedding(10, 3, sparse=True)
    embedding(torch.tensor([1, 1, 4])).sum().backward()
    turned = nn.Parameter(torch.tensor([3 + 4j, 1j]))
    turned.grad = torch.tensor([0j, 2 + 0j])
    small = nn.Parameter(torch.ones(2, dtype=torch.float16))
    small.grad = torch.tensor([60000.0, 60000.0], dtype=torch.float16)
    parameters = [embedding.weight, turned, small, nn.Parameter(torch.zeros(0))]
    norms = ParameterNorms(parameters)
    norms.measure_gradients(knows_clip=True)
    norms.begin_update()
    with torch.no_grad():
        turned.add_(1)
    rows, _ = rows_of(norms)
    assert len(rows) == 3  # nothing to measure in the empty one
    # row 1 got gradient 2 from two look-ups: they are added up before the norm is taken
    np.testing.assert_allclose(
        rows[:, ParameterField.GRAD_NORM], [math.sqrt(15), 2, 60000 * math.sqrt(2)], rtol=1e-6
    )
    np.testing.assert_allclose(rows[0, ParameterField.GRAD_ZEROS], 1 - 6 / 30)
    np.testing.assert_allclose(
        rows[1, [ParameterField.WEIGHT_NORM, ParameterField.UPDATE_NORM]], [math.sqrt(26), math.sqrt(2)]
    )


def test_measuring_changes_nothing_and_keeps_no_graph() -> None:
    parameters = parameters_with_gradients()
    kept = [(in_numpy(p), in_numpy(p.grad)) for p in parameters if p.grad is not None]
    norms = ParameterNorms(parameters)
    norms.measure_gradients(knows_clip=True)
    norms.begin_update()
    found = norms.end_update()
    assert found is not None
    assert not found[1].requires_grad
    for parameter, (weights, gradient) in zip(parameters, kept, strict=True):
        assert parameter.grad is not None
        np.testing.assert_array_equal(in_numpy(parameter), weights)
        np.testing.assert_array_equal(in_numpy(parameter.grad), gradient)


def test_an_end_without_a_beginning_says_nothing() -> None:
    norms = ParameterNorms(parameters_with_gradients())
    assert norms.end_update() is None
    norms.begin_update()
    assert norms.end_update() is not None
    assert norms.end_update() is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_other_devices_do_gives_what_the_cpu_does(dtype: torch.dtype) -> None:
    values = [p.grad for p in parameters_with_gradients(dtype=dtype) if p.grad is not None]
    values[1][2] = math.nan
    values[2][0] = -math.inf
    wide = torch.promote_types(dtype, torch.float32)
    here = [found.double() for found in parameter_norms._extent_on_cpu(values, wide)]
    there = [found.double() for found in parameter_norms._extent(values, wide)]
    torch.testing.assert_close(here, there, rtol=0, atol=0, equal_nan=True)


def test_an_optimizer_of_nothing_but_empty_parameters_says_nothing() -> None:
    norms = ParameterNorms([nn.Parameter(torch.zeros(0))])
    norms.measure_gradients(knows_clip=True)
    norms.begin_update()
    assert norms.end_update() is None


def test_steps_worked_on_at_once_equal_those_one_by_one() -> None:
    random = np.random.default_rng(0)
    measured = Measured(np.array([3.0, 5.0, 2.0]), [0, 2], knows_clip=True)
    numbers = random.random((6, 4 * 2 + 2 * 3)) + 0.1
    numbers[1, 0], numbers[2, 9], numbers[3, -1] = math.nan, math.inf, 0.0  # gradient, weights, update
    numbers[4, :4] = 0.0  # no gradient is other than 0
    steps = [3, 4, 6, 7, 11, 12]
    rows, totals = parameter_rows(steps, measured, numbers)
    for at, step in enumerate(steps):
        one, total = parameter_rows([step], measured, numbers[at : at + 1])
        np.testing.assert_array_equal(rows[at], one[0])
        np.testing.assert_array_equal([part[at] for part in totals], np.concatenate(total))
    assert rows[1, 0, ParameterField.FIRST_NON_FINITE] == 4
    assert rows[2, 1, ParameterField.FIRST_BAD_WEIGHTS] == 6
    assert rows[3, 2, ParameterField.FIRST_ZERO_UPDATE] == 7
    assert np.isnan(totals.clip_ratio).tolist() == [False, True, False, False, False, False]
    assert totals.clip_ratio[4] == 1.0
