from __future__ import annotations

import math

import pytest

from actograph.callbacks.monitor import Monitor, mode_of
from actograph.errors import UsageError
from actograph.testing.callbacks import tiny_loop
from actograph.train.metrics import Accuracy, named_metrics
from actograph.train.metrics_classes import ConfusionMatrix


@pytest.mark.parametrize("name", ["valid_loss", "mae", "rmse", "mean_squared_error", "perplexity"])
def test_of_losses_and_errors_the_lowest_is_best(name: str) -> None:
    assert mode_of(name) == "min"


@pytest.mark.parametrize("name", ["accuracy", "top_5", "f1", "binary_auroc", "all_precision"])
def test_of_scores_the_highest_is_best(name: str) -> None:
    assert mode_of(name) == "max"


def test_a_name_that_does_not_tell_needs_a_mode() -> None:
    with pytest.raises(UsageError, match="low or a high 'previous' better"):
        Monitor("previous")  # has iou in it
    assert Monitor("previous", "max").mode == "max"
    with pytest.raises(UsageError, match="mode='auto': choose 'min' or 'max'"):
        Monitor("mae", "auto")  # type: ignore[arg-type]


@pytest.mark.parametrize("min_delta", [-0.1, math.nan])
def test_the_smallest_change_is_no_negative_number(min_delta: float) -> None:
    with pytest.raises(UsageError, match=f"min_delta={min_delta}"):
        Monitor("mae", min_delta=min_delta)


def test_better_is_a_change_of_more_than_the_smallest_in_the_right_direction() -> None:
    loss, score = Monitor("mae", min_delta=0.5), Monitor("f1", min_delta=0.5)
    assert loss.is_better(0.4, than=1.0)
    assert not loss.is_better(0.5, than=1.0)
    assert not loss.is_better(1.6, than=1.0)
    assert score.is_better(1.6, than=1.0)
    assert not score.is_better(1.5, than=1.0)
    for monitor in (loss, score):
        assert monitor.is_better(1e9, than=monitor.worst)
        assert not monitor.is_better(math.nan, than=monitor.worst)


def test_an_unknown_value_is_refused_with_a_near_name() -> None:
    loop = tiny_loop()
    loop.metrics = named_metrics([Accuracy(), ConfusionMatrix()])
    Monitor("accuracy").check(loop)
    with pytest.raises(UsageError, match="no value 'acuracy': did you mean 'accuracy'"):
        Monitor("acuracy", "max").check(loop)
    loop.fit(1)
    with pytest.raises(
        UsageError, match=r"confusion_matrix has more than one number .* train_loss, valid_loss"
    ):
        Monitor("confusion_matrix", "max").read(loop)
    assert Monitor("valid_loss").read(loop) == loop.values["valid_loss"]
    loop.is_epoch_whole = False
    assert Monitor("valid_loss").read(loop) is None
    with pytest.raises(UsageError, match=r"no valid loader\): did you mean 'train_loss'"):
        Monitor("valid_loss").check(tiny_loop(is_valid=False))
    with pytest.raises(UsageError, match=r"no valid loader\): there are: train_loss"):
        Monitor("accuracy").check(tiny_loop(is_valid=False))
