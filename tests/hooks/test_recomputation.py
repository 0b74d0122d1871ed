from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential, set_checkpoint_early_stop

from actograph.hooks import recomputation
from actograph.hooks.recomputation import is_in_backward, will_be_repeated
from actograph.layout.row import Field
from actograph.observe.watch import watch
from actograph.runlog.view import RunView
from actograph.testing.reference import numpy_row

COUNTS = [Field.NEG_COUNT, Field.POS_COUNT, Field.ZEROS, Field.NEAR_ZERO, Field.MIN, Field.MAX]


def net() -> nn.Sequential:
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))


class Inside(nn.Module):
    """Checkpoints a part of its own forward."""

    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.net, self.reentrant = net(), reentrant

    def forward(self, x: Tensor) -> Any:
        return checkpoint(self.net, x, use_reentrant=self.reentrant)


def train(model: nn.Module, run: Any, batches: list[Tensor], micro_batches: int = 1) -> RunView:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with watch(model, optimizer, out=":memory:", budget=None) as recording:
        for index, x in enumerate(batches):
            run(x).square().mean().backward()
            if (index + 1) % micro_batches == 0:
                optimizer.step()
                optimizer.zero_grad()
            with torch.no_grad():
                run(x)  # in training mode, and all the same no training
    return recording.view()


def check(view: RunView, batches: list[Tensor]) -> None:
    """Compare the rows of all steps with numpy on activations computed layer by layer."""
    assert [layer.name.removeprefix("net.") for layer in view.layers] == ["0", "1", "2", "3", "4"]
    assert len(view.buckets) == len(batches)
    for bucket, x in zip(view.buckets, batches, strict=True):
        out = x
        for row, layer in zip(bucket.rows, net(), strict=True):
            out = layer(out)
            reference = numpy_row(out.detach().numpy())
            np.testing.assert_array_equal(row[COUNTS], reference[COUNTS])
            np.testing.assert_allclose(row[: Field.ZEROS], reference[: Field.ZEROS], rtol=1e-5)


def data() -> list[Tensor]:
    return [torch.randn(5, 4, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("early_stop", [True, False])
@pytest.mark.parametrize("reentrant", [True, False])
def test_a_part_that_is_recomputed_counts_once(*, reentrant: bool, early_stop: bool) -> None:
    model, batches = Inside(reentrant=reentrant), data()
    with set_checkpoint_early_stop(early_stop):
        check(train(model, model, batches), batches)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_whole_model_that_is_recomputed_counts_once_and_is_training(*, reentrant: bool) -> None:
    model, batches = net(), data()
    run = functools.partial(checkpoint, model, use_reentrant=reentrant)
    check(train(model, run, batches), batches)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_model_that_is_called_part_by_part_counts_once(*, reentrant: bool) -> None:
    model, batches = net(), data()
    run = functools.partial(checkpoint_sequential, model, 2, use_reentrant=reentrant)
    check(train(model, run, batches), batches)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("whole", [True, False])
def test_without_torchs_private_sign_a_module_counts_once_a_step(
    monkeypatch: pytest.MonkeyPatch, *, reentrant: bool, whole: bool
) -> None:
    monkeypatch.setattr(recomputation, "CURRENT_BACKWARD", None)
    batches = data()
    if whole:
        model: nn.Module = net()
        check(train(model, functools.partial(checkpoint, model, use_reentrant=reentrant), batches), batches)
    else:
        model = Inside(reentrant=reentrant)
        check(train(model, model, batches), batches)


def test_torch_still_has_its_private_sign_of_a_running_backward() -> None:
    """When this fails modules count once a step (see above): find another sign."""
    assert recomputation.knows_backward()
    seen: list[bool] = []
    x = torch.ones(2, requires_grad=True) * 1
    x.register_hook(lambda _: seen.append(is_in_backward()))  # type: ignore[no-untyped-call]
    assert not is_in_backward()
    x.sum().backward()  # type: ignore[no-untyped-call]
    assert seen == [True]
    assert not is_in_backward()


class Own(torch.autograd.Function):
    """Somebody's own checkpoint."""

    seen: list[bool]

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        Own.seen.append(will_be_repeated())
        return x * 2

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0] * 2


def test_an_autograd_function_repeats_its_forward_only_where_gradients_are_wanted() -> None:
    Own.seen = []
    x = torch.ones(2, requires_grad=True)
    Own.apply(x)  # type: ignore[no-untyped-call]
    Own.apply(x.detach())  # type: ignore[no-untyped-call]
    with torch.no_grad():
        Own.apply(x)  # type: ignore[no-untyped-call]
    assert Own.seen == [True, False, False]
    assert not will_be_repeated()
