from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.debugging import aot_eager
from torch._dynamo.utils import counters
from torch.utils.checkpoint import checkpoint

from actograph.hooks.layer_hooks import NO_GRADIENTS, LayerHooks
from actograph.layout.layer import LayerInfo, Side
from actograph.layout.row import Field
from actograph.observe.watch import watch
from actograph.runlog.view import RunView
from actograph.sketch.block import Block
from actograph.testing.reference import numpy_row

# the tracer looks at each input's gradient
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")

COUNTS = [Field.NEG_COUNT, Field.POS_COUNT, Field.ZEROS, Field.NEAR_ZERO, Field.FLAT, Field.MIN, Field.MAX]
Layers = dict[str, tuple[Tensor, Tensor]]  # inputs and outputs, of all calls that belong to one name


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


class Counting:
    """A backend that counts the graphs it is given."""

    def __init__(self) -> None:
        self.num_graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, examples: list[Tensor]) -> Callable[..., Any]:
        self.num_graphs += 1
        return aot_eager(graph, examples)


class Block1d(nn.Module):
    """Flat regions on both sides, in-place modules, a second call, and perhaps a recomputed forward."""

    def __init__(self, *, reentrant: bool | None = None) -> None:
        super().__init__()
        self.conv, self.act, self.gate = nn.Conv1d(4, 4, 3, padding=1), nn.ReLU(inplace=True), nn.GELU()
        self.reentrant = reentrant

    def inner(self, x: Tensor) -> Tensor:
        return self.gate(self.conv(self.act(self.conv(x))))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        if self.reentrant is None:
            return x + self.inner(x)
        return x + checkpoint(self.inner, x, use_reentrant=self.reentrant)  # type: ignore[no-any-return]


def net(*, reentrant: bool | None = None, blocks: int = 2) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(*[Block1d(reentrant=reentrant) for _ in range(blocks)], nn.Tanh())


def by_hand(model: nn.Sequential, batches: list[Tensor]) -> list[Layers]:
    """Inputs and outputs of each layer for each batch, computed one by one, without any hook."""
    steps = []
    for x in batches:
        layers, out = Layers(), x
        for index, block in enumerate(list(model)[:-1]):
            assert isinstance(block, Block1d)
            first = block.conv(out)
            acted = first.relu()
            second = block.conv(acted)
            gated = nn.functional.gelu(second)
            layers |= {
                f"{index}.conv": (out, first), f"{index}.act": (first, acted), f"{index}.conv[1]": (acted, second),
                f"{index}.gate": (second, gated),
            }  # fmt: skip
            out = out + gated
        layers[f"{len(model) - 1}"] = (out, out.tanh())
        steps.append(layers)
    return steps


def train(
    model: nn.Module, run: Callable[[Tensor], Tensor], batches: list[Tensor], **options: Any
) -> RunView:
    """Three steps that change no weight, each recorded."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with watch(model, optimizer, out=":memory:", budget=None, **options) as recording:
        for x in batches:
            loss: Tensor = run(x).square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
    return recording.view()


def batches(num: int = 3) -> list[Tensor]:
    return [(2 * torch.randn(5, 4, 6)).requires_grad_() for _ in range(num)]


def check(view: RunView, expected: list[Layers], *, rtol: float = 1e-6) -> None:
    """Compare all rows with numpy on activations gathered by hand."""
    names = list(expected[0])
    assert [layer.name for layer in view.layers] == names
    assert view.num_steps == len(expected)
    for bucket, layers in zip(view.buckets, expected, strict=True):
        for position, (layer, (before, after)) in enumerate(zip(view.layers, layers.values(), strict=True)):
            seen = before if layer.flat is not None and layer.flat.side is Side.INPUT else after
            reference = numpy_row(after.detach().numpy(), seen.detach().numpy(), layer.flat)
            np.testing.assert_array_equal(bucket.rows[position][COUNTS[:3]], reference[COUNTS[:3]])
            np.testing.assert_allclose(bucket.rows[position][COUNTS], reference[COUNTS], rtol=rtol)
            np.testing.assert_allclose(
                bucket.rows[position][: Field.ZEROS], reference[: Field.ZEROS], rtol=1e-5
            )


@pytest.mark.parametrize("compiles", ["torch.compile", "module.compile", "a part", "each block"])
def test_rows_of_compiled_layers_equal_numpy_and_no_graph_is_added(compiles: str) -> None:
    model, data = net(), batches()
    expected = by_hand(copy.deepcopy(model), data)
    results = []
    for records in (False, True):
        torch.compiler.reset()
        counters.clear()
        backend, trained = Counting(), copy.deepcopy(model)
        run: Any = trained
        if compiles == "torch.compile":
            run = torch.compile(trained, backend=backend, fullgraph=True)
        elif compiles == "module.compile":
            trained.compile(backend=backend, fullgraph=True)
        elif compiles == "a part":
            trained[1].compile(backend=backend, fullgraph=True)
        else:
            for block in list(trained)[:-1]:
                block.compile(backend=backend, fullgraph=True)
        if records:
            check(train(trained, run, data), expected)
        else:
            for x in data:
                run(x).square().mean().backward()
        assert not counters["graph_break"]
        results.append(backend.num_graphs)
    plain, recorded = results
    if compiles == "module.compile":
        # torch does not compile a module's call itself: the hooks around it become two graphs of one operator each
        assert recorded <= plain + 2
    else:
        assert recorded == plain


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_forward_that_is_recomputed_in_compiled_code_counts_once(*, reentrant: bool) -> None:
    model, data = net(reentrant=reentrant, blocks=1), batches(2)
    expected = by_hand(copy.deepcopy(model), data)
    check(train(model, torch.compile(model, backend="aot_eager"), data), expected)


def test_the_gate_is_data_and_an_evaluation_is_not_counted() -> None:
    backend, wanted, asked = Counting(), iter([True, False, True]), []
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    block, layers = Block(), list[LayerInfo]()

    def gate(model: nn.Module) -> bool:
        asked.append(torch.is_grad_enabled())
        return torch.is_grad_enabled() and next(wanted)

    run, x = torch.compile(model, backend=backend, fullgraph=True), torch.randn(2, 4)
    counts = []
    with LayerHooks(model, block, layers.append, gate):
        for _ in range(3):
            run(x).sum().backward()
            rows, _, _ = block.take(0)
            counts.append(rows[:, [Field.NEG_COUNT, Field.POS_COUNT, Field.ZEROS]].sum())
        assert backend.num_graphs == 1
        with torch.no_grad():
            run(x)
    assert counts == [12, 0, 12]
    assert asked == [True, True, True, False]


def test_a_model_that_ran_compiled_before_is_compiled_again_with_its_hooks() -> None:
    model, data = net(blocks=1), batches(2)
    expected = by_hand(copy.deepcopy(model), data)
    backend = Counting()
    run = torch.compile(model, backend=backend, fullgraph=True)
    run(data[0])
    check(train(model, run, data), expected)
    assert backend.num_graphs == 2
    run(data[0])  # the hooks have gone
    check(train(model, run, data), expected)


@pytest.mark.parametrize("act", [nn.ReLU(), nn.GELU()])
def test_units_of_a_compiled_activation_lie_along_its_producers_axis(act: nn.Module) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act, self.out = nn.Conv1d(2, 4, 1), act, nn.Linear(6, 3)

        def forward(self, x: Tensor) -> dict[str, Any]:
            x = self.act(self.conv(x))
            return {"pair": (x.mean(), [self.out(x)]), "classes": x.argmax(1)}

    model, layers, block = Net(), list[LayerInfo](), Block()
    with LayerHooks(model, block, layers.append, lambda _: True):
        torch.compile(model, backend="eager", fullgraph=True)(torch.randn(3, 2, 6))
    assert [(layer.name, layer.channel_axis, layer.num_units) for layer in layers] == [
        ("conv", 1, 4), ("act", 1, 4), ("out", 2, 3)
    ]  # fmt: skip


def test_gradients_by_outputs_in_compiled_code_are_said_to_be_missing() -> None:
    model, data = nn.Sequential(nn.Linear(4, 3), nn.ReLU()), [torch.randn(2, 4) for _ in range(3)]
    with pytest.warns(UserWarning, match="gradients by the outputs of layers in compiled code") as caught:
        view = train(model, torch.compile(model, backend="aot_eager"), data, grad=True)
    assert len([one for one in caught if str(one.message) == NO_GRADIENTS]) == 1
    assert view.num_steps == 3
    assert [layer.quantity.value for layer in view.layers] == ["activation"] * 2


@pytest.mark.parametrize("strict", [True, False])
def test_an_exported_graph_has_no_operator_of_ours(*, strict: bool) -> None:
    model, x = nn.Sequential(nn.Linear(4, 3), nn.GELU()), torch.randn(2, 4)
    block = Block()
    with LayerHooks(model, block, lambda _: None, lambda _: True):
        exported = torch.export.export(model, (x,), strict=strict)
    assert "actograph" not in str(exported.graph_module.code)
    torch.testing.assert_close(exported.module()(x), model(x))
    assert block.num_layers == 0


def test_rows_under_inductor_equal_numpy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    model, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU()), torch.randn(16, 4)
    expected = [{"0": (x, model[0](x)), "1": (model[0](x), model(x))}] * 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Inductor's own
        # as little for the C++ compiler as can be
        options: dict[str, Any] = {
            "cpp_cache_precompile_headers": False,
            "compile_threads": 1,
            "cpp.simdlen": 1,
        }
        options["pattern_matcher"] = False
        run = torch.compile(model, fullgraph=True, options=options)
        view = train(model, run, [x, x])
    check(view, expected, rtol=1e-5)
    assert counters["stats"]["unique_graphs"] == 1
