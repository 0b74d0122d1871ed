from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from actograph.study.memory import (
    LEAST,
    MemoryLine,
    PeakJob,
    available_bytes,
    measured_line,
    peaks_of,
    predict,
    saved_bytes,
)
from actograph.study.setup import Setup

FLOAT_BYTES, LONG_BYTES = 4, 8


def test_saved_bytes_count_each_storage_once_and_no_parameters() -> None:
    model = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
    x, y = torch.randn(8, 10), torch.zeros(8, dtype=torch.long)
    # input; output of the ReLU, which the second layer keeps too; log-probabilities, labels, total weight
    expected = 8 * (10 + 20 + 5) * FLOAT_BYTES + 8 * LONG_BYTES + FLOAT_BYTES
    assert saved_bytes(model, nn.CrossEntropyLoss(), x, y) == expected


def test_saved_bytes_of_a_slice_do_not_count_the_whole() -> None:
    x, y = torch.randn(64, 10), torch.zeros(64, dtype=torch.long)
    model = nn.Linear(10, 5)
    assert saved_bytes(model, nn.CrossEntropyLoss(), x[:8], y[:8]) < 64 * 10 * FLOAT_BYTES


def test_the_prediction_is_a_line_with_parameters_gradients_and_two_moments() -> None:
    model = nn.Linear(10, 5)
    x, y = torch.randn(8, 10), torch.zeros(8, dtype=torch.long)
    line = predict(model, nn.CrossEntropyLoss(), x, y)
    assert line.per_sample == (10 + 5) * FLOAT_BYTES + LONG_BYTES
    assert line.fixed == 4 * 55 * FLOAT_BYTES + FLOAT_BYTES
    assert line.at(100) == line.fixed + 100 * line.per_sample


def test_a_line_needs_two_peaks() -> None:
    assert measured_line({64: 1.0}) is None
    assert measured_line({2: 1.0, 64: 10.0, 128: 20.0}) == MemoryLine.through((64, 10.0), (128, 20.0))


@pytest.mark.skipif(sys.platform != "linux", reason="peaks and limits are Linux's")
def test_a_size_over_its_limit_ends_the_measurement_and_not_the_process() -> None:
    setup = Setup(model="mlp", network={"hidden": [8]})
    size = 300_000  # 0.9 GB of input
    assert available_bytes() > 0
    assert peaks_of(PeakJob(setup, 10, (1, 28, 28), {LEAST: 2**30, size: 2**26})).keys() == {LEAST}
