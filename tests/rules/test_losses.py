from __future__ import annotations

import numpy as np
import pytest

from actograph.rules.losses import LossCurve
from tests.rules.runs import Array, falling, flat, losses_only, noise


def curve_of(losses: Array) -> LossCurve:
    return LossCurve.of(losses_only(losses).scalar("loss"))


def test_levels_are_medians_of_blocks() -> None:
    curve = curve_of(np.repeat([3.0, 2.0, 1.0, 4.0], 25))
    assert len(curve.levels) == 20
    assert (curve.levels[0], curve.best, curve.final) == (3.0, 1.0, 4.0)
    assert curve.levels[curve.best_block] == 1.0


def test_points_that_are_not_finite_are_left_out() -> None:
    assert len(curve_of(np.array([1.0, np.nan, np.inf, 2.0]))) == 2


def test_outlier_changes_no_level() -> None:
    losses = falling(0, 200)
    spiked = losses.copy()
    spiked[100] = 1e9
    assert abs(curve_of(spiked).levels - curve_of(losses).levels).max() < 0.1


@pytest.mark.parametrize("spread", [0.05, 0.2])
def test_error_of_a_level_is_what_repetition_shows(spread: float) -> None:
    curves = [curve_of(2.0 * noise(seed, 400, spread)) for seed in range(200)]
    shown = np.std([curve.levels[10] for curve in curves])
    assert np.mean([curve.error(10) for curve in curves]) == pytest.approx(shown, rel=0.25)


def test_trend_within_a_block_is_not_taken_for_noise() -> None:
    assert curve_of(np.linspace(5, 0, 200)).noises.max() < 1e-9


def test_start_is_that_of_the_first_points_where_the_loss_falls_fast() -> None:
    losses = np.r_[2.3, 2.2, 1.9, 1.5, 1.2, np.full(395, 0.1)]
    assert curve_of(losses).start > 1.0


def test_start_does_not_hang_on_one_lucky_batch() -> None:
    starts = [curve_of(flat(seed, 400, spread=0.2)).start for seed in range(50)]
    assert np.std(starts) < 0.2


def test_level_before_a_step_is_local() -> None:
    curve = curve_of(np.repeat([3.0, 1.0], 100))
    assert (curve.level_before(100), curve.level_before(150), curve.level_before(0)) == (3.0, 1.0, 3.0)


def test_harm_is_a_loss_that_did_not_fall_or_that_came_back() -> None:
    fell, stayed = falling(), flat()
    came_back = np.r_[fell[:60], np.full(60, 1.5)]
    assert not curve_of(fell).shows_harm(60, learned=0.5, lost=0.25)
    assert curve_of(stayed).shows_harm(0, learned=0.5, lost=0.25)
    assert curve_of(came_back).shows_harm(60, learned=0.1, lost=0.25)


def test_loss_that_explodes_at_once_and_settles_above_its_first_value_shows_harm() -> None:
    losses = np.r_[2.3, 40.0, 900.0, 300.0, 20.0, np.full(95, 2.4)]
    assert curve_of(losses).shows_harm(3, learned=0.5, lost=0.25)


def test_running_median_keeps_length_and_ignores_a_spike() -> None:
    losses = np.ones(30)
    losses[15] = 99.0
    assert curve_of(losses).smooth().tolist() == [1.0] * 30
