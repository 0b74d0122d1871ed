from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from actograph.callbacks.activation_stats import ActivationStats
from actograph.callbacks.recorder import Recorder
from actograph.data.loaders import Loaders, TensorLoader
from actograph.errors import UsageError
from actograph.learner import Learner
from actograph.train.predictions import join

X, Y = torch.randn(10, 4, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 3


def learner(
    model: nn.Module | None = None, loss_func: Any = nn.functional.cross_entropy, **options: Any
) -> Learner:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)) if model is None else model
    loaders = Loaders(TensorLoader(X, Y, 5, shuffle=True), TensorLoader(X, Y, 4), class_names=("a", "b", "c"))
    return Learner(model, loaders, loss_func, **{"defaults": (), **options})


def test_outputs_and_targets_of_a_loader_are_joined_in_eval_mode() -> None:
    learn = learner()
    outputs, targets = learn.predict_loader()
    assert torch.equal(targets, Y)
    torch.testing.assert_close(outputs, learn.predict(X))
    assert learn.model.training  # as it was
    assert not outputs.requires_grad
    others, _ = learn.predict_loader([(X[:2], Y[:2])])
    torch.testing.assert_close(others, outputs[:2])


def test_nothing_is_recorded_and_no_event_fired() -> None:
    learn = learner(callbacks=[ActivationStats(budget=None, out=":memory:")], defaults=[Recorder])
    learn.fit(1)
    before = learn.callbacks[ActivationStats].view.rows, learn.recorder.losses, learn.loop.progress.step
    learn.predict_loader()
    learn.top_losses(2)
    np.testing.assert_array_equal(learn.callbacks[ActivationStats].view.rows, before[0])
    np.testing.assert_array_equal(learn.recorder.losses, before[1])
    assert learn.loop.progress.step == before[2]


def test_nested_outputs_are_joined() -> None:
    parts = [{"a": (torch.zeros(2, 1), [torch.ones(2)]), "n": torch.tensor(1.0)}] * 2
    joined = join(parts)
    assert joined["a"][0].shape == (4, 1)
    assert joined["a"][1][0].tolist() == [1.0] * 4
    assert joined["n"].tolist() == [1.0, 1.0]
    assert join(["x", "y"]) == ["x", "y"]


@pytest.mark.parametrize(
    "loss_func",
    [
        nn.functional.cross_entropy,
        nn.CrossEntropyLoss(label_smoothing=0.1),
        lambda p, y: (p.sum(1) - y).abs().mean(),
    ],
)
def test_top_losses_are_the_samples_one_by_one(loss_func: Any) -> None:
    learn = learner(loss_func=loss_func)
    top = learn.top_losses(3)
    outputs = learn.predict(X)
    losses = torch.stack([loss_func(outputs[i : i + 1], Y[i : i + 1]) for i in range(len(X))])
    torch.testing.assert_close(top.losses, losses.sort(descending=True).values[:3])
    assert top.indices.tolist() == losses.argsort(descending=True)[:3].tolist()
    torch.testing.assert_close(top.predictions, outputs[top.indices])
    assert torch.equal(top.targets, Y[top.indices])
    assert len(learn.top_losses(99).indices) == len(X)


def test_a_confusion_matrix_is_drawn_with_the_names_of_the_classes() -> None:
    class Shift(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.one_hot(x[:, 0].long(), 3) + self.weight

    taken = torch.tensor([0.0, 1, 1, 2]).reshape(4, 1)
    data = Loaders([], [(taken, torch.tensor([0, 0, 1, 2]))], class_names=("a", "b", "c"))
    figure = Learner(Shift(), data, nn.functional.cross_entropy, defaults=()).plot_confusion()
    assert figure.data[0].customdata.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert list(figure.data[0].y) == ["a", "b", "c"]


def test_what_cannot_be_predicted_is_told() -> None:
    learn = learner()
    with pytest.raises(UsageError, match="number of samples of at least 1, not 0"):
        learn.top_losses(0)
    with pytest.raises(UsageError, match="must give pairs"):
        learn.predict_loader([X])
    learn.valid_loader = None
    with pytest.raises(UsageError, match="there is no valid loader"):
        learn.predict_loader()
