"""Rows are right wherever real training happens: against float64 numpy over tensors kept by hooks of the test's own."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.optim.swa_utils import AveragedModel

from actograph.layout.layer import Side
from actograph.layout.row import Field
from actograph.observe.watch import watch
from actograph.runlog.view import RunView
from actograph.testing.reference import numpy_histogram, numpy_row

MOMENTS = [Field.NEG_MEAN, Field.NEG_M2, Field.POS_MEAN, Field.POS_M2]
OTHERS = [field for field in Field if field not in MOMENTS]
MEASURED = 1e-6  # relative: the C back end adds up in float32
SCALE = 1024.0  # of the loss, a power of two


class Kept:
    """What each leaf gave and took in training, as float64, by the names that rows have."""

    def __init__(self, model: nn.Module) -> None:
        self.outputs: dict[str, list[np.ndarray]] = {}
        self.inputs: dict[str, list[np.ndarray]] = {}
        for name, module in model.named_modules():
            is_leaf = isinstance(module, nn.MultiheadAttention) or not [
                child for child, _ in module.named_children() if child != "parametrizations"
            ]
            inside = "parametrizations" in name or any(
                isinstance(parent, nn.MultiheadAttention) and name.startswith(f"{path}.")
                for path, parent in model.named_modules()
            )
            if is_leaf and not inside:
                module.register_forward_pre_hook(self._keep_input(name))
                module.register_forward_hook(self._keep_output(name))

    def _keep_input(self, name: str) -> Callable[..., None]:
        def keep(_: nn.Module, args: tuple[Any, ...]) -> None:
            if isinstance(args[0], Tensor) and torch.is_grad_enabled():
                self.inputs.setdefault(name, []).append(as_float64(args[0]))

        return keep

    def _keep_output(self, name: str) -> Callable[..., None]:
        def keep(module: nn.Module, _: object, output: object) -> None:
            if module.training and torch.is_grad_enabled():
                for path, tensor in flattened(output):
                    key = name + (f":{path}" if path else "")
                    self.outputs.setdefault(key, []).append(as_float64(tensor))

        return keep


def as_float64(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy().copy()


def flattened(output: object, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Name the floating-point tensors of an output, in a way of this test's own."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield path, output
        return
    members: dict[str, object] = {}
    if isinstance(output, dict):
        members = output
    elif isinstance(output, (tuple, list)):
        members = {str(index): member for index, member in enumerate(output)}
    elif isinstance(output, Answer):
        members = vars(output)
    for key, member in members.items():
        yield from flattened(member, f"{path}.{key}" if path else key)


def check(view: RunView, kept: Kept, *, merged: bool = False) -> None:
    """Compare every layer and step; ``merged``: all that was kept of a layer belongs to the one step there is."""
    assert {layer.name for layer in view.layers} == set(kept.outputs)
    for index, layer in enumerate(view.layers):
        outputs = kept.outputs[layer.name]
        inputs = kept.inputs.get(layer.name, outputs)
        if merged:
            outputs, inputs = ([np.concatenate([one.ravel() for one in all_])] for all_ in (outputs, inputs))
        assert len(view.buckets) == len(outputs)
        is_input = layer.flat is not None and layer.flat.side is Side.INPUT
        for step, values in enumerate(outputs):
            expected = numpy_row(values, inputs[step] if is_input else None, layer.flat)
            np.testing.assert_array_equal(
                view.rows[step, index, OTHERS], expected[OTHERS], err_msg=layer.name
            )
            np.testing.assert_allclose(view.rows[step, index, MOMENTS], expected[MOMENTS], rtol=MEASURED)
            np.testing.assert_array_equal(view.histogram(index)[step], numpy_histogram(values))


def total(output: object) -> Tensor:
    """Return a loss that every tensor of an output takes part in."""
    return torch.stack([tensor.float().square().mean() for _, tensor in flattened(output)]).sum()


def recorded(model: nn.Module, *batches: Any, **options: Any) -> RunView:
    """Train a step on each batch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with watch(model, optimizer, out=":memory:", budget=None, **options) as recording:
        for batch in batches:
            total(model(batch)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
    return recording.view()


# Recurrent and attention layers, nested outputs


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_with_packed_sequences(kind: type[nn.LSTM] | type[nn.GRU]) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = kind(3, 4, num_layers=2, bidirectional=True, batch_first=True)

        def forward(self, packed: PackedSequence) -> Any:
            return self.rnn(packed)

    model = Model()
    kept = Kept(model)
    lengths = torch.tensor([2, 5, 3])
    batches = [
        pack_padded_sequence(torch.randn(3, 5, 3), lengths, batch_first=True, enforce_sorted=False)
        for _ in range(2)
    ]
    view = recorded(model, *batches)
    check(view, kept)
    assert view.moments.num[:, view.layer_index("rnn:0.0")].tolist() == [10 * 8] * 2  # no padding is counted


@pytest.mark.parametrize("need_weights", [True, False])
def test_attention_with_and_without_its_weights(need_weights: bool) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Any:
            return self.attention(x, x, x, need_weights=need_weights)

    model = Model()
    kept = Kept(model)
    view = recorded(model, torch.randn(2, 5, 8), torch.randn(2, 5, 8))
    check(view, kept)
    assert [layer.name for layer in view.layers] == ["attention:0", "attention:1"][: 1 + need_weights]


@dataclass
class Answer:
    logits: Tensor
    hidden: tuple[Tensor, dict[str, Tensor]]
    loss: None = None


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Any:
        y = x * self.weight
        return Answer(y, (y + 1, {"deep": y.relu()}))


def test_nested_outputs_of_tuples_dicts_and_dataclasses() -> None:
    model = nn.Sequential(Nested())
    kept = Kept(model)
    view = recorded(model, torch.randn(6, 3))
    check(view, kept)
    assert [layer.name for layer in view.layers] == ["0:logits", "0:hidden.0", "0:hidden.1.deep"]


def test_a_cell_that_is_called_a_thousand_times_is_bounded_and_all_of_it_counts() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTMCell(1, 2)

        def forward(self, x: Tensor) -> Any:
            state = None
            for step in range(1000):
                state = self.cell(x[:, step], state)
            return state

    model = Model()
    kept = Kept(model)
    view = recorded(model, torch.randn(2, 1000, 1))
    names = [layer.name for layer in view.layers]
    assert names == [f"cell{call}:{part}" for call in ("", "[1]", "[2]", "[3]", "[4+]") for part in (0, 1)]
    for name in names:
        call, part = name.removeprefix("cell").split(":")
        number = int(call.strip("[]+") or 0)
        outputs = kept.outputs[f"cell:{part}"]
        chosen = outputs[number:] if "+" in call else outputs[number : number + 1]
        expected = numpy_row(np.stack(chosen))
        np.testing.assert_array_equal(view.rows[0, view.layer_index(name), OTHERS], expected[OTHERS])
        np.testing.assert_allclose(
            view.rows[0, view.layer_index(name), MOMENTS], expected[MOMENTS], rtol=1e-5
        )


def test_a_module_that_is_called_twice_and_tied_weights() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.act, self.outer = nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)
            self.outer.weight = self.inner.weight

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.act(self.outer(self.act(self.inner(x))))
            return out

    model = Model()
    kept = Kept(model)
    view = recorded(model, torch.randn(8, 4), gradients=True)
    first, second = kept.outputs["act"]
    kept.outputs |= {"act": [first], "act[1]": [second]}
    kept.inputs["act[1]"] = kept.inputs["act"][1:]
    check(view, kept)
    assert view.parameters.names == ["inner.weight", "inner.bias", "outer.bias"]


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrized_layers_are_layers(norm: Callable[[nn.Module], nn.Module]) -> None:
    model = nn.Sequential(norm(nn.Linear(4, 6)), nn.ReLU(), norm(nn.Linear(6, 2)))
    kept = Kept(model)
    view = recorded(model, torch.randn(8, 4), torch.randn(8, 4), gradients=True)
    check(view, kept)
    assert all("parametrizations" not in layer.name for layer in view.layers)
    assert np.isfinite(view.parameters.column("grad_norm")).all()


def test_lazy_layers_are_recorded_from_their_first_forward_on() -> None:
    model = nn.Sequential(nn.LazyLinear(6), nn.ReLU(), nn.LazyLinear(2))
    kept = Kept(model)
    view = recorded(model, torch.randn(8, 4), torch.randn(8, 4), gradients=True)
    check(view, kept)
    assert [layer.kind for layer in view.layers] == ["Linear", "ReLU", "Linear"]
    assert view.layers[0].num_parameters == 4 * 6 + 6
    assert view.parameters.names == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert np.isfinite(view.parameters.column("grad_norm")).all()


# Precision, accumulation, evaluation, in place


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_with_a_scaler(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
    kept, norms, gradients = Kept(model), [], []
    with watch(model, optimizer, out=":memory:", budget=None, grad=True, gradients=True) as recording:
        for _ in range(3):
            with torch.autocast("cpu", dtype=dtype):
                output = model(torch.randn(16, 4))
            output.register_hook(lambda gradient: gradients.append(as_float64(gradient) / SCALE))
            recording.loss_scale = scaler.get_scale()
            scaler.scale(output.float().square().mean()).backward()
            scaler.unscale_(optimizer)
            recording.gradients()
            norms.append(
                [np.linalg.norm(as_float64(p.grad)) for p in model.parameters() if p.grad is not None]
            )
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    view = recording.view()
    check(view, kept)
    assert {layer.dtype for layer in view.layers} == {str(dtype).removeprefix("torch.")}
    np.testing.assert_allclose(view.parameters.column("grad_norm"), norms, rtol=1e-5)
    last = view.gradients.column("std")[:, view.gradients.layer_index("2")]
    np.testing.assert_allclose(last, [one.std(ddof=1) for one in gradients], rtol=1e-5)


def test_micro_batches_are_one_step_and_evaluation_is_none() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.SiLU(), nn.Linear(8, 2))
    kept = Kept(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with watch(model, optimizer, out=":memory:", budget=None) as recording:
        for size in (3, 8, 5):
            model(torch.randn(size, 4)).square().mean().backward()
            model.eval()
            model(torch.full((7, 4), 1e3))
            with torch.no_grad():
                model(torch.full((7, 4), 1e3))
            model.train()
        kept.inputs = {name: [x for x in all_ if np.abs(x).max() < 100] for name, all_ in kept.inputs.items()}
        optimizer.step()
    check(recording.view(), kept, merged=True)


def test_activations_that_work_in_place() -> None:
    acts = [
        nn.ReLU(inplace=True),
        nn.SiLU(inplace=True),
        nn.LeakyReLU(0.01, inplace=True),
        nn.ELU(inplace=True),
    ]
    model = nn.Sequential(*[layer for act in acts for layer in (nn.Linear(6, 6), act)])
    kept = Kept(model)
    view = recorded(model, 50 * torch.randn(32, 6), 50 * torch.randn(32, 6))
    check(view, kept)
    assert view.rows[:, view.layer_index("3"), Field.FLAT].all()  # looked for in the input, which is gone


# Copies


def deep(model: nn.Module, _: Path) -> nn.Module:
    return copy.deepcopy(model)


def averaged(model: nn.Module, _: Path) -> nn.Module:
    return AveragedModel(model)


def pickled(model: nn.Module, _: Path) -> nn.Module:
    read: nn.Module = pickle.loads(pickle.dumps(model))
    return read


def saved(model: nn.Module, path: Path) -> nn.Module:
    torch.save(model, path / "model.pt")
    read: nn.Module = torch.load(path / "model.pt", weights_only=False)
    return read


def exported(model: nn.Module, _: Path) -> nn.Module:
    return torch.export.export(model, (torch.randn(5, 4),)).module()


@pytest.mark.parametrize("copied", [deep, averaged, pickled, saved, exported])
def test_training_a_copy_records_nothing(
    copied: Callable[[nn.Module, Path], nn.Module], tmp_path: Path
) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with watch(model, optimizer, out=":memory:", budget=None, grad=True) as recording:
        kept = Kept(model)  # its hooks stay: only what comes after counts
        model(torch.randn(5, 4)).square().mean().backward()
        expected = {name: outputs[:] for name, outputs in kept.outputs.items()}
        inputs = {name: values[:] for name, values in kept.inputs.items()}
        other = copied(stripped(model), tmp_path)
        other(torch.randn(5, 4)).square().mean().backward()
        kept.outputs, kept.inputs = expected, inputs
        optimizer.step()
    view = recording.view()
    check(view, kept)
    assert view.gradients.rows[0, 0, Field.POS_COUNT] + view.gradients.rows[0, 0, Field.NEG_COUNT] == 5 * 6
    assert "actograph" not in "".join(map(repr, hooks_of(other)))


def stripped(model: nn.Module) -> nn.Module:
    """Take the hooks of this test off: a copy is to be made of the model as it is recorded."""
    for module in model.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key, hook in list(hooks.items()):
                if "Kept" in repr(hook):
                    del hooks[key]
    return model


def hooks_of(model: nn.Module) -> list[object]:
    return [
        hook
        for module in model.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    ]


@pytest.mark.filterwarnings("ignore")  # of the exporter's own
def test_a_recorded_model_is_exported_to_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with watch(model, optimizer, out=":memory:", budget=None) as recording:
        model(torch.randn(5, 4)).sum().backward()
        torch.onnx.export(model, (torch.randn(5, 4),), tmp_path / "model.onnx", dynamo=True, verbose=False)
        optimizer.step()
    assert b"actograph" not in (tmp_path / "model.onnx").read_bytes()
    assert recording.view().layers[1].name == "1"
    moments = recording.view().moments
    assert moments.num[0].tolist() == [5 * 6] * 2
