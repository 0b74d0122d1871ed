"""Our metrics equal scikit-learn's, on uneven batches, ties left out (scikit-learn 1.9)."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from actograph.train.metrics import Accuracy, TopK
from actograph.train.metrics_classes import F1, Average, ConfusionMatrix, PerClassAccuracy
from actograph.train.metrics_errors import MAE, RMSE

sklearn_metrics = pytest.importorskip("sklearn.metrics")

Samples = tuple[Tensor, Tensor, int]  # outputs (N, C), targets (N,), samples in a batch


@st.composite
def samples(draw: st.DrawFn) -> Samples:
    """Draw outputs and targets; some classes may never occur."""
    num_samples, num_classes = draw(st.integers(1, 40)), draw(st.integers(2, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    pred = torch.randn(num_samples, num_classes, generator=generator)
    target = torch.randint(0, draw(st.integers(1, num_classes)), (num_samples,), generator=generator)
    return pred, target, draw(st.integers(1, num_samples))


def measured(metric: Accuracy | TopK | F1 | ConfusionMatrix | PerClassAccuracy, given: Samples) -> object:
    pred, target, size = given
    for pred_part, target_part in zip(torch.split(pred, size), torch.split(target, size), strict=True):
        metric.update(pred_part, target_part)
    return metric.compute()


@given(samples())
def test_accuracy_and_confusion_matrix(given: Samples) -> None:
    pred, target, _ = given
    classes = pred.argmax(1)
    assert measured(Accuracy(), given) == pytest.approx(sklearn_metrics.accuracy_score(target, classes))
    labels = range(pred.shape[1])
    expected = sklearn_metrics.confusion_matrix(target, classes, labels=labels)
    assert np.array_equal(np.asarray(measured(ConfusionMatrix(), given)), expected)


@given(samples())
def test_per_class_accuracy_is_recall(given: Samples) -> None:
    pred, target, _ = given
    expected = sklearn_metrics.recall_score(
        target, pred.argmax(1), labels=range(pred.shape[1]), average=None, zero_division=np.nan
    )
    assert np.asarray(measured(PerClassAccuracy(), given)) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
@given(given=samples())
def test_f1(average: Average, given: Samples) -> None:
    pred, target, _ = given
    expected = sklearn_metrics.f1_score(target, pred.argmax(1), average=average, zero_division=0.0)
    assert measured(F1(average), given) == pytest.approx(expected)


@given(samples())
def test_f1_of_yes_and_no(given: Samples) -> None:
    logits, target, size = given[0][:, 0], (given[1] > 0).float(), given[2]
    expected = sklearn_metrics.f1_score(target, logits > 0, average="binary", zero_division=0.0)
    assert measured(F1("binary", threshold=0.0), (logits, target, size)) == pytest.approx(expected)


@given(samples(), st.integers(1, 3))
def test_top_k(given: Samples, k: int) -> None:
    pred, target, _ = given
    k = min(k, pred.shape[1])
    labels = range(pred.shape[1])
    if pred.shape[1] == 2:  # scikit-learn takes a single score for two classes
        expected = 1.0 if k == 2 else sklearn_metrics.accuracy_score(target, pred.argmax(1))
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that k classes of k are always right
            expected = sklearn_metrics.top_k_accuracy_score(target, pred, k=k, labels=labels)
    assert measured(TopK(k), given) == pytest.approx(expected)


def test_errors() -> None:
    pred, target = torch.randn(50, dtype=torch.float64), torch.randn(50, dtype=torch.float64)
    mae, rmse = MAE(), RMSE()
    for rows in (slice(0, 32), slice(32, 50)):
        mae.update(pred[rows], target[rows])
        rmse.update(pred[rows], target[rows])
    assert mae.compute() == pytest.approx(sklearn_metrics.mean_absolute_error(target, pred))
    assert rmse.compute() == pytest.approx(sklearn_metrics.root_mean_squared_error(target, pred))
