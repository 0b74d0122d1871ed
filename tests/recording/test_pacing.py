from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actograph.errors import UsageError
from actograph.recording.pacing import LONG, LONGEST_INTERVAL, WARM_UP_STEPS, Pacer


def recorded_steps(pacer: Pacer, num_steps: int, step_s: float, cost_s: float) -> list[int]:
    steps = []
    for step in range(num_steps):
        own_s = cost_s if pacer.records_now else 0.0
        if pacer.records_now:
            steps.append(step)
        pacer.end_step(step_s + own_s, own_s)
    return steps


def test_without_a_budget_every_step_is_recorded() -> None:
    assert recorded_steps(Pacer(None), 50, 0.01, 1.0) == list(range(50))


def test_cheap_recording_is_never_thinned() -> None:
    assert recorded_steps(Pacer(0.03, free_s=0.0), 50, 0.01, 0.0002) == list(range(50))


@given(st.floats(0.01, 0.5), st.floats(0.001, 0.1), st.floats(0.0001, 0.1))
def test_the_cost_stays_within_the_budget(budget: float, step_s: float, cost_s: float) -> None:
    pacer = Pacer(budget, free_s=0.0)
    steps = recorded_steps(pacer, 2000, step_s, cost_s)
    growing = math.log2(LONGEST_INTERVAL / LONG)  # long intervals are come to by doubling
    warm_up_s = (WARM_UP_STEPS + 1 + growing) * cost_s  # steps recorded before anything is known
    assert pacer.recorder_s - warm_up_s <= budget * 2000 * step_s + cost_s
    assert len(steps) == pacer.steps_recorded


def test_steps_are_thinned_evenly() -> None:
    steps = recorded_steps(Pacer(0.1, free_s=0.0), 200, 0.01, 0.0045)  # 4.5 budgets: every fifth step
    assert {b - a for a, b in zip(steps[WARM_UP_STEPS + 1 :], steps[WARM_UP_STEPS + 2 :], strict=False)} == {
        5
    }


def test_recording_comes_back_when_steps_grow_longer() -> None:
    pacer = Pacer(0.1, free_s=0.0)
    recorded_steps(pacer, 100, 0.01, 0.01)
    assert pacer.every == 10
    recorded_steps(pacer, 500, 1.0, 0.01)
    assert pacer.every == 1


def test_the_first_second_of_recording_is_free_and_the_rest_is_thinned() -> None:
    steps = recorded_steps(Pacer(0.1, free_s=1.0), 400, 0.01, 0.01)
    assert steps[:100] == list(range(100))
    assert 25 <= len(steps[100:]) <= 31  # a tenth of the time: every tenth step


def test_the_cost_is_told() -> None:
    pacer = Pacer(0.5, free_s=0.0)
    recorded_steps(pacer, 4, 1.0, 0.25)
    cost = pacer.cost()
    assert (cost.steps_seen, cost.steps_recorded, cost.budget) == (4, 4, 0.5)
    assert cost.share == pytest.approx(1.0 / 5.0)


@pytest.mark.parametrize("budget", [0.0, -1.0, 1.0, 3.0])
def test_a_budget_must_be_a_share(budget: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        Pacer(budget)


def test_one_slow_store_does_not_end_the_recording() -> None:
    pacer = Pacer(0.03, free_s=0.0)
    for step in range(400):
        own_s = 0.002 if pacer.records_now else 0.0
        pacer.end_step(
            0.001 + own_s, own_s, storing_s=0.2 if step == 20 else 0.0
        )  # far more than all is worth
    assert pacer.every <= 4 * LONG  # else nothing more would be seen of such a run
