from __future__ import annotations

import csv
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from actograph.callbacks.csv_log import CSVLog, read_rows
from actograph.errors import UsageError
from actograph.testing.callbacks import tiny_loop
from actograph.train.events import Callback
from actograph.train.loop import Loop
from actograph.train.metrics import Accuracy, named_metrics
from actograph.train.state import StopFit


def ticking() -> Callable[[], float]:
    ticks = count()
    return lambda: float(next(ticks))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def fitted(path: Path, *callbacks: Callback, epochs: int = 2, is_valid: bool = True) -> Loop:
    loop = tiny_loop(is_valid=is_valid)
    loop.fit(epochs, [CSVLog(path, clock=ticking()), *callbacks])
    return loop


def test_every_epoch_has_a_row_with_all_digits(tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.csv"
    loop = fitted(path)
    assert path.read_text().splitlines()[0] == "epoch,step,time_s,lr,train_loss,valid_loss"
    first, last = table(path)
    assert (first["epoch"], first["step"], first["time_s"], first["lr"]) == ("0", "3", "1.0", "0.1")
    assert (last["epoch"], last["step"]) == ("1", "6")
    assert float(last["valid_loss"]) == loop.values["valid_loss"]


def test_the_file_is_whole_at_every_event(tmp_path: Path) -> None:
    path, seen = tmp_path / "log.csv", set()

    class Read(Callback):
        def before_epoch(self, loop: Loop) -> None:
            seen.add(len(table(path)))

        def after_batch(self, loop: Loop) -> None:
            assert path.read_text().endswith("\n")
            seen.add(len(table(path)))

    fitted(path, Read(), epochs=3)
    assert seen == {0, 1, 2}
    assert [entry.name for entry in tmp_path.iterdir()] == ["log.csv"]


def test_later_fits_go_on_and_new_values_get_a_column_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    fitted(path, is_valid=False, epochs=1)
    loop = tiny_loop()
    loop.metrics = named_metrics([Accuracy()])
    loop.fit(1, [CSVLog(path)])
    fitted(path, is_valid=False, epochs=1)
    head, *rows = path.read_text().splitlines()
    assert head == "epoch,step,time_s,lr,train_loss,valid_loss,accuracy"
    accuracies = [row["accuracy"] for row in table(path)]
    assert accuracies == [None, str(loop.values["accuracy"]), ""]
    assert len(rows) == 3


def test_a_last_line_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    fitted(path)
    whole = path.read_text()
    path.write_text(whole + "2,9,0.5")
    fitted(path, epochs=1)
    text = path.read_text()
    assert text.startswith(whole)
    assert len(text.splitlines()) == 4
    assert [row["epoch"] for row in table(path)] == ["0", "1", "0"]


@pytest.mark.parametrize("text", ["my notes", "a,b\n1,2\n", "\x00\x01\n"])
def test_a_file_of_the_users_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match="holds something else than a CSVLog"):
        fitted(path)
    assert path.read_text() == text


def test_an_empty_file_is_begun(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.touch()
    fitted(path)
    assert len(table(path)) == 2


@pytest.mark.parametrize("name", ["", "file/log.csv"])
def test_a_path_that_cannot_be_written_is_told_before_the_fit(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    loop = tiny_loop()
    with pytest.raises(UsageError, match=r"cannot write to .* give CSVLog another path"):
        loop.fit(1, [CSVLog(tmp_path / name)])
    assert loop.progress.step == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_folder_lost_during_the_fit_is_told_once_and_the_fit_goes_on(tmp_path: Path) -> None:
    class Remove(Callback):
        def before_phase(self, loop: Loop) -> None:
            (tmp_path / "runs" / "log.csv").unlink(missing_ok=True)
            if (tmp_path / "runs").exists():
                (tmp_path / "runs").rmdir()

    with pytest.warns(UserWarning, match=r"the log .* ends here \(No such file or directory\)") as told:
        loop = fitted(tmp_path / "runs" / "log.csv", Remove(), epochs=3)
    assert len(told) == 1
    assert loop.progress.step == 9


def test_a_stopped_epoch_has_a_row_with_what_there_is(tmp_path: Path) -> None:
    class Stop(Callback):
        def after_step(self, loop: Loop) -> None:
            raise StopFit("enough")

    path = tmp_path / "log.csv"
    fitted(path, epochs=1)
    fitted(path, Stop())
    assert table(path)[-1]["valid_loss"] == ""
    assert read_rows(path)[-1][:2] == ["0", "1"]


def test_validation_alone_writes_nothing(tmp_path: Path) -> None:
    log = CSVLog(tmp_path / "log.csv")
    tiny_loop().validate([log])
    assert not log.path.exists()
