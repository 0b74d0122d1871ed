from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint

from actograph.errors import UsageError
from actograph.hooks.functional import NOT_COMPILED, Functional
from actograph.hooks.functional_table import ACTIVATIONS
from actograph.layout.layer import Side
from actograph.layout.row import Field
from actograph.observe.watch import watch
from actograph.runlog.view import RunView
from actograph.testing.reference import numpy_fired, numpy_histogram, numpy_row

COUNTS = [Field.NEG_COUNT, Field.POS_COUNT, Field.ZEROS, Field.NEAR_ZERO, Field.FLAT, Field.MIN, Field.MAX]


@pytest.fixture(autouse=True)
def _leaves_no_mode() -> Iterator[None]:
    yield
    assert not _get_current_function_mode_stack()  # type: ignore[no-untyped-call]


class Calls(nn.Module):
    """One activation after a linear layer."""

    def __init__(self, act: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.linear, self.act = nn.Linear(4, 6), act

    def forward(self, x: Tensor) -> Any:
        return self.act(self.linear(x))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.act = nn.Linear(4, 4), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.linear(x), inplace=True)
        return helper(self.act(x)) + torch.sigmoid(x)


def helper(x: Tensor) -> Tensor:
    """Not a method: the block has called it."""
    return (x - 1).relu()


class Net(nn.Module):
    def __init__(self, *, reentrant: bool | None = None) -> None:
        super().__init__()
        self.block1, self.block2, self.reentrant = Block(), Block(), reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = self.block1(x)
        if self.reentrant is not None:
            return F.gelu(checkpoint(self.block2, x, use_reentrant=self.reentrant))
        return F.gelu(self.block2(x))


def train(
    model: nn.Module, batches: list[Tensor], functional: Functional = "auto", **options: Any
) -> RunView:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    recording = watch(model, optimizer, out=":memory:", budget=None, functional=functional, **options)
    with recording:
        for x in batches:
            model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    return recording.view()


def check(view: RunView, name: str, step: int, before: Tensor, after: Tensor) -> None:
    """Compare a layer's row, histogram and flags at a step with numpy."""
    position = [layer.name for layer in view.layers].index(name)
    layer, row = view.layers[position], view.buckets[step].rows[position]
    seen = before if layer.flat is not None and layer.flat.side is Side.INPUT else after
    reference = numpy_row(after.detach().numpy(), seen.detach().numpy(), layer.flat)
    np.testing.assert_array_equal(row[COUNTS], reference[COUNTS], err_msg=name)
    np.testing.assert_allclose(row[: Field.ZEROS], reference[: Field.ZEROS], rtol=1e-5)
    np.testing.assert_array_equal(view.buckets[step].hist[position], numpy_histogram(after.detach().numpy()))
    if layer.num_flags:
        assert layer.flat is not None
        assert layer.channel_axis is not None
        fired = numpy_fired(seen.detach().numpy(), layer.flat, layer.channel_axis)
        np.testing.assert_array_equal(view.fired(position)[step], fired)


FLAT: dict[str, tuple[Callable[[Tensor], Tensor], nn.Module]] = {
    "F.relu": (F.relu, nn.ReLU()),
    "F.relu in place": (lambda x: F.relu(x, inplace=True), nn.ReLU()),
    "torch.relu": (torch.relu, nn.ReLU()),
    "Tensor.relu": (Tensor.relu, nn.ReLU()),
    "Tensor.relu_": (Tensor.relu_, nn.ReLU()),
    "torch.sigmoid": (torch.sigmoid, nn.Sigmoid()),
    "Tensor.tanh_": (Tensor.tanh_, nn.Tanh()),
    "F.gelu": (F.gelu, nn.GELU()),
    "F.gelu tanh": (lambda x: F.gelu(x, approximate="tanh"), nn.GELU("tanh")),
    "F.silu in place": (lambda x: F.silu(x, inplace=True), nn.SiLU()),
    "F.leaky_relu": (lambda x: F.leaky_relu(x, 0.02), nn.LeakyReLU(0.02)),
    "F.leaky_relu steep": (lambda x: F.leaky_relu(x, negative_slope=0.2), nn.LeakyReLU(0.2)),
    "F.elu": (lambda x: F.elu(x, 0.5), nn.ELU(0.5)),
    "F.hardtanh": (lambda x: F.hardtanh(x, -0.3, 0.2), nn.Hardtanh(-0.3, 0.2)),
    "F.softplus": (lambda x: F.softplus(input=x, beta=2), nn.Softplus(2)),
}


@pytest.mark.parametrize("kind", FLAT)
def test_a_functional_activation_has_the_row_of_its_module(kind: str) -> None:
    function, module = FLAT[kind]
    model, x = Calls(function), 3 * torch.randn(16, 4)
    view = train(model, [x])
    before = model.linear(x)
    name = view.layers[1].name
    check(view, "linear", 0, x, before)
    check(view, name, 0, before, module(before))
    other = train(nn.Sequential(copy.deepcopy(model.linear), module), [x])
    assert view.layers[1].flat == other.layers[1].flat
    np.testing.assert_array_equal(view.buckets[0].rows[1], other.buckets[0].rows[1])


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: F.softmax(x, dim=-1), "softmax"),
        (lambda x: x.log_softmax(-1), "log_softmax"),
        (lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None]), "scaled_dot_product_attention"),
        (lambda x: F.scaled_dot_product_attention(query=x[None], key=x, value=x), "scaled_dot_product_attention"),
        (lambda x: F.glu(x, -1), "glu"),
    ],
)  # fmt: skip
def test_functions_without_a_flat_region_are_recorded_too(
    function: Callable[[Tensor], Tensor], name: str
) -> None:
    model, x = Calls(function), torch.randn(8, 4)
    view = train(model, [x])
    assert [(layer.name, layer.kind, layer.flat) for layer in view.layers[1:]] == [
        (name, f"functional {name}", None)
    ]
    check(view, name, 0, x, model(x))


def test_calls_are_named_after_the_module_whose_forward_made_them() -> None:
    view = train(Net(), [torch.randn(3, 4)])
    calls = ["linear", "relu", "act", "relu[1]", "sigmoid"]
    assert [layer.name for layer in view.layers] == [
        *[f"block1.{call}" for call in calls], *[f"block2.{call}" for call in calls], "gelu"
    ]  # fmt: skip


@pytest.mark.parametrize("reentrant", [None, False, True])
def test_rows_of_all_steps_equal_numpy_also_where_the_forward_is_recomputed(reentrant: bool | None) -> None:
    torch.manual_seed(2)
    model, batches = Net(reentrant=reentrant), [torch.randn(7, 4, requires_grad=True) for _ in range(3)]
    view = train(model, batches)
    assert view.num_steps == len(view.buckets) == 3
    for step, batch in enumerate(batches):
        x = batch
        for name, block in (("block1", model.block1), ("block2", model.block2)):
            linear = block.linear(x)
            rectified = linear.clamp(min=0)
            check(view, f"{name}.linear", step, x, linear)
            check(view, f"{name}.relu", step, linear, rectified)
            check(view, f"{name}.act", step, rectified, rectified)
            check(view, f"{name}.relu[1]", step, rectified - 1, (rectified - 1).clamp(min=0))
            check(view, f"{name}.sigmoid", step, rectified, rectified.sigmoid())
            x = (rectified - 1).clamp(min=0) + rectified.sigmoid()
        check(view, "gelu", step, x, F.gelu(x))


class Spy(TorchFunctionMode):
    """Counts the modes under it at each call of a function."""

    seen: list[int]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def modes_in_forwards(model: nn.Sequential, functional: Functional, steps: int = 3) -> list[int]:
    """Number of modes that are on inside each training forward."""
    seen: list[int] = []

    class Look(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(len(_get_current_function_mode_stack()))  # type: ignore[no-untyped-call]
            return x

    train(nn.Sequential(*model, Look()), [torch.randn(2, 4)] * steps, functional)
    return seen


def test_the_mode_is_on_for_the_first_forward_and_stays_only_where_it_found_something() -> None:
    plain, calls = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Sequential(nn.Linear(4, 4), Block())
    assert modes_in_forwards(plain, "auto") == [1, 0, 0]
    assert modes_in_forwards(calls, "auto") == [1, 1, 1]
    assert modes_in_forwards(plain, functional=True) == [1, 1, 1]
    assert modes_in_forwards(calls, functional=False) == [0, 0, 0]


def test_an_option_that_is_none_is_refused() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(UsageError, match="functional='yes'"):
        watch(model, torch.optim.SGD(model.parameters(), lr=0.1), out=":memory:", functional="yes")  # type: ignore[arg-type]


def test_a_call_in_a_loop_is_told_apart_up_to_sixteen() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.ModuleList([nn.Linear(4, 4)])

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(20):
                x = torch.tanh(self.linear[0](x))
            return x

    view = train(Loop(), [torch.randn(2, 4)] * 2)
    names = [layer.name for layer in view.layers if layer.kind == "functional tanh"]
    assert names == ["tanh", *[f"tanh[{call}]" for call in range(1, 16)], "tanh[16+]"]
    numbers = dict(zip([layer.name for layer in view.layers], view.moments.num[1], strict=True))
    assert (numbers["tanh"], numbers["tanh[16+]"]) == (8, 4 * 8)


def test_one_function_with_two_settings_has_two_flat_regions() -> None:
    view = train(Calls(lambda x: F.leaky_relu(F.leaky_relu(x, 0.2), 0.01)), [torch.randn(2, 4)])
    assert [(layer.name, layer.flat is None) for layer in view.layers[1:]] == [
        ("leaky_relu", True), ("leaky_relu(negative_slope=0.01)", False)
    ]  # fmt: skip


def test_functions_are_selected_by_name_and_by_the_module_that_computes_the_same() -> None:
    for select in (["*.linear", "*.relu"], [nn.Linear, nn.ReLU]):
        view = train(Net(), [torch.randn(3, 4)], select=select)
        assert {layer.name.split(".")[-1] for layer in view.layers} >= {"linear", "relu"}
        assert "block1.sigmoid" not in [layer.name for layer in view.layers]


def test_gradients_by_functional_outputs_are_recorded() -> None:
    model, x = Calls(torch.sigmoid), torch.randn(5, 4)
    view = train(model, [x], grad=True)
    output = model(x)
    (expected,) = torch.autograd.grad(output.square().mean(), output)
    check(view.gradients, "sigmoid", 0, output, expected)


class Failing(nn.Module):
    def __init__(self, error: type[BaseException]) -> None:
        super().__init__()
        self.linear, self.error = nn.Linear(4, 4), error

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.linear(x))
        if len(x) == 1:
            raise self.error("in the forward")
        return x


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_mode_is_left_when_the_forward_fails(error: type[BaseException]) -> None:
    model = Failing(error)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with watch(model, optimizer, out=":memory:", budget=None) as recording:
        with pytest.raises(error):
            model(torch.randn(1, 4))
        optimizer.step()
        for _ in range(2):
            model(torch.randn(3, 4)).sum().backward()
            optimizer.step()
    view = recording.view()
    assert [layer.name for layer in view.layers] == ["linear", "relu"]
    assert view.moments.num.tolist() == [[4, 4], [12, 12], [12, 12]]


def test_closing_the_record_takes_off_a_mode_that_ctrl_c_has_left() -> None:
    model = Failing(KeyboardInterrupt)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with pytest.raises(KeyboardInterrupt), watch(model, optimizer, out=":memory:", budget=None):
        model(torch.randn(1, 4))
    assert not _get_current_function_mode_stack()  # type: ignore[no-untyped-call]


def test_a_mode_that_the_forward_puts_on_stays_on() -> None:
    class Opens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.mode = nn.Linear(4, 4), Spy()

        def forward(self, x: Tensor) -> Tensor:
            self.mode.__enter__()  # type: ignore[no-untyped-call]
            return F.relu(self.linear(x))

    model = Opens()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with watch(model, optimizer, out=":memory:", budget=None):
        model(torch.randn(2, 4))
        assert _get_current_function_mode_stack() == [model.mode]  # type: ignore[no-untyped-call]
        model.mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]


def test_each_thread_has_its_own_mode() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    failures: list[object] = []
    meet = threading.Barrier(2)

    def forwards() -> None:
        meet.wait()
        for _ in range(20):
            model(torch.randn(3, 4))
        failures.extend(_get_current_function_mode_stack())  # type: ignore[no-untyped-call]

    with watch(model, optimizer, out=":memory:", budget=None, functional=True):
        threads = [threading.Thread(target=forwards) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


def test_a_copy_of_the_model_records_nothing() -> None:
    model = Net()
    with watch(model, torch.optim.SGD(model.parameters(), lr=0.0), out=":memory:", budget=None) as recording:
        copy.deepcopy(model)(torch.randn(3, 4))
        assert recording.view().layers == ()


def test_a_model_with_compiled_parts_has_no_mode_and_the_run_says_so() -> None:
    torch.compiler.reset()
    model = Net()
    model.block2.compile(backend="eager", fullgraph=True)
    with pytest.warns(UserWarning, match="not looked for in models with compiled code"):
        view = train(model, [torch.randn(3, 4)] * 2, functional=True)
    assert [layer.kind for layer in view.layers] == ["Linear", "ReLU"] * 2
    assert [event.data["text"] for event in view.events if event.kind == "remark"] == [NOT_COMPILED]
    torch.compiler.reset()
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with watch(model, optimizer, out=":memory:", budget=None) as recording:
        torch.compile(model, backend="eager", fullgraph=True)(torch.randn(3, 4)).sum().backward()
        optimizer.step()
    assert NOT_COMPILED in [event.data.get("text") for event in recording.view().events]


def test_every_activation_of_torch_nn_functional_is_listed() -> None:
    listed = {activation.name for activation in ACTIVATIONS.values()}
    modules = {name.lower() for name in nn.modules.activation.__all__}
    others = {"multiheadattention", "softmax2d", "threshold"}
    assert {name.replace("_", "") for name in listed} >= modules - others
