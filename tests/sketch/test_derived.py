from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from actograph.layout.row import Field
from actograph.sketch import native
from actograph.sketch.derived import derive, rectify
from actograph.testing.reference import numpy_histogram, numpy_row
from actograph.testing.synthetic import RELU

MOMENTS = [Field.NEG_MEAN, Field.NEG_M2, Field.POS_MEAN, Field.POS_M2]
MANY = [0.0, -0.0, 0.05, -0.05, 0.051, -0.051, np.nan, np.inf, -np.inf, 1e-40, -1e-40, 3e38, -3e38]
VALUES = hnp.arrays(
    np.float32, st.integers(0, 30), elements=st.one_of(st.floats(-2, 2, width=32), st.sampled_from(MANY))
)


@settings(deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=4))
def test_rectified_rows_equal_the_rows_of_rectified_values(many: list[np.ndarray]) -> None:
    with np.errstate(over="ignore"):
        rows, hist = np.stack([numpy_row(x) for x in many]), np.stack([numpy_histogram(x) for x in many])
        outputs = [np.maximum(x, np.float32(0)) for x in many]
        rectify(rows, hist)
        np.testing.assert_array_equal(rows, np.stack([numpy_row(y, flat=RELU) for y in outputs]))
    np.testing.assert_array_equal(hist, np.stack([numpy_histogram(y) for y in outputs]))
    assert not rows[:, [Field.NEAR_ZERO_NEG, Field.INF_NEG]].any()


def test_only_minus_infinity_leaves_no_first_step_behind_a_relu() -> None:
    some = [np.array([1.0, -np.inf]), np.array([1.0, np.inf, -np.inf]), np.array([-np.inf, np.nan])]
    rows, hist = np.stack([numpy_row(x) for x in some]), np.stack([numpy_histogram(x) for x in some])
    rows[:, Field.FIRST_NON_FINITE] = 7
    rectify(rows, hist)
    assert rows[:, Field.FIRST_NON_FINITE].tolist() == [np.inf, 7, 7]


FOLLOWERS = st.lists(  # slot, parent and whether a ReLU is between, each parent below its heirs
    st.integers(1, 5).flatmap(lambda slot: st.tuples(st.just(slot), st.integers(0, slot - 1), st.booleans())),
    max_size=6,
).map(lambda many: np.array(sorted(many), np.int64).reshape(-1, 3))


def measured_rows(many: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows (n, NUM_FIELDS) of measured tensors with a flat region, and their histograms."""
    rows = np.stack([numpy_row(x, flat=RELU) for x in many])
    bad = rows[:, Field.NAN] + rows[:, Field.INF] > 0
    rows[bad, Field.FIRST_NON_FINITE] = 3
    return rows, np.stack([numpy_histogram(x) for x in many]).astype(np.uint32)


@settings(max_examples=50, deadline=None)
@given(st.lists(VALUES, min_size=6, max_size=6), FOLLOWERS)
def test_followers_get_their_parents_rows_and_c_agrees(many: list[np.ndarray], followers: np.ndarray) -> None:
    with np.errstate(over="ignore"):
        rows, hist = measured_rows(many)
        in_c = rows.copy(), hist.copy()
        values = list(many)
        for slot, parent, rectifies in followers:
            values[slot] = np.maximum(values[parent], np.float32(0)) if rectifies else values[parent]
        derive(rows, hist, followers)
        expected, expected_hist = measured_rows(values)
    rectified = {slot: rectifies for slot, _, rectifies in followers}
    expected[[slot for slot, rectifies in rectified.items() if not rectifies], Field.FLAT] = 0
    np.testing.assert_array_equal(np.delete(rows, MOMENTS, 1), np.delete(expected, MOMENTS, 1))
    np.testing.assert_allclose(rows[:, MOMENTS], expected[:, MOMENTS], rtol=1e-12)
    np.testing.assert_array_equal(hist, expected_hist)
    if native.derive(*in_c, followers):
        assert in_c[0].tobytes() == rows.tobytes()
        np.testing.assert_array_equal(in_c[1], hist)
