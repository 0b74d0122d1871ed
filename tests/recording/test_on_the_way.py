"""Rows that are on their way from a device when their step ends: a device that takes its time stands in for one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from actograph.recording import recording as recording_module
from actograph.recording.new_run import new_run
from actograph.recording.recording import Recording
from actograph.runlog.view import RunView
from actograph.sketch import block as block_module
from actograph.sketch import transit
from actograph.sketch.block import Block
from actograph.train import waiting


class SlowCopy(transit.HostCopy):
    """A copy of a CPU tensor that arrives when the test says so."""

    arrived = False
    num_waits = 0

    def __init__(self, source: Tensor) -> None:
        super().__init__(source.clone())

    def has_arrived(self) -> bool:
        return SlowCopy.arrived

    def wait(self) -> np.ndarray:
        SlowCopy.num_waits += not SlowCopy.arrived
        return super().wait()


@pytest.fixture
def _slow_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def depart(self: block_module._DeviceRows, step: int) -> transit.Part:
        return transit.Part(
            self.send(step), list(self.positions), list(self.flag_bytes), self.all_flag_bytes()
        )

    monkeypatch.setattr(block_module._DeviceRows, "depart", depart)
    monkeypatch.setattr(Block, "is_on_host", False)
    monkeypatch.setattr(transit, "HostCopy", SlowCopy)
    monkeypatch.setattr(waiting, "HostCopy", SlowCopy)
    monkeypatch.setattr(SlowCopy, "arrived", False)
    monkeypatch.setattr(SlowCopy, "num_waits", 0)


slow_device = pytest.mark.usefixtures("_slow_device")


class Growing(nn.Module):
    """Calls its last layers from the third forward on."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
        self.later = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.num_forwards = 0

    def forward(self, x: Tensor) -> Tensor:
        self.num_forwards += 1
        x = self.first(x)
        return self.later(x) if self.num_forwards > 2 else x


class Training:
    """A recorded training of which no clock decides when to store."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        self.model = Growing()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.recording = Recording(new_run("own", ":memory:"), budget=None)
        self.recording._writer._clock = lambda: 0.0
        self.recording.attach(self.model)
        self.recording.optimizer(self.optimizer, gradients=True)

    def train(self, num_steps: int) -> Recording:
        for _ in range(num_steps):
            loss = self.model(torch.randn(16, 4)).square().mean()
            self.recording.loss(loss)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        return self.recording


def record(num_steps: int) -> Recording:
    return Training().train(num_steps)


def assert_equal(got: RunView, expected: RunView) -> None:
    assert [layer.name for layer in got.layers] == [layer.name for layer in expected.layers]
    np.testing.assert_array_equal(got.last_steps, expected.last_steps)
    np.testing.assert_array_equal(got.rows, expected.rows)
    for name in ("first.1", "later.1"):
        np.testing.assert_array_equal(got.histogram(name), expected.histogram(name))
        np.testing.assert_array_equal(got.fired(name), expected.fired(name))
    np.testing.assert_array_equal(got.parameters.rows, expected.parameters.rows)


@pytest.mark.parametrize("arrived", [False, True])
def test_a_run_does_not_tell_whether_rows_were_on_their_way(
    arrived: bool, request: pytest.FixtureRequest
) -> None:
    expected = record(5).view()
    request.getfixturevalue("_slow_device")
    SlowCopy.arrived = arrived
    assert_equal(record(5).view(), expected)


@slow_device
def test_the_end_of_a_step_does_not_wait() -> None:
    recording = record(5)
    assert SlowCopy.num_waits == 0
    assert len(recording._writer.view().last_steps) == 0
    recording.close()
    assert recording.view().last_steps.tolist() == [0, 1, 2, 3, 4]


@slow_device
def test_storing_takes_what_has_come_and_does_not_wait_for_more() -> None:
    training = Training()
    training.train(2)
    SlowCopy.arrived = True
    training.train(1)
    SlowCopy.arrived = False
    training.recording._writer._clock = lambda: 1e9  # storing is due
    training.train(1)
    assert SlowCopy.num_waits == 0
    assert training.recording._writer.view().last_steps.tolist() == [0, 1, 2]


@slow_device
def test_rows_on_their_way_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_module, "MAX_ON_THE_WAY", 3)
    recording = record(5)
    assert len(recording._on_the_way) == 3
    assert SlowCopy.num_waits == 2


@slow_device
def test_a_failed_training_keeps_what_was_on_its_way() -> None:
    recording = record(3)
    recording.close("failed")
    assert recording.view().last_steps.tolist() == [0, 1, 2]
