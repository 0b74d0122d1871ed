from __future__ import annotations

from actograph.observe.lead import TAKE_OVER, Lead


def ends(numbers: list[int], lead: Lead | None = None) -> list[bool]:
    lead = lead or Lead()
    return [lead.ends_step(number, is_open=True) for number in numbers]


def test_one_optimizer_ends_each_step() -> None:
    assert ends([0, 0, 0]) == [True, True, True]


def test_the_first_optimizer_ends_a_step_even_if_no_forward_was_seen() -> None:
    assert Lead().ends_step(0, is_open=False)


def test_a_round_of_several_ends_with_the_one_seen_last() -> None:
    assert ends([0, 0, 1, 0, 0, 1, 0, 0, 1])[3:] == [False, False, True] * 2


def test_one_that_steps_on_alone_takes_over_and_keeps_the_lead() -> None:
    lead = Lead()
    ends([0, 1, 0, 1], lead)
    assert ends([0] * (TAKE_OVER + 2), lead) == [False] * (TAKE_OVER - 1) + [True] * 3
    assert ends([1, 0, 1, 0], lead) == [False, True, False, True]


def test_the_leader_s_step_begins_the_count_again() -> None:
    lead = Lead()
    ends([0, 1], lead)
    for _ in range(3):
        assert not any(ends([0] * (TAKE_OVER - 1), lead))
        assert ends([1], lead) == [True]
