from __future__ import annotations

import pytest
import torch
from torch import nn

from actograph.errors import UsageError
from actograph.train.state import Batch
from actograph.train.step import LossFunction, Supervised, TrainStep, describe


def supervised(loss_func: LossFunction) -> TrainStep:
    model = nn.Linear(2, 3)
    return Supervised(model, loss_func, torch.optim.SGD(model.parameters(), lr=0.1))


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (torch.zeros(5, dtype=torch.long), r"int64 \(5,\)"),
        (torch.full((4,), 3), r"int64 \(4,\): Target 3 is out of bounds"),
        (torch.zeros(4, 2), r"float32 \(4, 2\)"),
    ],
)
def test_an_output_that_does_not_fit_the_target_names_both(target: torch.Tensor, words: str) -> None:
    batch = Batch(torch.zeros(4, 2), target)
    step = supervised(nn.functional.cross_entropy)
    batch.pred = step.forward(batch)
    with pytest.raises(UsageError, match=rf"output float32 \(4, 3\) and target {words}") as error:
        step.loss(batch)
    assert error.value.__cause__ is not None


@pytest.mark.parametrize("loss_func", [nn.functional.mse_loss, nn.SmoothL1Loss()])
def test_outputs_are_not_paired_with_the_targets_of_others(loss_func: LossFunction) -> None:
    batch = Batch(torch.zeros(4, 2), torch.zeros(4))
    batch.pred = torch.zeros(4, 1)
    with pytest.raises(UsageError, match=r"output float32 \(4, 1\) and target float32 \(4,\): .* same shape"):
        supervised(loss_func).loss(batch)
    batch.y = torch.ones(4, 1)
    assert supervised(loss_func).loss(batch) > 0


@pytest.mark.parametrize("loss_func", [nn.functional.mse_loss, nn.functional.cross_entropy])
def test_an_output_that_is_no_tensor_is_named(loss_func: LossFunction) -> None:
    batch = Batch(torch.zeros(4, 2), torch.zeros(4, 1))
    batch.pred = (torch.zeros(4, 1), None)
    with pytest.raises(
        UsageError, match=r"output \[float32 \(4, 1\), NoneType\] and target float32 \(4, 1\)"
    ):
        supervised(loss_func).loss(batch)


def test_out_of_memory_is_not_taken_for_a_wrong_shape() -> None:
    def hungry(pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        supervised(hungry).loss(Batch(None, None))


def test_zero_sets_gradients_to_none() -> None:
    step = supervised(nn.functional.mse_loss)
    assert isinstance(step, Supervised)
    step.backward(step.model(torch.ones(1, 2)).sum())
    assert step.complete(is_last=False)
    assert step.model.weight.grad is not None
    step.zero()
    assert step.model.weight.grad is None


def test_describe_goes_into_containers() -> None:
    assert describe([torch.zeros(2), (1, None)]) == "[float32 (2,), [int, NoneType]]"
