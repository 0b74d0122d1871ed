"""What recording adds to a step in Python and C function calls stays within limits; times are in benchmarks/LOG.md.

The limits are what was counted with torch 2.13, and a little. "A layer" is a linear one with its two parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from actograph.models.cnn import simple_cnn
from actograph.recording.recording import Recording
from actograph.runlog.schema import RunInfo
from actograph.runlog.store import RunWriter

from ..calls import calls_per_step

FEW_LAYERS, MANY_LAYERS = 4, 24


def calls(
    model: nn.Module, x: Tensor, recording: Recording | None = None, *, gradients: bool = False
) -> float:
    """Return the function calls of a step in a hand-written loop."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    if recording is not None:
        recording.attach(model)
        recording.optimizer(optimizer, gradients=gradients)

    def run(num_steps: int) -> None:
        for _ in range(num_steps):
            loss = model(x).square().mean()
            if recording is not None:
                recording.loss(loss)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return calls_per_step(run)


def added(
    make: Callable[[], nn.Module],
    x: Tensor,
    *,
    layers: bool = True,
    grad: bool = False,
    gradients: bool = False,
) -> float:
    """Return the calls that recording adds to a step; a run in memory, and no flush that a clock decides on."""
    writer = RunWriter(None, RunInfo("calls"), clock=lambda: 0.0)
    recording = Recording(writer, budget=None, layers=layers, grad=grad)
    return calls(make(), x, recording, gradients=gradients) - calls(make(), x)


def linears(num: int) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*[nn.Linear(4, 4) for _ in range(num)])


@pytest.fixture(autouse=True, scope="module")
def warm() -> None:
    """Fill the caches that the first recording of a process fills: they are no cost of a step."""
    added(linears(1), torch.randn(2, 4))


@pytest.mark.parametrize(
    ("what", "a_layer", "a_step"),
    [
        ({}, 37, 1000),
        ({"grad": True}, 59, 1000),
        ({"gradients": True, "layers": False}, 21, 1100),
    ],
)
def test_a_layer_and_the_end_of_a_step_add_few_calls(
    what: dict[str, bool], a_layer: int, a_step: int
) -> None:
    x = torch.randn(2, 4)
    few, many = (added(linears(num), x, **what) for num in (FEW_LAYERS, MANY_LAYERS))
    slope = (many - few) / (MANY_LAYERS - FEW_LAYERS)
    assert slope <= a_layer
    assert few - FEW_LAYERS * slope <= a_step


def test_recording_simple_cnn_adds_few_calls() -> None:
    assert added(lambda: simple_cnn(10), torch.randn(64, 1, 28, 28)) <= 1430


def test_a_row_that_is_derived_adds_few_calls() -> None:
    def wide() -> nn.Module:
        return nn.Sequential(nn.Linear(1, 2048), nn.ReLU(), nn.Linear(2048, 1))

    assert added(wide, torch.randn(64, 1)) <= 1165
