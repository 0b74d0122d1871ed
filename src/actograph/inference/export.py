"""A trained model as one file: weights as safetensors, and in its head what rebuilds the model and prepares its inputs.

No idea of training, and no optimizer, hook or code in the file: reading one runs nothing that it brought along.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from actograph.data.normalization import Normalization
from actograph.errors import UsageError
from actograph.files import write_atomically
from actograph.models.network import ModelConfig
from actograph.models.registry import model_config, rebuild_model
from actograph.models.weights import Weights, load_weights, weights_to_bytes

SUFFIX = ".safetensors"
EXPORT = f"model{SUFFIX}"  # in a run's folder
CONFIG = "actograph"  # the entry of the file's head
VERSION = 1


@dataclass(frozen=True)
class Export:
    """A model in eval mode, and what is known of its inputs and outputs.

    ``input_size`` is the shape of one sample, ``normalization`` what was done to the values of x; None or empty where the
    exporter did not know.
    """

    model: nn.Module
    class_names: tuple[str, ...] = ()
    input_size: tuple[int, ...] | None = None
    normalization: Normalization | None = None


def write_export(export: Export, path: Path | str) -> Path:
    """Write one file that appears whole or not at all, and return its path; the suffix .safetensors is added.

    A model that actograph did not build, or that was changed since, is noted by its class only, and has to be made again by
    whoever loads it. Raises UsageError for a folder, or a place that cannot be written.
    """
    path = Path(path)
    if path.suffix != SUFFIX and not path.is_dir():
        path = path.with_name(path.name + SUFFIX)
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give the name of a file in it, such as {path / EXPORT}")
    normalization = export.normalization
    config = {
        "version": VERSION,
        "model": model_config(export.model).to_json(),
        "class_names": list(export.class_names),
        "input_size": None if export.input_size is None else list(export.input_size),
        "normalization": None if normalization is None else normalization.to_json(),
    }
    data = weights_to_bytes(export.model, {CONFIG: json.dumps(config)})
    write_atomically(path, lambda file: file.write(data))
    return path


def load_model(path: Path | str, model: nn.Module | None = None) -> nn.Module:
    """Return the exported model in eval mode, on the host; see `load_export`."""
    return load_export(path, model).model


def load_export(path: Path | str, model: nn.Module | None = None) -> Export:
    """Read what `write_export` wrote, given the file or a run's folder.

    ``model`` takes the weights where actograph cannot build it: an object of the class that was exported. Raises UsageError
    for a file that is not there, truncated or foreign, of another version, whose model has to be given, or of another model.
    """
    path = Path(path)
    path = path / EXPORT if path.is_dir() else path
    config, weights = _read(path)
    made = _rebuilt(config, path) if model is None else model
    load_weights(made, weights, path)
    normalization, input_size = config.get("normalization"), config.get("input_size")
    return Export(
        made.eval(),
        tuple(config.get("class_names", ())),
        None if input_size is None else tuple(input_size),
        None if normalization is None else Normalization.from_json(normalization),
    )


def _read(path: Path) -> tuple[Mapping[str, Any], Weights]:
    if not path.is_file():
        raise UsageError(
            f"no exported model {path}; give a file that learn.export wrote, or a run of `actograph train`"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        config = json.loads(metadata.get(CONFIG, "null"))
    except (SafetensorError, ValueError, OSError) as error:
        raise UsageError(
            f"{path} is no whole safetensors file ({error}): it is truncated, damaged or foreign"
        ) from error
    if not isinstance(config, dict):
        raise UsageError(
            f"{path} holds weights, but nothing about their model: it was not written by learn.export"
        )
    if config.get("version") != VERSION:
        raise UsageError(
            f"{path} is an export of version {config.get('version')}, and this actograph reads version {VERSION}"
        )
    return config, weights


def _rebuilt(config: Mapping[str, Any], path: Path) -> nn.Module:
    described = ModelConfig.from_json(config.get("model", {}))
    if not described.is_built_in:
        raise UsageError(
            f"{path} holds the weights of a {described.name}, which actograph cannot build: make one as it was when it was "
            f"exported, and give it: load_model({str(path)!r}, model=...)"
        )
    return rebuild_model(described)
