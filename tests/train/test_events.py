from __future__ import annotations

import pytest

from actograph.errors import UsageError
from actograph.train.events import EVENTS, Callback, Stage, dispatch_table, in_order, plan
from actograph.train.loop import Loop
from actograph.train.names import snake_name


class First(Callback):
    stage = Stage.SETUP

    def after_loss(self, loop: Loop) -> None: ...

    def cleanup_fit(self, loop: Loop) -> None: ...


class Last(Callback):
    stage = Stage.REPORT

    def after_loss(self, loop: Loop) -> None: ...

    def cleanup_fit(self, loop: Loop) -> None: ...


class Only(Callback):
    unique = True


def test_a_misspelt_event_is_refused_with_the_right_name() -> None:
    with pytest.raises(TypeError, match=r"Typo\.after_los is not an event: did you mean after_loss\?"):
        type("Typo", (Callback,), {"after_los": lambda self, loop: None})


def test_an_unknown_event_that_resembles_nothing_is_refused_with_the_list() -> None:
    with pytest.raises(TypeError, match="the events are before_fit, before_epoch"):
        type("Unknown", (Callback,), {"before_xyzzy_q": lambda self, loop: None})


def test_an_event_that_cannot_take_the_loop_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Deaf\.after_loss must take \(self, loop\)"):
        type("Deaf", (Callback,), {"after_loss": lambda self: None})


def test_a_number_called_like_an_event_is_no_event() -> None:
    assert type("Waiting", (Callback,), {"after_steps": 100})


def test_the_events_are_the_methods_of_the_base_class_in_order() -> None:
    assert [event.__name__ for event in EVENTS][:3] == ["before_fit", "before_epoch", "before_phase"]
    assert EVENTS[-1] is Callback.cleanup_fit
    assert len(EVENTS) == 14


def test_an_event_that_nobody_overrides_has_no_handlers() -> None:
    table = dispatch_table([First()])
    assert [event for event, handlers in table.items() if handlers] == [
        Callback.after_loss,
        Callback.cleanup_fit,
    ]


def test_an_override_inherited_from_a_parent_is_dispatched() -> None:
    class Child(First):
        pass

    assert len(dispatch_table([Child()])[Callback.after_loss]) == 1


def test_stages_come_first_and_list_order_second() -> None:
    a, b, c = Last(), First(), Last()
    assert in_order([a, b, c]) == (b, a, c)


def test_two_of_a_unique_class_are_refused() -> None:
    with pytest.raises(UsageError, match="2 callbacks of class Only"):
        in_order([Only(), First(), Only()])


def test_the_plan_prints_who_runs_when_and_cleans_up_in_reverse() -> None:
    table = plan([Last(), First()])
    assert table.rows["after_loss"] == ("first", "last")
    assert table.rows["cleanup_fit"] == ("last", "first")
    assert "after_loss      first, last\n" in str(table)
    assert len(str(table).splitlines()) == 14


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("ActivationStats", "activation_stats"),
        ("CSVLog", "csv_log"),
        ("OneCycle2", "one_cycle2"),
        ("A", "a"),
    ],
)
def test_snake_names(name: str, snake: str) -> None:
    assert snake_name(type(name, (), {})) == snake
