from __future__ import annotations

from typing import Any

import pytest
import torch

from actograph.errors import UsageError
from actograph.train.state import Batch, Phase, Progress


@pytest.mark.parametrize(
    ("x", "y", "size"),
    [
        (torch.zeros(5, 2), torch.zeros(5), 5),
        (torch.zeros(5, 2), None, 5),
        (torch.zeros(5, 2), torch.tensor(1.0), 5),
        ({"a": "text", "b": (torch.zeros(7, 1),)}, None, 7),
        ([torch.tensor(1.0), torch.zeros(3)], "label", 3),
        (None, None, 1),
    ],
)
def test_the_size_of_a_batch_is_the_first_axis_found(x: Any, y: Any, size: int) -> None:
    assert Batch(x, y).size == size


def test_a_loss_read_too_early_says_when_it_is_there() -> None:
    batch = Batch(None, None)
    assert not batch.has_loss
    with pytest.raises(UsageError, match="it is there from after_loss on"):
        _ = batch.loss


def test_a_loss_that_is_no_scalar_is_refused_with_its_shape() -> None:
    with pytest.raises(UsageError, match=r"shape is \(4, 1\)"):
        Batch(None, None).loss = torch.zeros(4, 1)


def test_a_loss_that_is_no_tensor_is_refused_with_its_type() -> None:
    with pytest.raises(UsageError, match=r"not float \(0.5\)"):
        Batch(None, None).loss = 0.5  # type: ignore[assignment]


def test_the_fraction_is_zero_at_the_first_batch_and_one_behind_the_last() -> None:
    progress = Progress()
    progress.start_fit(2)
    seen = []
    for epoch in range(2):
        progress.start_epoch(epoch)
        progress.start_phase(Phase.TRAIN, 4)
        for index in range(4):
            progress.start_batch(index)
            seen.append(progress.fraction)
        progress.end_phase()
        progress.start_phase(Phase.VALID, 3)
        progress.start_batch(2)
        progress.end_phase()
    assert seen == [index / 8 for index in range(8)]
    assert progress.fraction == 1.0


def test_more_batches_than_announced_do_not_push_the_fraction_past_the_epoch() -> None:
    progress = Progress()
    progress.start_fit(2)
    progress.start_phase(Phase.TRAIN, 4)
    progress.start_batch(9)
    assert progress.fraction == 0.5


def test_progress_is_printed_for_people() -> None:
    assert str(Progress(num_epochs=3, batch=7, step=9)) == "epoch 0 of 3, train batch 7, step 9"
