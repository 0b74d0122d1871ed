from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from actograph.models import simple_cnn
from actograph.study.windows import (
    best_share,
    effective_rank,
    first_layer,
    kept_share,
    measured_field,
    receptive_field,
    spread,
    windows_of,
)


def test_the_effective_rank_is_that_of_the_naive_formula() -> None:
    values = np.random.default_rng(0).random(6)
    shares = [value / sum(values) for value in values]
    assert effective_rank(values) == pytest.approx(
        np.exp(-sum(one * np.log(one) for one in shares)), rel=1e-12
    )
    assert np.isnan(effective_rank(np.zeros(3)))
    assert np.isnan(effective_rank(np.array([1.0, np.nan])))


def test_singular_values_of_a_spread_are_those_of_the_centred_rows() -> None:
    rows = np.random.default_rng(1).normal(3.0, 1.0, (50, 4))
    covariance, values = spread(rows)
    naive = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False) / np.sqrt(50)
    assert np.sort(values)[::-1] == pytest.approx(naive, rel=1e-10)
    assert covariance == pytest.approx(np.cov(rows, rowvar=False, bias=True), rel=1e-10)


def test_windows_times_filters_are_what_the_convolution_answers() -> None:
    conv = nn.Conv2d(2, 3, 3, stride=2, padding=2, dilation=2, bias=False).double()
    images = torch.randn(4, 2, 9, 9, dtype=torch.float64)
    by_windows = windows_of(conv, images) @ conv.weight.detach().flatten(1).numpy().T
    answers = conv(images).detach().permute(0, 2, 3, 1).reshape(-1, 3).numpy()
    assert by_windows == pytest.approx(answers, abs=1e-12)


def test_what_filters_keep_is_what_can_be_restored_from_their_answers() -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(400, 5)) @ rng.normal(size=(5, 5))
    filters = rng.normal(size=(2, 5))
    covariance, _ = spread(rows)
    centred = rows - rows.mean(axis=0)
    restored = centred @ np.linalg.pinv(filters) @ filters  # onto the filters' directions
    share = 1 - ((centred - restored) ** 2).sum() / (centred**2).sum()
    assert kept_share(covariance, filters) == pytest.approx(share, rel=1e-9)
    assert kept_share(covariance, filters) < best_share(covariance, 2) < 1
    assert kept_share(covariance, np.vstack([filters, filters])) == pytest.approx(share, rel=1e-9)
    assert best_share(covariance, 5) == pytest.approx(1.0)


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_receptive_fields_by_formula_are_those_of_the_gradient(kernel: int) -> None:
    convs = [one for one in simple_cnn(10, first_kernel=kernel).modules() if isinstance(one, nn.Conv2d)]
    assert receptive_field(convs) == measured_field(convs)
    assert receptive_field(convs)[:3] == [kernel, kernel + 4, kernel + 12]


def test_a_spread_kernel_sees_as_wide_as_a_larger_one() -> None:
    wide = [nn.Conv2d(1, 8, 3, stride=2, padding=2, dilation=2), nn.Conv2d(8, 16, 3, stride=2, padding=1)]
    assert receptive_field(wide) == measured_field(wide) == [5, 9]


def test_a_filter_that_never_fires_is_missing_from_the_outputs_rank_alone() -> None:
    block = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
    assert isinstance(block[0], nn.Conv2d)
    with torch.no_grad():
        assert block[0].bias is not None
        block[0].bias[0] = -100.0
    measured = first_layer(block, torch.randn(8, 1, 8, 8))
    assert measured["responses_numerical"] == 4
    assert measured["outputs_numerical"] == 3
    assert block[0].weight.dtype == torch.float32


def test_weights_that_diverged_give_nan() -> None:
    block = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    assert isinstance(block[0], nn.Conv2d)
    with torch.no_grad():
        block[0].weight[0, 0, 0, 0] = torch.nan
    measured = first_layer(block, torch.randn(8, 1, 8, 8))
    assert np.isnan([measured["kept"], measured["filters_rank"], measured["outputs_rank"]]).all()
