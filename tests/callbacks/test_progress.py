from __future__ import annotations

import io
from collections.abc import Callable
from itertools import count, pairwise

import pytest
from rich.console import Console

from actograph.callbacks.progress import Progress, duration, live_line
from actograph.testing.callbacks import tiny_loop
from actograph.train.events import Callback
from actograph.train.loop import Loop
from actograph.train.metrics import Accuracy
from actograph.train.metrics import named_metrics as by_name
from actograph.train.state import StopFit


def ticking() -> Callable[[], float]:
    ticks = count()
    return lambda: float(next(ticks))


def printed(*callbacks: Callback, terminal: bool = False, epochs: int = 2) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=120, no_color=True)
    loop = tiny_loop()
    loop.metrics = by_name([Accuracy()])
    loop.fit(epochs, [Progress(console, clock=ticking()), *callbacks])
    return file.getvalue()


def test_a_plain_log_has_one_row_per_epoch_and_no_control_codes() -> None:
    text = printed()
    head, *rows = text.splitlines()
    assert head.split() == ["epoch", "train_loss", "valid_loss", "accuracy", "time"]
    assert [row.split()[0] for row in rows] == ["0", "1"]
    assert "\x1b" not in text
    assert "\r" not in text
    assert len({len(line) for line in (head, *rows)}) == 1


def test_a_terminal_also_gets_a_live_line() -> None:
    text = printed(terminal=True)
    assert "epoch 1/2  train 1/3  loss " in text
    assert "epoch 2/2  valid 2/2  loss " in text
    assert "s left" in text
    assert "\x1b[" in text
    assert "accuracy" in text


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def after_step(self, loop: Loop) -> None:
        if loop.progress.step == self.step:
            raise StopFit("the loss [bold] is small enough")


def test_the_reason_to_stop_is_printed() -> None:
    lines = printed(StopAt(4), epochs=5).splitlines()
    assert lines[-1] == "stopped: the loss [bold] is small enough"
    assert lines[2].split()[0] == "1"
    assert lines[2].split()[2:4] == ["-", "-"]  # there was no validation


def test_columns_that_come_later_get_a_new_head() -> None:
    class ValidateLate(Callback):
        def before_fit(self, loop: Loop) -> None:
            self.loader, loop.valid_loader = loop.valid_loader, None

        def after_epoch(self, loop: Loop) -> None:
            loop.valid_loader = self.loader

    heads = [line.split() for line in printed(ValidateLate()).splitlines()[::2]]
    assert heads == [
        ["epoch", "train_loss", "time"],
        ["epoch", "train_loss", "valid_loss", "accuracy", "time"],
    ]


def test_long_names_and_values_out_of_the_ordinary_keep_their_distance() -> None:
    class Small:
        def reset(self) -> None: ...

        def update(self, pred: object, target: object) -> None: ...

        def compute(self) -> float:
            return 2.5e-5

    file, loop = io.StringIO(), tiny_loop()
    loop.metrics = by_name({"a_metric_with_a_long_name": Small()})
    loop.fit(1, [Progress(Console(file=file, width=120))])
    head, row = file.getvalue().splitlines()
    assert "  a_metric_with_a_long_name  " in head
    assert row.split()[3] == "2.500e-05"
    assert len(head) == len(row)


def test_validation_alone_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    tiny_loop().validate([Progress()])
    assert capsys.readouterr().out == ""


def test_the_table_goes_to_standard_output_of_the_moment(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    tiny_loop().fit(1, [progress])
    assert len(capsys.readouterr().out.splitlines()) == 2
    tiny_loop(is_valid=False).fit(1, [progress])
    assert capsys.readouterr().out.splitlines()[0].split() == ["epoch", "train_loss", "time"]


def test_the_live_line_is_taken_away_after_an_error() -> None:
    class Fail(Callback):
        def after_step(self, loop: Loop) -> None:
            raise OSError("disk")

    file = io.StringIO()
    with pytest.raises(OSError, match="disk"):
        tiny_loop().fit(1, [Progress(Console(file=file, force_terminal=True)), Fail()])
    assert file.getvalue().count("\x1b[?25l") == file.getvalue().count("\x1b[?25h") == 1  # the cursor is back


@pytest.mark.parametrize(("is_terminal", "pause_s", "tick_s"), [(True, 0.25, 0.1), (False, 60, 25)])
def test_the_line_is_shown_at_the_pace_of_its_screen(
    is_terminal: bool, pause_s: float, tick_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[float] = []
    now = 0.0

    def line(loop: Loop, left_s: float | None) -> str:
        shown.append(now)
        return "line"

    def clock() -> float:
        nonlocal now
        now += tick_s
        return now

    monkeypatch.setattr("actograph.callbacks.progress.live_line", line)
    console = Console(file=io.StringIO(), force_terminal=is_terminal)
    loop = tiny_loop()
    loop.train_loader = list(loop.train_loader) * 10
    loop.fit(1, [Progress(console, clock=clock)])
    pauses = [later - earlier for earlier, later in pairwise([tick_s, *shown])]
    assert len(shown) > 5
    assert min(pauses) >= pause_s
    assert max(pauses) <= pause_s + tick_s


def test_a_log_of_long_epochs_says_once_a_minute_where_it_stands() -> None:
    file, ticks = io.StringIO(), (25.0 * tick for tick in count())
    loop = tiny_loop(is_valid=False)
    loop.train_loader = list(loop.train_loader) * 2
    loop.fit(1, [Progress(Console(file=file), clock=lambda: next(ticks))])
    first, second, *table = file.getvalue().splitlines()
    assert first.startswith("epoch 1/1  train 3/6  loss ")
    assert first.endswith("lr 0.1  2:30 left")  # 75 s for the two batches before this one
    assert second.startswith("epoch 1/1  train 6/6  loss ")
    assert len(table) == 2


def test_the_live_line_before_anything_is_known() -> None:
    loop = tiny_loop()
    assert live_line(loop, None) == "epoch 1/0  train 1/?  loss nan  lr 0.1"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1:00"), (3600, "1:00:00")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
