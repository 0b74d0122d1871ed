from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from actograph.layout.row import Field
from actograph.sketch.derived import rectify
from actograph.testing.reference import numpy_histogram, numpy_row
from actograph.testing.synthetic import RELU

MANY = [0.0, -0.0, 0.05, -0.05, 0.051, -0.051, np.nan, np.inf, -np.inf, 1e-40, -1e-40, 3e38, -3e38]
VALUES = hnp.arrays(
    np.float32, st.integers(0, 30), elements=st.one_of(st.floats(-2, 2, width=32), st.sampled_from(MANY))
)


@given(st.lists(VALUES, min_size=1, max_size=4))
def test_rectified_rows_equal_the_rows_of_rectified_values(many: list[np.ndarray]) -> None:
    with np.errstate(over="ignore"):
        rows, hist = np.stack([numpy_row(x) for x in many]), np.stack([numpy_histogram(x) for x in many])
        outputs = [np.maximum(x, np.float32(0)) for x in many]
        rectify(rows, hist)
        np.testing.assert_array_equal(rows, np.stack([numpy_row(y, flat=RELU) for y in outputs]))
    np.testing.assert_array_equal(hist, np.stack([numpy_histogram(y) for y in outputs]))
    assert not rows[:, [Field.NEAR_ZERO_NEG, Field.INF_NEG]].any()
