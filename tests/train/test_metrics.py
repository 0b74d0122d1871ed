from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actograph.errors import UsageError
from actograph.train.metrics import Accuracy, Mean, named_metrics


@given(st.lists(st.tuples(st.floats(-100, 100), st.integers(1, 64)), min_size=1, max_size=20))
def test_the_mean_is_that_of_all_samples_under_uneven_batches(parts: list[tuple[float, int]]) -> None:
    mean = Mean()
    for value, count in parts:
        mean.update(torch.tensor(value, dtype=torch.float64), count)
    expected = sum(value * count for value, count in parts) / sum(count for _, count in parts)
    assert mean.compute() == pytest.approx(expected, abs=1e-9)


def test_the_mean_of_nothing_is_nan_also_after_a_reset() -> None:
    mean = Mean()
    assert math.isnan(mean.compute())
    mean.update(torch.tensor(1.0), 2)
    mean.reset()
    assert math.isnan(mean.compute())


def test_the_mean_holds_no_graph() -> None:
    mean = Mean()
    mean.update(torch.tensor(2.0, requires_grad=True) * 3, 1)
    assert mean._total is not None
    assert not mean._total.requires_grad


@pytest.mark.parametrize("shape", [(), (4, 2)])
def test_accuracy_equals_a_count_by_hand(shape: tuple[int, ...]) -> None:
    accuracy, right, total = Accuracy(), 0, 0
    for size in (8, 8, 3):
        pred, target = torch.randn(size, 5, *shape), torch.randint(0, 5, (size, *shape))
        accuracy.update(pred, target)
        right += int((pred.numpy().argmax(axis=1) == target.numpy()).sum())
        total += target.numel()
    assert accuracy.compute() == right / total
    accuracy.reset()
    assert math.isnan(accuracy.compute())


@pytest.mark.parametrize("target", [(4,), (5, 1), (5, 3)])
def test_accuracy_names_both_shapes_that_do_not_fit(target: tuple[int, ...]) -> None:
    with pytest.raises(UsageError) as error:
        Accuracy().update(torch.zeros(5, 3), torch.zeros(target))
    assert "(5, 3)" in str(error.value)
    assert str(target) in str(error.value)


def test_metrics_are_known_by_their_snake_names() -> None:
    assert list(named_metrics([Accuracy()])) == ["accuracy"]
    with pytest.raises(UsageError, match="two metrics are called accuracy"):
        named_metrics([Accuracy(), Accuracy()])
    with pytest.raises(UsageError, match=r"write Accuracy\(\), not Accuracy"):
        named_metrics([Accuracy])  # type: ignore[list-item]
