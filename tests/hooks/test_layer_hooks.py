from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from actograph.hooks.channels import ChannelAxes
from actograph.hooks.layer_hooks import LayerHooks
from actograph.layout.layer import LayerInfo, Side
from actograph.layout.row import Field
from actograph.sketch.block import Block
from actograph.testing.reference import numpy_fired, numpy_histogram, numpy_row

COUNTS = [Field.NEG_COUNT, Field.POS_COUNT, Field.ZEROS, Field.NEAR_ZERO, Field.FLAT, Field.MIN, Field.MAX]


class Recorded:
    """A model under hooks, and the layers they told of."""

    def __init__(self, model: nn.Module, gate: Callable[[nn.Module], bool] = lambda model: True) -> None:
        self.block = Block()
        self.layers: list[LayerInfo] = []
        self.hooks = LayerHooks(model, self.block, self.layers.append, gate)

    def rows(self) -> dict[str, np.ndarray]:
        return dict(zip([layer.name for layer in self.layers], self.block.take(0)[0], strict=True))


@contextmanager
def recorded(model: nn.Module, gate: Callable[[nn.Module], bool] = lambda model: True) -> Iterator[Recorded]:
    record = Recorded(model, gate)
    with record.hooks:
        yield record
    assert not num_hooks(model)


def num_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def every_activation() -> nn.Sequential:
    """All kinds of nonlinearities, in place where they can be."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, padding=1), nn.SiLU(inplace=True),
        nn.Conv2d(8, 8, 3, padding=1), nn.GELU(),
        nn.BatchNorm2d(8), nn.Hardtanh(inplace=True), nn.MaxPool2d(2), nn.Dropout(0.5),
        nn.Flatten(), nn.Linear(8 * 16, 12), nn.LeakyReLU(inplace=True),
        nn.LayerNorm(12), nn.Tanh(), nn.Linear(12, 3), nn.Sigmoid(),
    )  # fmt: skip


def by_hand(model: nn.Sequential, x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Input and output of each layer, computed one by one on copies."""
    pairs = []
    for layer in model:
        before = x.clone()
        x = layer(x)
        pairs.append((before, x.clone()))
    return pairs


def test_every_layers_row_equals_numpy_on_its_activations() -> None:
    model, x = every_activation(), 3 * torch.randn(16, 1, 8, 8)
    torch.manual_seed(1)
    expected = by_hand(copy.deepcopy(model), x)
    torch.manual_seed(1)
    with recorded(model) as record:
        model(x)
    rows, hist, packed = record.block.take(0)
    assert [layer.kind for layer in record.layers] == [type(layer).__name__ for layer in model]
    flags = iter(packed)
    for layer, row, counts, (before, after) in zip(record.layers, rows, hist, expected, strict=True):
        seen = before if layer.flat is not None and layer.flat.side is Side.INPUT else after
        reference = numpy_row(after.detach().numpy(), seen.detach().numpy(), layer.flat)
        np.testing.assert_array_equal(row[COUNTS], reference[COUNTS], err_msg=layer.name)
        np.testing.assert_allclose(row[: Field.ZEROS], reference[: Field.ZEROS], rtol=1e-5)
        np.testing.assert_array_equal(counts, numpy_histogram(after.detach().numpy()))
        if layer.flat is not None:
            assert layer.channel_axis is not None
            fired = numpy_fired(seen.detach().numpy(), layer.flat, layer.channel_axis)
            mine = np.array([next(flags) for _ in range((layer.num_flags + 7) // 8)], np.uint8)
            np.testing.assert_array_equal(
                np.unpackbits(mine, count=layer.num_units, bitorder="little"), fired
            )
    assert next(flags, None) is None


def test_recording_changes_neither_outputs_nor_gradients_nor_random_state() -> None:
    results = []
    for watched in (False, True):
        torch.manual_seed(5)
        model, x = every_activation(), torch.randn(4, 1, 8, 8)
        if watched:
            with recorded(model):
                model(x).sum().backward()
        else:
            model(x).sum().backward()
        results.append([torch.get_rng_state(), *[p.grad for p in model.parameters()]])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


class Twice(nn.Module):
    def __init__(self, calls: int) -> None:
        super().__init__()
        self.act, self.calls = nn.Tanh(), calls

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.calls):
            x = self.act(x)
        return x


def test_calls_of_one_module_are_told_apart_up_to_four() -> None:
    model = Twice(7)
    with recorded(model) as record:
        model(torch.ones(2, 3))
        model(torch.ones(2, 3))
    rows = record.rows()
    assert list(rows) == ["act", "act[1]", "act[2]", "act[3]", "act[4+]"]
    assert [row[Field.POS_COUNT] for row in rows.values()] == [12, 12, 12, 12, 36]


def test_an_exception_in_the_forward_does_not_leave_it_open() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(3, 3))
    with recorded(model) as record:
        for _ in range(2):
            with pytest.raises(RuntimeError):
                model(torch.ones(1, 2))
        assert record.hooks.depth == 0
    assert list(record.rows()) == ["0"]


def test_the_gate_is_asked_once_for_each_forward() -> None:
    asked: list[nn.Module] = []

    def gate(model: nn.Module) -> bool:
        asked.append(model)
        return len(asked) == 2

    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with recorded(model, gate) as record:
        for _ in range(3):
            model(torch.ones(1, 2))
    assert asked == [model] * 3
    assert record.rows()["0"][: Field.ZEROS + 1][[0, 3, 6]].sum() == 2


def test_parts_called_outside_a_forward_of_the_model_are_seen() -> None:
    model = nn.ModuleDict({"encoder": nn.Linear(2, 4), "decoder": nn.Linear(4, 2)})
    with recorded(model) as record:
        for _ in range(3):
            model["decoder"](model["encoder"](torch.ones(1, 2)))
    assert list(record.rows()) == ["encoder", "decoder"]


def test_nested_outputs_get_a_row_each() -> None:
    model = nn.LSTM(3, 5)
    with recorded(model) as record:
        model(torch.randn(7, 2, 3))
    assert [layer.name for layer in record.layers] == ["model:0", "model:1.0", "model:1.1"]
    assert [layer.num_units for layer in record.layers] == [5, 5, 5]


def test_integer_outputs_are_not_recorded() -> None:
    class Argmax(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.argmax(-1)

    model = nn.Sequential(nn.Linear(2, 2), Argmax())
    with recorded(model) as record:
        model(torch.ones(1, 2))
    assert list(record.rows()) == ["0"]


def test_a_copy_of_the_model_records_nothing() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.GELU())
    with recorded(model) as record:
        copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
        buffer = io.BytesIO()
        torch.save(model, buffer)
        assert b"actograph" not in buffer.getvalue()
        for one in copies:
            one(torch.ones(1, 2))
        assert record.layers == []
        model(torch.ones(1, 2))
    assert record.rows()["0"][Field.NEG_COUNT] + record.rows()["0"][Field.POS_COUNT] >= 0
    assert [layer.name for layer in record.layers] == ["0", "1"]


def test_hooks_go_when_the_body_fails() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(ZeroDivisionError), recorded(model):
        _ = 1 / 0
    assert not num_hooks(model)


@pytest.mark.parametrize(
    ("module", "shape", "axis"),
    [
        (nn.Conv2d(3, 4, 1), (2, 3, 5, 5), 1),
        (nn.Conv2d(3, 4, 1), (3, 5, 5), 0),  # without a batch axis
        (nn.Conv1d(3, 4, 1), (2, 3, 5), 1),
        (nn.Linear(3, 4), (2, 5, 3), 2),
        (nn.BatchNorm1d(3), (2, 3, 5), 1),
        (nn.GroupNorm(1, 3), (2, 3, 5), 1),
        (nn.LayerNorm(3), (2, 5, 3), 2),
        (nn.MaxPool2d(2), (2, 3, 4, 4), 1),
        (nn.ReLU(), (2, 3, 4, 4), 1),
        (nn.ReLU(), (2, 5, 3), 2),
        (nn.ReLU(), (), None),
    ],
)
def test_units_lie_along_the_channel_axis(
    module: nn.Module, shape: tuple[int, ...], axis: int | None
) -> None:
    x = torch.randn(shape)
    assert ChannelAxes().find(module, (x,), module(x)) == axis


def test_an_activation_keeps_the_axis_of_its_producer() -> None:
    axes = ChannelAxes()
    conv, act = nn.Conv1d(3, 4, 1), nn.ReLU()
    x = torch.randn(2, 3, 5)
    y = conv(x)
    axes.find(conv, (x,), y)
    assert axes.find(act, (y,), act(y)) == 1
    assert ChannelAxes().find(act, (y,), act(y)) == 2  # not seen: three axes are taken for a sequence


def fake(model: nn.Module, x: Tensor) -> Tensor:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        shape = model(mode.from_tensor(x)).shape
    return torch.tensor(shape)


def nested(model: nn.Module, x: Tensor) -> Tensor:
    values: Tensor = model(torch.nested.nested_tensor(list(x), layout=torch.jagged)).values()
    return values


OTHER_FORWARDS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "grad": lambda model, x: torch.func.grad(lambda one: model(one).sum())(x),
    "vmap": lambda model, x: torch.func.vmap(model)(x),
    "jvp": lambda model, x: torch.func.jvp(model, (x,), (x,))[1],
    "each sample's": lambda model, x: torch.func.vmap(torch.func.grad(lambda one: model(one).sum()))(x),
    "fake": fake,
    "nested": nested,
}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own, of jvp
@pytest.mark.parametrize("is_known", [False, True], ids=["first", "later"])
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("kind", OTHER_FORWARDS)
def test_forwards_that_are_no_training_are_left_alone(kind: str, *, gradients: bool, is_known: bool) -> None:
    x = torch.randn(2, 3, 4)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.GELU())
    expected = OTHER_FORWARDS[kind](model, x)
    record = Recorded(model)
    record.hooks.gradients = gradients
    with record.hooks:
        if is_known:
            model(x).sum().backward()
        before = record.rows()
        torch.testing.assert_close(OTHER_FORWARDS[kind](model, x), expected)
        assert record.rows().keys() == before.keys()
        assert not any(row[Field.POS_COUNT] for row in record.rows().values())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_model_can_be_traced() -> None:
    model, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU()), torch.randn(2, 4)
    with recorded(model):
        traced = torch.jit.trace(model, x)  # type: ignore[no-untyped-call]
        torch.testing.assert_close(traced(x), model(x))


@pytest.mark.parametrize("fails", [False, True])
def test_an_evaluation_without_gradients_takes_the_fast_path_that_torch_has_without_hooks(
    fails: bool,
) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Linear(8, 2)).eval()
    x = torch.randn(2, 3, 9 if fails else 8)
    calls = Mock(side_effect=torch._transformer_encoder_layer_fwd)
    with recorded(model), pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(torch, "_transformer_encoder_layer_fwd", calls)
        before = num_hooks(model)
        with pytest.raises((RuntimeError, AssertionError)) if fails else nullcontext():
            model(x)
        assert num_hooks(model) == before > 0
    assert calls.call_count == 1
