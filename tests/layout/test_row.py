from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from actograph.layout.row import Field, empty_rows, merge_counts, merge_rows, moments
from actograph.testing.reference import numpy_histogram, numpy_row

VALUES = hnp.arrays(
    np.float64,
    st.integers(0, 40),
    elements=st.one_of(
        st.floats(-1e6, 1e6), st.sampled_from([0.0, -0.0, 0.05, np.nan, np.inf, -np.inf, 1e-40])
    ),
)
EXACT = [
    Field.NEG_COUNT,
    Field.POS_COUNT,
    Field.ZEROS,
    Field.NEAR_ZERO,
    Field.NAN,
    Field.INF,
    Field.NEAR_ZERO_NEG,
    Field.INF_NEG,
    Field.MIN,
    Field.MAX,
]


@given(VALUES, st.integers(0, 40), st.integers(0, 40))
def test_merge_of_parts_equals_whole(values: np.ndarray, cut1: int, cut2: int) -> None:
    low, high = sorted((cut1, cut2))
    parts = [numpy_row(part) for part in (values[:low], values[low:high], values[high:])]
    merged = merge_rows(np.stack([merge_rows(np.stack(parts[:2])), parts[2]]))
    np.testing.assert_allclose(merge_rows(np.stack(parts)), merged, rtol=1e-9, atol=1e-12)
    whole = numpy_row(values)
    np.testing.assert_array_equal(merged[EXACT], whole[EXACT])
    scale = 1 + np.nanmax(np.abs(np.where(np.isfinite(values), values, 0)), initial=0)
    np.testing.assert_allclose(
        merged[[Field.NEG_MEAN, Field.POS_MEAN]], whole[[Field.NEG_MEAN, Field.POS_MEAN]], atol=1e-9 * scale
    )
    np.testing.assert_allclose(
        merged[[Field.NEG_M2, Field.POS_M2]], whole[[Field.NEG_M2, Field.POS_M2]], atol=1e-9 * scale**2
    )


@given(VALUES)
def test_moments_of_the_whole_follow_from_both_signs(values: np.ndarray) -> None:
    finite = values[np.isfinite(values)]
    num, mean, m2 = moments(numpy_row(values))
    assert num == len(finite)
    if len(finite):
        scale = 1 + np.abs(finite).max()
        assert mean == pytest.approx(finite.mean(), abs=1e-9 * scale)
        assert m2 == pytest.approx(((finite - finite.mean()) ** 2).sum(), abs=1e-9 * scale**2 * len(finite))


def test_an_empty_row_changes_nothing() -> None:
    row = numpy_row(np.array([-1.0, 0.0, 2.0, np.nan]))
    row[Field.FIRST_NON_FINITE] = 7
    np.testing.assert_array_equal(merge_rows(np.stack([row, empty_rows()])), row)
    np.testing.assert_array_equal(merge_rows(np.stack([empty_rows(), row])), row)


def test_the_first_non_finite_step_merges_by_min() -> None:
    early, late = empty_rows(), empty_rows()
    early[Field.FIRST_NON_FINITE], late[Field.FIRST_NON_FINITE] = 3, 9
    assert merge_rows(np.stack([late, early]))[Field.FIRST_NON_FINITE] == 3


def test_a_large_mean_keeps_a_small_spread() -> None:
    values = 1e4 + 1e-2 * np.random.default_rng(0).normal(size=5000)
    merged = merge_rows(np.stack([numpy_row(values[:1000]), numpy_row(values[1000:])]))
    num, _, m2 = moments(merged)
    assert np.sqrt(m2 / (num - 1)) == pytest.approx(values.std(ddof=1), rel=1e-6)


def test_counts_become_floats_before_they_overflow() -> None:
    full = np.array([2**32 - 1], np.uint32)
    twice = merge_counts(np.stack([full, full]))
    assert twice.dtype == np.float32
    assert merge_counts(np.stack([twice, full])).tolist() == pytest.approx([3 * (2**32 - 1)], rel=1e-6)
    assert merge_counts(np.stack([full // 2, full // 2])).dtype == np.uint32


def test_histograms_of_parts_add_up() -> None:
    values = np.random.default_rng(1).normal(size=100)
    parts = merge_counts(np.stack([numpy_histogram(values[:30]), numpy_histogram(values[30:])]))
    np.testing.assert_array_equal(parts, numpy_histogram(values))
