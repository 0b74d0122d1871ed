"""Shared by all tests: one torch thread (tests run side by side), a fixed seed, and no hook left behind."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

settings.register_profile("actograph", deadline=None, derandomize=True)  # shared machines are slow at times
settings.load_profile("actograph")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
