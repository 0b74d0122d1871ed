"""Recording of a model on a CUDA device; all skipped where there is none. `benchmarks/gpu_check.sh` runs them there."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from actograph.hooks.flat_region import flat_region
from actograph.layout.layer import Side
from actograph.layout.row import Field
from actograph.models.cnn import simple_cnn
from actograph.recording.recording import Recording
from actograph.runlog.schema import RunInfo
from actograph.runlog.store import RunWriter
from actograph.sketch import cuda, transit
from actograph.testing.reference import numpy_fired, numpy_histogram, numpy_row

if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic products of matrices need

DEVICE = torch.device("cuda")
EXACT = [Field.NEG_COUNT, Field.POS_COUNT, Field.ZEROS, Field.NEAR_ZERO, Field.NAN, Field.INF, Field.FLAT]
EXACT += [Field.MIN, Field.MAX, Field.NEAR_ZERO_NEG, Field.INF_NEG]
MOMENTS = [Field.NEG_MEAN, Field.NEG_M2, Field.POS_MEAN, Field.POS_M2]


@pytest.fixture
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def _no_waiting() -> Iterator[None]:
    torch.ones(1, device=DEVICE).cpu()  # what starts the device may wait for it
    yield
    torch.cuda.set_sync_debug_mode("default")


def new_recording(*, grad: bool = False, now_s: float = 0.0) -> Recording:
    """Record every step into memory; nothing is stored but at the end, or at each step where it is late enough."""
    return Recording(RunWriter(None, RunInfo("cuda"), clock=lambda: now_s), budget=None, grad=grad)


def cnn() -> nn.Module:
    torch.manual_seed(1)
    return simple_cnn(10).to(DEVICE)


def images(num: int = 32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(num, 1, 28, 28, generator=generator)
    return x.to(DEVICE), torch.randint(10, (num,), generator=generator).to(DEVICE)


def train(
    model: nn.Module,
    num_steps: int,
    recording: Recording | None = None,
    num_micro_batches: int = 1,
    gradients: bool = False,
) -> list[Tensor]:
    """Return the losses, on the device."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    if recording is not None:
        recording.attach(model)
        recording.optimizer(optimizer, gradients=gradients)
    losses = []
    x, y = images()
    for step in range(num_steps):
        optimizer.zero_grad()
        for x_part, y_part in zip(x.chunk(num_micro_batches), y.chunk(num_micro_batches), strict=True):
            loss = nn.functional.cross_entropy(model(x_part * (1 + step)), y_part)
            if recording is not None:
                recording.loss(loss)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        optimizer.step()
    return losses


def gather(model: nn.Module) -> dict[str, list[Tensor]]:
    """Return what will hold all outputs of the model's leaves, by name."""
    outputs: dict[str, list[Tensor]] = defaultdict(list)
    for name, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda m, i, o, name=name: outputs[name].append(o.detach().clone()))
    return outputs


def assert_row(row: np.ndarray, hist: np.ndarray, values: np.ndarray, module: nn.Module) -> None:
    flat = flat_region(module)
    expected = numpy_row(values, flat=flat if flat is not None and flat.side is Side.OUTPUT else None)
    np.testing.assert_array_equal(row[EXACT], expected[EXACT])
    np.testing.assert_allclose(row[MOMENTS], expected[MOMENTS], rtol=1e-5)
    np.testing.assert_array_equal(hist, numpy_histogram(values))


@pytest.mark.parametrize("num_micro_batches", [1, 4])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_rows_equal_numpy_over_gathered_outputs(
    num_micro_batches: int, memory_format: torch.memory_format
) -> None:
    model = cnn().to(memory_format=memory_format)  # type: ignore[call-overload]
    outputs = gather(model)
    recording = new_recording()
    train(model, 3, recording, num_micro_batches)
    view = recording.view()
    assert view.last_steps.tolist() == [0, 1, 2]
    modules = dict(model.named_modules())
    assert {layer.name for layer in view.layers} == set(outputs)
    for index, layer in enumerate(view.layers):
        flat = flat_region(modules[layer.name])
        for step in range(3):
            parts = outputs[layer.name][step * num_micro_batches : (step + 1) * num_micro_batches]
            values = torch.cat(parts).float().cpu().numpy()
            assert_row(view.rows[step, index], view.histogram(layer.name)[step], values, modules[layer.name])
            if flat is not None and layer.channel_axis is not None:
                fired = numpy_fired(values, flat, layer.channel_axis)
                np.testing.assert_array_equal(view.fired(layer.name)[step], fired)


class Exact(nn.Module):
    """A network of small fractions whose every output is a float32 without rounding, on any device."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 12, 3), nn.ReLU6(), nn.Flatten(),
            nn.Linear(12 * 16, 33), nn.Hardtanh(-3, 3), nn.Linear(33, 5),
        )  # fmt: skip
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            quarters = torch.randint(-2, 3, parameter.shape, generator=generator)
            parameter.data = quarters / 4

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


def test_a_run_on_the_device_equals_the_run_on_the_cpu() -> None:
    views = []
    for device in (torch.device("cpu"), DEVICE):
        model = Exact().to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        recording = new_recording(grad=True)
        recording.attach(model)
        recording.optimizer(optimizer, gradients=True)
        generator = torch.Generator().manual_seed(0)
        for step in range(6):
            x = torch.randint(-4, 5, (8, 2, 14, 14), generator=generator).float()
            loss = model(x.to(device)).sum()
            recording.loss(loss)
            loss.backward()
            if step % 2:  # two micro-batches a step
                optimizer.step()
                optimizer.zero_grad()
        views.append(recording.view())
    host, on_device = views
    for one, other in ((host, on_device), (host.gradients, on_device.gradients)):
        assert [layer.name for layer in one.layers] == [layer.name for layer in other.layers]
        np.testing.assert_array_equal(one.rows[..., EXACT], other.rows[..., EXACT])
        np.testing.assert_allclose(one.rows[..., MOMENTS], other.rows[..., MOMENTS], rtol=1e-6, atol=1e-6)
        for index, layer in enumerate(one.layers):
            np.testing.assert_array_equal(one.histogram(index), other.histogram(index))
            if layer.num_flags:
                np.testing.assert_array_equal(one.fired(index), other.fired(index))
    np.testing.assert_allclose(host.scalar("loss").values, on_device.scalar("loss").values, rtol=1e-6)
    np.testing.assert_allclose(host.parameters.rows, on_device.parameters.rows, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("_no_waiting")
@pytest.mark.parametrize("now_s", [0.0, 1e9])  # nothing is stored; each step is
def test_nothing_waits_for_the_device(now_s: float) -> None:
    model = cnn()
    images()
    recording = new_recording(grad=True, now_s=now_s)
    x, y = images()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    recording.attach(model)
    recording.optimizer(optimizer, gradients=True)
    torch.cuda.set_sync_debug_mode("error")
    for _ in range(5):
        loss = nn.functional.cross_entropy(model(x), y)
        recording.loss(loss)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    torch.cuda.set_sync_debug_mode("default")
    assert recording.view().last_steps.tolist() == [0, 1, 2, 3, 4]


def test_rows_of_a_step_come_in_one_copy_to_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[transit.HostCopy] = []

    class Counted(transit.HostCopy):
        def __init__(self, source: Tensor) -> None:
            super().__init__(source)
            copies.append(self)

    monkeypatch.setattr(transit, "HostCopy", Counted)
    recording = new_recording(grad=True)
    train(cnn(), 4, recording)
    assert len(copies) == 4
    assert all(copy._host.is_pinned() for copy in copies)


@pytest.mark.usefixtures("_deterministic")
def test_training_is_the_same_to_the_bit_with_and_without_recording() -> None:
    plain, recorded = cnn(), cnn()
    losses = [train(plain, 5), train(recorded, 5, new_recording(grad=True), gradients=True)]
    assert torch.equal(torch.stack(losses[0]), torch.stack(losses[1]))
    for one, other in zip(plain.parameters(), recorded.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("_deterministic")
def test_the_same_training_gives_the_same_rows_to_the_bit() -> None:
    views = []
    for _ in range(2):
        recording = new_recording(grad=True)
        train(cnn(), 3, recording)
        views.append(recording.view())
    np.testing.assert_array_equal(views[0].rows, views[1].rows)
    np.testing.assert_array_equal(views[0].gradients.rows, views[1].gradients.rows)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_and_a_scaler(dtype: torch.dtype) -> None:
    model = cnn()
    outputs = gather(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cuda", enabled=dtype == torch.float16)
    recording = new_recording(grad=True)
    recording.attach(model)
    recording.optimizer(optimizer)
    gradients: list[Tensor] = []
    x, y = images()
    for _ in range(3):
        with torch.autocast("cuda", dtype):
            output = model(x)
            loss = nn.functional.cross_entropy(output, y)
        output.register_hook(gradients.append)
        recording.loss(loss)
        recording.loss_scale = scaler.get_scale()
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    view = recording.view()
    modules = dict(model.named_modules())
    assert {layer.dtype for layer in view.layers} >= {str(dtype).removeprefix("torch.")}
    for index, layer in enumerate(view.layers):
        for step, output in enumerate(outputs[layer.name]):
            values = output.float().cpu().numpy()
            assert_row(view.rows[step, index], view.histogram(layer.name)[step], values, modules[layer.name])
    scale = 65_536.0 if dtype == torch.float16 else 1.0  # the scaler's first
    last = numpy_row(gradients[0].double().cpu().numpy() / scale)
    np.testing.assert_allclose(view.gradients.rows[0, -1][MOMENTS], last[MOMENTS], rtol=1e-5)


def test_layers_on_two_devices_keep_their_order() -> None:
    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 3)
            self.b = nn.Linear(3, 5).to(DEVICE)
            self.c = nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.c(self.b(self.a(x).to(DEVICE)).cpu())
            return out

    model = Split()
    outputs = gather(model)
    recording = new_recording()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recording.attach(model)
    recording.optimizer(optimizer)
    model(torch.randn(6, 4)).sum().backward()
    optimizer.step()
    view = recording.view()
    assert [layer.name for layer in view.layers] == ["a", "b", "c"]
    for index, layer in enumerate(view.layers):
        values = outputs[layer.name][0].cpu().numpy()
        assert_row(view.rows[0, index], view.histogram(index)[0], values, nn.Identity())


def test_float64_is_measured_by_the_reference() -> None:
    model = nn.Sequential(nn.Linear(7, 9), nn.ReLU()).double().to(DEVICE)
    outputs = gather(model)
    recording = new_recording()
    recording.attach(model)
    model(torch.randn(5, 7, dtype=torch.float64, device=DEVICE))
    recording.end_step()
    view = recording.view()
    for index, name in enumerate(("0", "1")):
        values = outputs[name][0].cpu().numpy()
        np.testing.assert_allclose(
            view.rows[0, index][MOMENTS], numpy_row(values)[MOMENTS], rtol=1e-12, atol=1e-15
        )


def test_without_triton_one_warning_says_so_and_rows_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError("no module named triton")

    with_triton, without = new_recording(), new_recording()
    train(cnn(), 2, with_triton)
    cuda._serves.cache_clear()
    monkeypatch.setattr(cuda, "_kernels", missing)
    with pytest.warns(RuntimeWarning, match="no module named triton") as caught:
        train(cnn(), 2, without)
    cuda._serves.cache_clear()
    assert sum("Triton" in str(warning.message) for warning in caught) == 1
    rows, expected = (
        without.view().rows[0],
        with_triton.view().rows[0],
    )  # the second steps' weights may differ
    np.testing.assert_array_equal(rows[:, EXACT], expected[:, EXACT])
    np.testing.assert_allclose(rows[:, MOMENTS], expected[:, MOMENTS], rtol=1e-5, atol=1e-7)
