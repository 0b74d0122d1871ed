from __future__ import annotations

import sys
from pathlib import Path

import pytest

from actograph.cli.main import app
from actograph.runlog.reader import read_run
from actograph.runlog.view import RunView


class Program:
    """A script in a folder of its own, run under ``actograph run`` in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "train.py"
        self.out = folder / "run"

    def run(self, source: str, *args: str, options: tuple[str, ...] = ("--every", "1")) -> int:
        """Run the source and return the exit code, an int, or 1 where it is a message."""
        self.path.write_text(source)
        return self.call(*options, "--out", str(self.out), str(self.path), *args)

    def call(self, *args: str) -> int:
        try:
            app(["run", *args], standalone_mode=False)
        except SystemExit as error:
            return error.code if isinstance(error.code, int) else int(error.code is not None)
        return 0

    @property
    def view(self) -> RunView:
        return read_run(self.out)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    return Program(tmp_path)
