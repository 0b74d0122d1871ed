from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unmeasured import unmeasured


@pytest.fixture(autouse=True, scope="module")
def _unmeasured() -> Iterator[None]:
    """Whole trainings with all their rules: each part has tests of its own, in which coverage is measured."""
    with unmeasured():
        yield
