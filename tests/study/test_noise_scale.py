from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from actograph.data.loaders import TensorLoader
from actograph.study.noise_scale import GradientNorms, as_trained, gradient_norms, ratio_of_means

NUM_SAMPLES, FEATURES = 24, 3


def linear_problem() -> tuple[nn.Module, nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Linear(FEATURES, 1).double()
    x = torch.randn(NUM_SAMPLES, FEATURES, dtype=torch.float64)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64) + torch.randn(NUM_SAMPLES, 1).double()
    return model, nn.MSELoss(), x, y


def sample_gradients(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    assert isinstance(model, nn.Linear)
    error = 2 * (model(x) - y).detach()  # (samples, 1)
    return torch.cat([error * x, error], 1).numpy()


def test_signal_and_noise_are_on_average_those_of_all_samples() -> None:
    model, loss_func, x, y = linear_problem()
    each = sample_gradients(model, x, y)
    signal, noise = float(np.square(each.mean(0)).sum()), float(each.var(0, ddof=1).sum())
    norms = gradient_norms(
        model, loss_func, TensorLoader(x, y, 4, shuffle=True),
        small_size=4, num_small=3, num_samples=NUM_SAMPLES, num_passes=200,
    )  # fmt: skip
    assert len(norms.small) == 200 * 2
    # standard errors are about 2 %; without the correction for finite samples the signal would be off by more
    assert np.mean(norms.signal) == pytest.approx(signal, rel=0.08)
    assert np.mean(norms.noise) == pytest.approx(noise, rel=0.08)
    assert norms.scale.low < noise / signal < norms.scale.high
    assert noise / NUM_SAMPLES > 0.16 * signal


def test_a_pair_is_made_of_the_gradients_of_its_batches() -> None:
    model, loss_func, x, y = linear_problem()
    each = sample_gradients(model, x, y)
    norms = gradient_norms(
        model,
        loss_func,
        TensorLoader(x, y, 4),
        small_size=4,
        num_small=2,
        num_samples=NUM_SAMPLES,
        num_passes=1,
    )
    parts = [each[:4].mean(0), each[4:8].mean(0)]
    assert norms.small[0] == pytest.approx(np.mean([part @ part for part in parts]))
    assert norms.big[0] == pytest.approx(np.square(each[:8].mean(0)).sum())


def test_numerator_and_denominator_are_averaged_before_the_division() -> None:
    norms = GradientNorms([2.0, 5.0], [1.5, 1.5], small_size=1, big_size=2, num_samples=10**9)
    assert norms.noise == [1.0, 7.0]
    assert norms.scale.value == pytest.approx(4.0 / np.mean([1.0, -2.0]), rel=1e-6)


def test_fieller_covers_the_true_ratio_in_95_of_100_cases() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        below = generator.normal(2.0, 1.0, 12)
        above = 3.0 * below + generator.normal(0.0, 2.0, 12)
        estimate = ratio_of_means(above.tolist(), below.tolist())
        hits += estimate.low <= 3.0 <= estimate.high
    assert 365 <= hits <= 395


def test_a_denominator_that_may_be_zero_leaves_the_interval_without_an_end() -> None:
    estimate = ratio_of_means([5.0, 6.0, 7.0, 6.0], [0.1, -0.2, 0.3, 0.1])
    assert estimate.high == math.inf
    assert estimate.low > 0
    assert not estimate.is_known


def test_batch_norms_are_measured_with_the_means_of_all_data_and_dropout_with_its_noise() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(FEATURES, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)).eval()
    x, y = torch.randn(32, FEATURES), torch.zeros(32, dtype=torch.long)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    copied = as_trained(model, TensorLoader(x, y, 32))
    modes = [module.training for module in copied]  # type: ignore[attr-defined]
    assert modes == [True, False, True, True]
    with torch.no_grad():
        torch.testing.assert_close(copied[1].running_mean, model[0](x).mean(0))  # type: ignore[index]
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
