"""`Updates`: sums, rates and agreement as plain numpy has them, on made-up runs."""

from __future__ import annotations

import numpy as np
import pytest

from actograph.layout.row import Floats
from actograph.rules.updates import GOOD_FIRST_RATIO, Updates, peak
from actograph.runlog.facts import FactKind
from actograph.testing.synthetic import SyntheticRun

STEPS = 200
COSINE = 0.5 * (1 + np.cos(np.pi * np.arange(STEPS) / STEPS))


def updates_of(
    rates: Floats,
    every: int = 1,
    per_rate: float = 0.2,
    cosines: Floats | None = None,
    loss: float = 2.3,
    labels: list[float] | None = None,
    **settings: float,
) -> Updates:
    """Return what is known of a run whose updates are ``per_rate`` times the rate of the weights."""
    run = SyntheticRun([])
    cosines = np.full(STEPS, 0.1) if cosines is None else cosines
    for step, rate in enumerate(rates):
        run.step({}, loss=loss, lr=float(rate))
        if step % every == 0:
            for name in ("update_ratio", "largest_update_ratio"):
                run.writer.add_scalar(name, step, per_rate * float(rate), "update")
            run.writer.add_scalar("grad_cosine", step, float(cosines[step]), "update")
    run.writer.facts.note(FactKind.SETTINGS, "optimizer", 0, kind="any", **settings)
    if labels is not None:
        run.writer.facts.note(FactKind.LABELS, "classes", 0, counts=labels)
    found = Updates.of(run.view())
    assert found is not None
    return found


@pytest.mark.parametrize("every", [1, 7, 40])
def test_way_is_the_sum_over_all_steps_however_few_were_recorded(every: int) -> None:
    assert updates_of(0.1 * COSINE, every).way == pytest.approx(0.2 * 0.1 * COSINE.sum(), rel=1e-6)


def test_what_was_not_recorded_is_foretold_from_the_rate() -> None:
    jumped = np.where(np.arange(STEPS) < 100, 0.01, 0.5)
    assert updates_of(jumped, every=15).foretold(100) == pytest.approx(0.2 * 0.5)


def test_the_rate_in_force_begins_after_the_warm_up() -> None:
    warm = np.minimum((np.arange(STEPS) + 1) / 40, 1.0) * 0.1
    found = updates_of(warm)
    assert found.in_force_since == 19
    assert found.early_ratio == pytest.approx(np.median(0.2 * warm[19:29]))
    assert not found.is_warming_up
    assert updates_of(np.linspace(0, 1, STEPS)).is_warming_up


def test_the_good_rate_makes_the_first_update_a_good_one() -> None:
    rates = np.full(STEPS, 0.1)
    plain = updates_of(rates).good_rate()
    with_momentum = updates_of(rates, momentum=0.9).good_rate()
    adam = updates_of(rates, momentum=0.9, beta2=0.999).good_rate()
    assert plain == pytest.approx(GOOD_FIRST_RATIO / 0.2)
    assert with_momentum == pytest.approx(GOOD_FIRST_RATIO / 0.2 * 0.1)
    assert adam == pytest.approx(np.sqrt(GOOD_FIRST_RATIO / 0.2 * 1e-3))


def test_gradients_agree_only_where_their_mean_is_clearly_above_zero() -> None:
    random = np.random.default_rng(0)
    rates = np.full(STEPS, 0.1)
    assert updates_of(rates, cosines=0.1 + 0.2 * random.normal(size=STEPS)).gradients_agree
    noise = [updates_of(rates, cosines=0.2 * random.normal(size=STEPS)).gradients_agree for _ in range(40)]
    assert sum(noise) <= 1


def test_a_single_large_update_is_no_peak() -> None:
    assert peak(np.array([0.1, 0.1, 5.0, 0.1, 0.2])) == pytest.approx(0.2)
    assert peak(np.zeros(0)) == 0.0


def test_a_loss_far_below_chance_began_well() -> None:
    rates = np.full(STEPS, 0.1)
    assert updates_of(rates, loss=0.3, labels=[10.0] * 10).began_well is True
    assert updates_of(rates, loss=2.3, labels=[10.0] * 10).began_well is False
    assert updates_of(rates, loss=0.3).began_well is None


def test_too_few_updates_are_told_as_nothing() -> None:
    run = SyntheticRun([])
    for step in range(3):
        run.step({}, loss=1.0, lr=0.1)
        run.writer.add_scalar("update_ratio", step, 0.01, "update")
    assert Updates.of(run.view()) is None
