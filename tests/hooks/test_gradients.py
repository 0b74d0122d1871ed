from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from actograph.hooks.layer_hooks import LayerHooks
from actograph.layout.layer import LayerInfo, Quantity
from actograph.layout.row import Field
from actograph.sketch.block import Block
from actograph.testing.reference import numpy_histogram, numpy_row

COUNTS = [Field.NEG_COUNT, Field.POS_COUNT, Field.ZEROS, Field.NEAR_ZERO, Field.MIN, Field.MAX]


class Recorded:
    """A model whose gradients are watched."""

    def __init__(self, model: nn.Module) -> None:
        self.block = Block()
        self.layers: list[LayerInfo] = []
        self.hooks = LayerHooks(
            model, self.block, self.layers.append, lambda _: torch.is_grad_enabled(), gradients=True
        )

    def take(self, quantity: Quantity = Quantity.GRADIENT) -> dict[str, np.ndarray]:
        """Rows of one quantity, by name."""
        rows, self.hist, _ = self.block.take(0)
        self.num_rows = len(rows)
        return {
            layer.name: row
            for layer, row in zip(self.layers, rows, strict=True)
            if layer.quantity is quantity
        }


@contextmanager
def recorded(model: nn.Module) -> Iterator[Recorded]:
    record = Recorded(model)
    with record.hooks:
        yield record


def net(*, inplace: bool = True) -> nn.Sequential:
    """Modules in place after others, aliases, and a layer whose output is a view."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(inplace=inplace), nn.BatchNorm2d(4), nn.Hardtanh(inplace=inplace),
        nn.Dropout(0.5, inplace=inplace), nn.Identity(), nn.Flatten(), nn.Linear(4 * 36, 5), nn.LeakyReLU(inplace=inplace),
        nn.Linear(5, 2),
    )  # fmt: skip


def gradients_by_hand(model: nn.Sequential, x: Tensor) -> list[Tensor]:
    """The loss's gradient by each layer's output, each layer working on a copy of what the one before gave."""
    outputs = []
    for layer in model:
        x = layer(x.clone())
        outputs.append(x)
        x = x.clone()
    return list(torch.autograd.grad(x.square().mean(), outputs))


@pytest.mark.parametrize("inplace", [True, False])
def test_gradient_rows_equal_numpy_on_gradients_gathered_by_hand(inplace: bool) -> None:
    model, x = net(inplace=inplace), torch.randn(16, 1, 8, 8)
    torch.manual_seed(1)
    expected = gradients_by_hand(copy.deepcopy(model), x)
    torch.manual_seed(1)
    with recorded(model) as record:
        model(x).square().mean().backward()
    rows = record.take()
    assert list(rows) == [str(index) for index in range(len(model))]
    positions = [index for index, layer in enumerate(record.layers) if layer.quantity is Quantity.GRADIENT]
    for row, gradient, position in zip(rows.values(), expected, positions, strict=True):
        reference = numpy_row(gradient.numpy())
        np.testing.assert_array_equal(row[COUNTS], reference[COUNTS])
        np.testing.assert_allclose(row[: Field.ZEROS], reference[: Field.ZEROS], rtol=1e-5)
        np.testing.assert_array_equal(record.hist[position], numpy_histogram(gradient.numpy()))


def test_a_gradient_layer_has_the_shape_of_its_activation_and_no_flat_region() -> None:
    with recorded(nn.Sequential(nn.Linear(3, 4), nn.ReLU())) as record:
        record.hooks.model(torch.randn(2, 3)).sum().backward()
    assert [(layer.name, layer.quantity.value, layer.num_flags) for layer in record.layers] == [
        ("0", "activation", 0),
        ("0", "gradient", 0),
        ("1", "activation", 4),
        ("1", "gradient", 0),
    ]
    assert {layer.shape for layer in record.layers} == {(2, 4)}


def test_a_second_backward_through_a_retained_graph_is_merged() -> None:
    model = nn.Linear(3, 4)
    with recorded(model) as record:
        loss = model(torch.randn(2, 3)).square().sum()
        loss.backward(retain_graph=True)
        loss.backward()
    assert record.take()["model"][[Field.NEG_COUNT, Field.POS_COUNT]].sum() == 2 * 8


def test_recording_gradients_changes_no_gradient() -> None:
    results = []
    for watched in (False, True):
        model, x = net(), torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        torch.manual_seed(5)
        if watched:
            with recorded(model):
                model(x).sum().backward()
        else:
            model(x).sum().backward()
        results.append([torch.get_rng_state(), *[p.grad for p in model.parameters()]])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_without_gradients_there_are_no_gradient_rows() -> None:
    model = nn.Linear(3, 4)
    for parameter in model.parameters():
        parameter.requires_grad = False
    with recorded(model) as record:
        model(torch.randn(2, 3))
        with torch.no_grad():
            model(torch.randn(2, 3))
    assert [layer.quantity for layer in record.layers] == [Quantity.ACTIVATION]


def test_a_layer_that_is_thawed_later_gets_its_gradient_row() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4))
    model[0].requires_grad_(requires_grad=False)
    with recorded(model) as record:
        model(torch.randn(2, 3)).sum().backward()
        model[0].requires_grad_()
        model(torch.randn(2, 3)).sum().backward()
    assert {name: row[Field.POS_COUNT] + row[Field.NEG_COUNT] for name, row in record.take().items()} == {
        "0": 8,
        "1": 16,
    }


class Table(nn.Module):
    """Gives its own parameter away: a leaf of the graph, on which a hook would stay."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight


def test_no_hook_stays_on_a_parameter_that_a_module_returns() -> None:
    model = nn.Sequential(Table(), nn.ReLU())
    with recorded(model):
        for _ in range(3):
            model(torch.ones(1)).sum().backward()
    assert not model[0].weight._backward_hooks


class Checkpointed(nn.Module):
    def __init__(self, *, use_reentrant: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
        self.head = nn.Linear(4, 2)
        self.use_reentrant = use_reentrant

    def forward(self, x: Tensor) -> Tensor:
        hidden = checkpoint(self.body, x, use_reentrant=self.use_reentrant)
        assert isinstance(hidden, Tensor)
        y: Tensor = self.head(hidden)
        return y


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointed_layers_count_once(use_reentrant: bool) -> None:
    torch.manual_seed(2)
    model, x = Checkpointed(use_reentrant=use_reentrant), torch.randn(5, 3, requires_grad=True)
    plain = nn.Sequential(*copy.deepcopy(model.body), copy.deepcopy(model.head))
    expected = gradients_by_hand(plain, x)
    with recorded(model) as record:
        for _ in range(2):  # the second time the layers are known
            record.block.take(0)
            model(x).square().mean().backward()
    rows, _, _ = record.block.take(0)
    for layer, row in zip(record.layers, rows, strict=True):
        assert row[[Field.NEG_COUNT, Field.POS_COUNT, Field.ZEROS]].sum() == np.prod(layer.shape), layer
    by_name = {
        layer.name: row
        for layer, row in zip(record.layers, rows, strict=True)
        if layer.quantity == "gradient"
    }
    for name, gradient in zip(("body.0", "body.1", "head"), expected, strict=True):
        np.testing.assert_allclose(
            by_name[name][: Field.ZEROS], numpy_row(gradient.numpy())[: Field.ZEROS], rtol=1e-5
        )


def test_a_repeated_forward_is_left_alone_where_the_first_was_not_measured() -> None:
    model = Checkpointed(use_reentrant=False)
    loss = model(torch.randn(5, 3)).sum()
    with recorded(model) as record:
        loss.backward()
    assert record.layers == []


def test_a_whole_model_that_is_recomputed_counts_once() -> None:
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh()), torch.randn(5, 3)
    with recorded(model) as record:
        y = checkpoint(model, x, use_reentrant=False)
        assert isinstance(y, Tensor)
        y.sum().backward()  # type: ignore[no-untyped-call]
    rows, _, _ = record.block.take(0)
    assert [row[[Field.NEG_COUNT, Field.POS_COUNT, Field.ZEROS]].sum() for row in rows] == [20] * 4


def test_a_backward_after_the_hooks_are_gone_records_nothing() -> None:
    model = nn.Linear(3, 4)
    with recorded(model) as record:
        loss = model(torch.randn(2, 3)).sum()
    loss.backward()
    assert record.take()["model"][Field.POS_COUNT] == 0


@given(exponent=st.integers(-20, 40), seed=st.integers(0, 10))
def test_a_loss_scale_that_is_a_power_of_two_changes_no_number(exponent: int, seed: int) -> None:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))
    rows, hists = [], []
    for scale in (1.0, 2.0**exponent):
        torch.manual_seed(seed)
        with recorded(nn.Sequential(nn.Linear(3, 4), nn.Tanh())) as record:
            record.hooks.loss_scale = scale
            (record.hooks.model(x).square().mean() * scale).backward()
        rows.append(np.stack(list(record.take().values())))
        hists.append(record.hist)
    np.testing.assert_array_equal(rows[0], rows[1])
    np.testing.assert_array_equal(hists[0], hists[1])


def test_half_precision_gradients_do_not_underflow_when_the_scale_is_undone() -> None:
    model, scale = nn.Linear(2, 3).half(), 2.0**16
    with recorded(model) as record:
        record.hooks.loss_scale = scale
        (model(torch.ones(1, 2, dtype=torch.float16)).sum() * 2.0**-10).backward()
    assert record.take()["model"][Field.MAX] == 2.0**-26  # the smallest float16 is 2^-24


def test_the_smallest_scale_change_is_seen_by_layers_that_are_added_later() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    with recorded(model) as record:
        record.hooks.loss_scale = 4.0
        (model(torch.ones(1, 2)).sum() * 4.0).backward()
    assert record.take()["0"][Field.MAX] == 1.0
