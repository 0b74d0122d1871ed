from __future__ import annotations

import os
import stat
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest

from actograph.errors import UsageError
from actograph.files import write_atomically


def _write(data: bytes, file: BinaryIO) -> None:
    file.write(data)


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.bin"
    for data in (b"one", b"two"):
        write_atomically(path, partial(_write, data))
        assert path.read_bytes() == data
    assert [entry.name for entry in path.parent.iterdir()] == ["a.bin"]


def test_after_an_error_the_old_file_is_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UsageError, match=r"cannot write .*a.bin \(No space left on device\)"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]


def test_a_file_system_that_cannot_sync_folders_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", sync)
    write_atomically(tmp_path / "a.bin", partial(_write, b"new"))
    assert (tmp_path / "a.bin").read_bytes() == b"new"
