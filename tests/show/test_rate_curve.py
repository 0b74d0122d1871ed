from __future__ import annotations

import numpy as np
import pytest

from actograph.layout.row import Floats
from actograph.show.rate_curve import loss_at, rate_curve
from actograph.show.rate_picture import WIDTH, rate_picture

RATES = 10.0 ** np.linspace(-7, 1, 100)


def curve() -> Floats:
    k = np.arange(100)
    return np.asarray(2.3 - 1.8 / (1 + np.exp((55 - k) / 6)) + np.exp((k - 85) / 2), np.float64)


def test_suggestions_are_marked_on_the_smoothed_curve() -> None:
    figure = rate_curve(RATES, curve() + 0.1, curve(), {"valley": float(RATES[40])})
    mark = figure.data[-1]
    assert (mark.x[0], mark.y[0]) == pytest.approx((RATES[40], curve()[40]))
    assert loss_at(0.5, np.array([0.1, 1.0]), np.array([3.0, np.nan])) == 3.0
    assert loss_at(0.01, np.array([0.001, 0.1]), np.array([1.0, 3.0])) == pytest.approx(2.0)


def test_a_loss_that_blows_up_leaves_the_fall_two_fifths_of_the_axis() -> None:
    low, high = rate_curve(RATES, curve(), curve(), {}).layout.yaxis.range
    assert low < curve().min()
    assert curve().max() > 100
    assert (2.3 - curve().min()) / (high - low) == pytest.approx(0.4 / 1.16, rel=0.01)


def test_a_curve_that_does_not_blow_up_is_shown_whole() -> None:
    low, high = rate_curve(RATES[:70], curve()[:70], curve()[:70], {}).layout.yaxis.range
    assert low < curve()[:70].min() < curve()[:70].max() < high


def test_raw_losses_below_the_smoothed_ones_are_shown() -> None:
    low, _ = rate_curve(RATES, curve() - 0.4, curve(), {}).layout.yaxis.range
    assert low < curve().min() - 0.4


@pytest.mark.parametrize("losses", [np.array([]), np.full(100, np.nan), np.full(100, 2.3)])
def test_nothing_to_scale_is_left_to_the_figure(losses: Floats) -> None:
    assert rate_curve(RATES[: len(losses)], losses, losses, {}).layout.yaxis.range is None


def test_marks_stand_below_their_place_on_the_line() -> None:
    head, rates, *marks = rate_picture(
        RATES, curve(), {"b": float(RATES[60]), "a": float(RATES[20])}
    ).splitlines()
    assert head.startswith("loss 2.3 ")
    assert rates.startswith("rate 1e-07 ")
    assert rates.endswith(" 10")
    begin = head.index("█")
    assert [mark.split() for mark in marks] == [["▲", "a", "4.1e-06"], ["▲", "b", "0.0071"]]
    places = [(mark.index("▲") - begin) / WIDTH for mark in marks]
    assert places == pytest.approx([0.2, 0.6], abs=1 / WIDTH)


def test_losses_that_are_not_finite_are_left_out_of_the_picture() -> None:
    losses = curve()
    losses[80:] = np.nan
    assert rate_picture(RATES, losses, {}) == rate_picture(RATES[:80], losses[:80], {})
    assert rate_picture(RATES, np.full(100, np.nan), {}) == ""
