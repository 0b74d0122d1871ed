from __future__ import annotations

import json
import math

import numpy as np
import pytest

from actograph.errors import UsageError
from actograph.layout.row import Floats
from actograph.sweep.refusal import noise_of, refusal
from actograph.sweep.result import LRFind, joined, read_off
from actograph.sweep.suggestions import SUGGESTIONS, exponential_rates

NUM = 100
RATES = exponential_rates(1e-7, 10.0, NUM)


def falling(shift: int = 0, noise: float = 0.02) -> Floats:
    k = np.arange(NUM)
    bumps = noise * np.random.default_rng(shift + 50).normal(size=NUM)
    return np.asarray(
        2.3 - 1.8 / (1 + np.exp((55 + shift - k) / 6)) + bumps + np.exp((k - 90) / 3), np.float64
    )


def one(losses: Floats) -> LRFind:
    return read_off(RATES[: len(losses)], losses, NUM, "all rates were tried")


def flat() -> LRFind:
    return one(np.random.default_rng(3).normal(2.3, 0.05, NUM))


@pytest.mark.parametrize("scale", [1.0, 1e-4, 300.0])
@pytest.mark.parametrize("seed", range(10))
def test_noise_without_a_fall_is_refused_whatever_its_size(seed: int, scale: float) -> None:
    losses = np.random.default_rng(seed).normal(2.3, 0.05, NUM) * scale
    found = one(losses)
    assert found.refusal is not None
    assert "the loss never fell" in found.refusal
    assert found.suggestions == {}
    for name in SUGGESTIONS:
        with pytest.raises(UsageError, match="no learning rate is suggested: the loss never fell"):
            getattr(found, name)


@pytest.mark.parametrize(
    ("losses", "why"),
    [
        (np.full(NUM, 2.3), "lowest, 2.3, at the beginning; give a smaller start_lr"),
        (np.linspace(1.0, 3.0, NUM), "lowest, 1.1"),
        (2.3 + 1e-8 * np.cos(np.arange(NUM)), "lowest, 2.3, at the beginning"),  # less than float32 can tell
        (
            np.random.default_rng(0).normal(2.3, 0.05, NUM),
            "went from 2.3002 to 2.2837 at best, which its noise from batch to batch, 0.039",
        ),
    ],
)
def test_a_loss_that_stays_or_rises_is_refused(losses: Floats, why: str) -> None:
    reason = one(losses).refusal
    assert reason is not None
    assert why in reason


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.3])
def test_a_fall_beyond_the_noise_is_not_refused(noise: float) -> None:
    assert one(falling(noise=noise)).refusal is None


def test_a_test_that_ends_too_early_says_why() -> None:
    losses = np.array([2.0] * 20 + [math.nan])
    reason = refusal(losses, losses, NUM, "the loss is not finite")
    assert reason is not None
    assert "after 21 of 100 iterations (the loss is not finite)" in reason


def test_the_noise_is_that_between_iterations_and_no_trend() -> None:
    bumps = np.random.default_rng(0).normal(0.0, 0.5, 20_000)
    assert noise_of(bumps + np.linspace(0, 900, 20_000)) == pytest.approx(0.5, rel=0.03)


def test_repeats_give_the_median_and_both_ends() -> None:
    tests = [one(falling(shift)) for shift in (0, 8, -8)]
    found = joined(tests)
    for name in SUGGESTIONS:
        rates = sorted(test.suggestions[name] for test in tests)
        assert found.suggestions[name] == pytest.approx(rates[1])
        assert found.ranges[name] == (rates[0], rates[2])
    np.testing.assert_allclose(found.losses, np.mean([test.losses for test in tests], axis=0))
    assert f"valley {found.valley:.2g} ({found.ranges['valley'][0]:.2g} to " in str(found)
    assert "suggest nothing" not in str(found)


def test_between_two_repeats_lies_the_geometric_mean() -> None:
    tests = [one(falling(shift)) for shift in (0, 10)]
    assert joined(tests).minimum == pytest.approx(math.sqrt(tests[0].minimum * tests[1].minimum))


def test_repeats_that_suggest_nothing_are_counted_and_refused_when_they_are_half() -> None:
    good = one(falling())
    most = joined([good, flat(), good])
    assert most.valley == good.valley
    assert str(most).endswith("1 of 3 repeats suggest nothing")
    half = joined([good, flat()])
    assert half.refusal is not None
    assert half.refusal.startswith("in 1 of 2 repeats; in the first of them the loss never fell")
    assert not half.suggestions
    assert not half.ranges


def test_repeats_of_different_lengths_are_cut_to_the_shortest() -> None:
    found = joined([one(falling()), one(falling(1)[:95])])
    assert len(found.rates) == len(found.losses) == len(found.smoothed) == 95


def test_a_single_test_is_told_in_one_line_with_both_ends_equal() -> None:
    found = joined([one(falling())])
    assert found.repeats == ()
    assert found.ranges["slide"] == (found.slide, found.slide)
    assert str(found) == ", ".join(f"{name} {rate:.2g}" for name, rate in found.suggestions.items())
    assert str(flat()).startswith("no learning rate is suggested: the loss never fell")


def test_json_holds_all_and_no_nan() -> None:
    losses = falling()
    losses[97:] = math.nan
    data = json.loads(json.dumps(joined([one(losses), one(losses)]).to_json(), allow_nan=False))
    assert data["losses"][97] is None
    assert data["losses"][0] == losses[0]
    assert data["rates"] == RATES.tolist()
    assert list(data["suggestions"]) == list(data["ranges"]) == list(SUGGESTIONS)
    assert len(data["repeats"]) == 2
    assert data["refusal"] is None


def test_the_figure_has_the_curves_and_the_suggestions() -> None:
    found = joined([one(falling(shift)) for shift in (0, 8)])
    names = [trace.name for trace in found.plot().data]
    assert names == [None, None, "loss", "smoothed", *(f"{n} {r:.2g}" for n, r in found.suggestions.items())]
    assert [trace.name for trace in flat().plot().data] == ["loss", "smoothed"]
