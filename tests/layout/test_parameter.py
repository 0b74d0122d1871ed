from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from actograph.layout.parameter import (
    NUM_PARAMETER_FIELDS,
    ParameterField,
    ParameterInfo,
    empty_parameter_rows,
    merge_parameter_rows,
)

EXTREMES = (
    ParameterField.GRAD_MAX,
    ParameterField.FIRST_ZERO_UPDATE,
    ParameterField.FIRST_NON_FINITE,
    ParameterField.FIRST_BAD_WEIGHTS,
)


@given(num=st.integers(1, 8), split=st.integers(0, 8), seed=st.integers(0, 100))
def test_merge_of_parts_equals_whole(num: int, split: int, seed: int) -> None:
    rows = np.random.default_rng(seed).integers(0, 1000, (num, 3, NUM_PARAMETER_FIELDS)).astype(np.float64)
    parts = [part for part in (rows[:split], rows[split:]) if len(part)]
    np.testing.assert_array_equal(
        merge_parameter_rows(np.stack([merge_parameter_rows(part) for part in parts])),
        merge_parameter_rows(rows),
    )
    np.testing.assert_array_equal(merge_parameter_rows(rows[::-1]), merge_parameter_rows(rows))


@given(seed=st.integers(0, 100))
def test_an_empty_row_changes_nothing(seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(1, 3, NUM_PARAMETER_FIELDS))
    both = np.concatenate([empty_parameter_rows(1, 3), rows])
    np.testing.assert_array_equal(merge_parameter_rows(both), rows[0])


def test_sums_are_added_and_extremes_taken() -> None:
    rows = np.stack([np.full(NUM_PARAMETER_FIELDS, 2.0), np.full(NUM_PARAMETER_FIELDS, 3.0)])
    merged = merge_parameter_rows(rows)
    assert merged[ParameterField.GRAD_MAX] == 3
    assert all(merged[field] == 2 for field in EXTREMES[1:])
    assert all(merged[field] == 5 for field in ParameterField if field not in EXTREMES)


def test_what_is_known_of_a_parameter_survives_storage() -> None:
    info = ParameterInfo("block.conv.weight", (8, 1, 5, 5), "bfloat16")
    assert ParameterInfo.from_json(info.to_json()) == info
