"""What a fit changes is put back bit for bit: whatever changed it, and however it ended."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from actograph.data.loaders import TensorLoader
from actograph.train.events import Callback
from actograph.train.loop import Loop
from actograph.train.snapshot import undone
from actograph.train.step import Supervised
from actograph.train.step_build import wrapped

STEPS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bf16": {"amp": "bf16"},
    "fp16 and clipped": {"amp": "fp16", "clip_norm": 1.0},
    "accumulated": {"accumulate": 2},
}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
    "fused": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, fused=True),
    "tensor rate": lambda parameters: torch.optim.AdamW(parameters, lr=torch.tensor(0.01)),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01, momentum=0.5),
}


class Noisy(nn.Module):
    """Draws from all three generators, and counts in a buffer that no state_dict has."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layers(x) + 0.01 * random.random() + 0.01 * float(np.random.rand())  # type: ignore[no-any-return]


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(30, 4, generator=generator), torch.randint(0, 3, (30,), generator=generator)


LOADERS: dict[str, Callable[[], Any]] = {
    "tensors": lambda: TensorLoader(*data(), 8, shuffle=True),
    "loader": lambda: DataLoader(TensorDataset(*data()), 8, shuffle=True),
    "generator": lambda: DataLoader(
        TensorDataset(*data()), 8, shuffle=True, generator=torch.Generator().manual_seed(3)
    ),
    "list": lambda: list(DataLoader(TensorDataset(*data()), 8)),
}


def make_loop(step: str = "plain", optimizer: str = "adamw", loader: str = "tensors") -> Loop:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    model = Noisy()
    moving = OPTIMIZERS[optimizer](model.parameters())
    whole = wrapped(Supervised(model, nn.functional.cross_entropy, moving), moving, **STEPS[step])
    return Loop(model, moving, whole, LOADERS[loader]())


def fingerprint(loop: Loop) -> bytes:
    """Return everything that decides what a fit from here on does, as bytes."""
    state = [loop.model.state_dict(), dict(loop.model.named_buffers()), loop.optimizer.state_dict()]
    draws = [random.random(), np.random.rand(3), torch.rand(3)]  # moves all alike
    return pickle.dumps(plain([state, getattr(loop.step, "state_dict", dict)(), draws]))


def plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().numpy().tobytes()
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


class Raise(Callback):
    def __init__(self, error: BaseException, event: str) -> None:
        self.error = error
        self.event = event

    def after_backward(self, loop: Loop) -> None:
        self._raise(loop, "after_backward")

    def before_step(self, loop: Loop) -> None:
        self._raise(loop, "before_step")

    def after_step(self, loop: Loop) -> None:
        self._raise(loop, "after_step")

    def _raise(self, loop: Loop, event: str) -> None:
        if event == self.event and loop.progress.batch >= 2:
            raise self.error


def later(loop: Loop) -> bytes:
    """Return where a fit of two epochs leads."""
    loop.fit(2)
    return fingerprint(loop)


def shaken(loop: Loop) -> None:
    """Fit, and change the optimizer's settings for good."""
    loop.fit(1)
    for group in loop.optimizer.param_groups:
        group["lr"] = 0.5
        group["weight_decay"] = 0.3


@pytest.mark.parametrize("num_before", [0, 1])
@pytest.mark.parametrize(
    ("step", "optimizer", "loader"),
    [
        *((step, "adamw", "tensors") for step in STEPS),
        *(("plain", optimizer, "tensors") for optimizer in OPTIMIZERS),
        *(("plain", "sgd", loader) for loader in LOADERS),
    ],
)
def test_a_fit_after_it_is_that_without_it(step: str, optimizer: str, loader: str, num_before: int) -> None:
    untouched = make_loop(step, optimizer, loader)
    if num_before:
        untouched.fit(num_before)
    expected = later(untouched)
    loop = make_loop(step, optimizer, loader)
    if num_before:
        loop.fit(num_before)
    with undone(loop):
        shaken(loop)
    assert later(loop) == expected


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("event", ["after_backward", "before_step", "after_step"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("on purpose")])
def test_errors_and_ctrl_c_change_nothing(step: str, event: str, error: BaseException) -> None:
    expected = later(make_loop(step))
    loop = make_loop(step)
    with pytest.raises(type(error)), undone(loop):
        loop.fit(1, [Raise(error, event)])
    assert all(parameter.grad is None for parameter in loop.model.parameters())
    assert later(loop) == expected


def test_what_was_learned_can_be_put_back_again_and_again() -> None:
    loop = make_loop("fp16 and clipped", "adamw", "list")
    loop.fit(1)
    before = plain([loop.model.state_dict(), loop.optimizer.state_dict()])
    with undone(loop) as snapshot:
        for _ in range(3):
            loop.fit(1)
            assert plain([loop.model.state_dict(), loop.optimizer.state_dict()]) != before
            snapshot.restore_learned()
            assert plain([loop.model.state_dict(), loop.optimizer.state_dict()]) == before


@pytest.mark.parametrize("peek", [True, False])
def test_an_epoch_left_in_its_middle_is_not_gone_on_with(peek: bool) -> None:
    def batches(*, is_undone: bool) -> list[Tensor]:
        loop = make_loop()
        if peek:
            next(iter(loop.train_loader))
        else:
            loop.fit(1, steps=2)
        if is_undone:
            with undone(loop):
                loop.fit(1)
        return [x for x, _ in loop.train_loader]

    expected, actual = batches(is_undone=False), batches(is_undone=True)
    assert len(actual) == 4
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_parameters_of_a_loss_function_are_put_back_too() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, pred: Tensor, y: Tensor) -> Tensor:
            return nn.functional.cross_entropy(pred * self.scale, y)

    model, loss_func = Noisy(), Scaled()
    optimizer = torch.optim.SGD([*model.parameters(), *loss_func.parameters()], lr=0.1)
    loop = Loop(model, optimizer, Supervised(model, loss_func, optimizer), LOADERS["list"]())
    with undone(loop):
        loop.fit(1)
        assert loss_func.scale != 1
    assert loss_func.scale == 1
