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


def test_the_reason_to_stop_is_printed() -> None:
    class Stop(Callback):
        def after_step(self, loop: Loop) -> None:
            raise StopFit("the loss [bold] is small enough")

    text = printed(Stop(), epochs=5)
    assert text.splitlines()[-1] == "stopped: the loss [bold] is small enough"
    assert text.splitlines()[1].split()[2:4] == ["-", "-"]  # there was no validation


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
    progress = Progress(Console(file=file, force_terminal=True))
    with pytest.raises(OSError, match="disk"):
        tiny_loop().fit(1, [progress, Fail()])
    assert progress._live is None
    assert file.getvalue().endswith("\x1b[?25h") or "\x1b[?25h" in file.getvalue()  # the cursor is back


def test_the_live_line_is_drawn_at_its_own_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[float] = []

    def line(loop: Loop, elapsed_s: float) -> str:
        drawn.append(elapsed_s)
        return "line"

    monkeypatch.setattr("actograph.callbacks.progress.live_line", line)
    times = (0.1 * index for index in count())
    console = Console(file=io.StringIO(), force_terminal=True)
    tiny_loop().fit(4, [Progress(console, clock=lambda: next(times))])
    pauses = [later - earlier for earlier, later in pairwise(drawn)]
    assert len(drawn) > 5
    assert min(pauses) >= 0.25
    assert max(pauses) < 0.45  # the clock ticks by 0.1 s, also between epochs


def test_the_live_line_before_anything_is_known() -> None:
    loop = tiny_loop()
    assert live_line(loop, 1.0).startswith("epoch 1/0  train 1/?  loss nan  lr 0.1")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1:00"), (3600, "1:00:00")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
