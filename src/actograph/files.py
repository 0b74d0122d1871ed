"""Write a file so that a crash at any moment leaves the old one or the new one, whole.

No idea of what is in it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from actograph.errors import UsageError

PART = ".part"  # ends the name of a file that is being written; left behind by a crash, and written over next time


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Have ``write`` fill a file beside ``path``, bring it to the disk, and give it the name ``path``.

    Raises UsageError where the folder cannot be made or written, or the disk is full; ``path`` is as before then.
    """
    part = path.with_name(f".{path.name}{PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        _sync_directory(path.parent)
    except OSError as error:
        raise UsageError(f"cannot write {path} ({error.strerror or error}); choose another place") from error


def _sync_directory(directory: Path) -> None:
    """Bring the new name to the disk as well, where the system can do that for a folder; the file is there anyway."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
