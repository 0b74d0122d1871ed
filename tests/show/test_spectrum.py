from __future__ import annotations

import numpy as np
import pytest

from actograph.layout.bins import CENTERS, EDGES
from actograph.runlog.view import RunView
from actograph.show.spectrum import mean_log_counts, spectrum
from actograph.testing.synthetic import SyntheticRun, layer

from .runs import healthy_run, sick_run


@pytest.fixture(scope="module")
def view() -> RunView:
    return healthy_run()


@pytest.mark.parametrize("name", ["layers.0.conv", "layers.1.act", "layers.4.conv"])
def test_no_value_is_lost(view: RunView, name: str) -> None:
    rows = spectrum(view, name)
    totals = view.histogram(name).sum(axis=1) / view.num_recorded
    assert np.allclose(np.expm1(rows.log_counts).sum(axis=0), totals, rtol=1e-9)


def test_rows_lie_in_order_and_are_named_by_the_values_they_hold(view: RunView) -> None:
    rows = spectrum(view, "layers.0.conv")
    assert len(rows.edges) == len(rows.log_counts) + 1
    assert np.all(np.diff(rows.edges) > 0)
    assert np.all(rows.lows <= rows.highs)
    assert np.all(rows.highs[:-1] <= rows.lows[1:])
    for at in range(len(rows.lows)):  # the middle of every row is shown in that row
        low, high = rows.lows[at], rows.highs[at]
        inside = CENTERS[(low < CENTERS) & (high > CENTERS)]
        for value in [*inside, 0.0] if low == high == 0 else inside:
            position = rows.position(value)
            joined = abs(position) < 2  # the joined rows are no scale of their own
            assert joined or rows.edges[at] <= position <= rows.edges[at + 1]


def test_a_rectifier_has_no_rows_below_zero(view: RunView) -> None:
    rows = spectrum(view, "layers.0.act")
    assert rows.lows[0] == 0
    assert rows.edges[0] == -1
    assert not any(label.startswith("\N{MINUS SIGN}") for label in rows.ticks().values())


def test_ticks_are_round_values_at_their_positions(view: RunView) -> None:
    rows = spectrum(view, "layers.4.conv")
    ticks = rows.ticks()
    assert ticks[0.0] == "0"
    assert "1" in ticks.values()
    for position, label in ticks.items():
        value = float(label.replace("\N{MINUS SIGN}", "-"))
        assert rows.position(value) == position
    assert np.min(np.diff(list(ticks))) > 0.04 * (rows.edges[-1] - rows.edges[0])


def test_vanishing_activations_are_zoomed_in_on() -> None:
    run = SyntheticRun([layer("a", "Linear", 32)])
    random = np.random.default_rng(0)
    for step in range(20):
        run.step({"a": random.normal(0, 10.0 ** (-step / 4), (64, 32))})
    rows = spectrum(run.view(), "a")
    smallest = EDGES[EDGES > 0][rows.inner - 1]
    assert smallest < 1e-6  # the last step's values, of size 1e-5, are spread over rows of their own


def test_a_layer_without_any_finite_value_is_empty() -> None:
    run = SyntheticRun([layer("a", "Linear", 4)])
    run.step({"a": np.full((2, 4), np.nan)})
    rows = spectrum(run.view(), "a")
    assert rows.is_empty
    assert rows.ticks() == {}


def test_merged_buckets_are_as_bright_as_single_steps() -> None:
    view = healthy_run(steps=400)
    assert set(view.num_recorded) == {1, 2}
    totals = np.expm1(mean_log_counts(view, 0)).sum(axis=0)
    assert np.allclose(totals, 64 * 8)
    assert view.num_recorded.sum() == 400


def test_counts_that_did_not_merge_come_back_exactly() -> None:
    view = sick_run(steps=60)
    assert np.array_equal(np.rint(np.expm1(mean_log_counts(view, 0))).T, view.histogram(0))
