"""A checkpoint as one file: an uncompressed zip of ``about.json``, ``model.safetensors`` and ``state.pt``.

No idea of what the state means. Nothing in it is unpickled that could run code (``weights_only=True``), and the zip's
checksums tell a damaged file. `unzip` gives the weights to any tool that reads safetensors.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from actograph.errors import UsageError
from actograph.files import write_atomically
from actograph.models.weights import Weights, weights_from_bytes

FORMAT = "actograph checkpoint"
VERSION = 1
ABOUT, WEIGHTS, STATE = "about.json", "model.safetensors", "state.pt"
PLAIN = (type(None), bool, int, float, str, bytes, Tensor, nn.Parameter)
MAPPINGS = (dict, OrderedDict, Counter)  # MultiStepLR has a Counter


@dataclass(frozen=True)
class CheckpointFile:
    """What a file holds, as bytes: each reading makes new tensors.

    ``about`` is small plain data: what was trained, and where it stood.
    """

    about: Mapping[str, Any]
    weights_bytes: bytes
    state_bytes: bytes
    path: Path

    @property
    def weights(self) -> Weights:
        """The model's parameters and buffers by name, on the host."""
        return weights_from_bytes(self.weights_bytes, self.path)

    @property
    def state(self) -> dict[str, Any]:
        """Everything else, on the host."""
        try:
            state = torch.load(io.BytesIO(self.state_bytes), map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
            raise UsageError(
                f"{self.path} holds a state that cannot be read safely; it is foreign ({error!s:.200})"
            ) from error
        if not isinstance(state, dict):
            raise UsageError(
                f"{self.path} is no checkpoint of actograph: its state is a {type(state).__name__}"
            )
        return state


def write_checkpoint(
    path: Path, about: Mapping[str, Any], weights_bytes: bytes, state: dict[str, Any]
) -> None:
    """Write a file that appears whole or not at all; ``path`` is as before if anything fails.

    Raises UsageError, naming the place in ``state``, for a value that could not be read back safely.
    """
    check_plain(state, "state")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give the name of a file in it, such as {path / 'last.ckpt'}")
    state_bytes = io.BytesIO()
    torch.save(state, state_bytes)
    members = {
        ABOUT: json.dumps({"format": FORMAT, "version": VERSION, **about}, indent=2).encode(),
        WEIGHTS: weights_bytes,
        STATE: state_bytes.getvalue(),
    }

    def write(file: Any) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)

    write_atomically(path, write)


def read_checkpoint(path: Path) -> CheckpointFile:
    """Read a file that `write_checkpoint` wrote.

    Raises UsageError that names the file and says what is wrong: not there, a folder, truncated, damaged, something else,
    or of another version.
    """
    if path.is_dir():
        found = ", ".join(sorted(file.name for file in path.glob("*.ckpt"))) or "none"
        raise UsageError(f"{path} is a folder; give a checkpoint in it (there: {found})")
    if not path.is_file():
        raise UsageError(f"no checkpoint {path}; give the path of a file that save_checkpoint wrote")
    try:
        with zipfile.ZipFile(path) as archive:
            about, weights_bytes, state_bytes = (archive.read(name) for name in (ABOUT, WEIGHTS, STATE))
        told = json.loads(about)
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, NotImplementedError) as error:
        raise UsageError(
            f"{path} is no whole checkpoint ({error}): it is truncated, damaged or foreign; take an earlier one"
        ) from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from error
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise UsageError(f"{path} is no checkpoint of actograph")
    if told.get("version") != VERSION:
        raise UsageError(
            f"{path} is a checkpoint of version {told.get('version')}, and this actograph reads version {VERSION}: "
            "load it with the version that saved it"
        )
    return CheckpointFile(told, weights_bytes, state_bytes, path)


def check_plain(value: object, where: str) -> None:
    """Raise UsageError for what ``torch.load(weights_only=True)`` would refuse."""
    kind = type(value)
    if kind in MAPPINGS:
        for key, item in value.items():  # type: ignore[attr-defined]
            check_plain(key, f"{where} key")
            check_plain(item, f"{where}[{key!r}]")
    elif kind in (list, tuple):
        for index, item in enumerate(value):  # type: ignore[arg-type]
            check_plain(item, f"{where}[{index}]")
    elif kind not in PLAIN:
        raise UsageError(
            f"{where} is a {kind.__module__}.{kind.__qualname__}, which a checkpoint cannot hold: "
            "its state_dict() must give tensors, numbers, strings, None, and dicts, lists and tuples of these"
        )
