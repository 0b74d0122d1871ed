"""`Trial`: one training, or one measurement, of a study, and `Outcome`: what came of it.

No idea of what is measured, nor of where and when a trial runs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from actograph.files import write_atomically

OUTCOME = "outcome.json"  # in a trial's folder, beside its run

Values: TypeAlias = Mapping[str, Any]  # plain data: numbers, text, lists and dicts of these


@dataclass(frozen=True)
class Trial:
    """One point of a study's plan.

    Attributes:
        variant: what is compared, such as "relu at depth 8"; trials of one variant differ by their seed.
        seed: of the weights and of the order of the batches.
        options: what the study needs to know to run it, plain data.
        is_timed: it measures time, so nothing may run beside it.

    """

    variant: str
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    is_timed: bool = False

    @property
    def folder(self) -> str:
        """The name of its folder: its run directory.

        >>> Trial("relu, depth 8", seed=2).folder
        'relu-depth-8-seed2'
        """
        words = "".join(
            letter if letter.isalnum() or letter in "._" else " " for letter in self.variant
        ).split()
        return "-".join([*words, f"seed{self.seed}"])


@dataclass(frozen=True)
class Outcome:
    """What a trial measured, or why it failed."""

    trial: Trial
    values: Values
    error: str | None = None
    elapsed_s: float = 0.0

    def save(self, folder: Path) -> None:
        """Write it into the trial's folder, whole or not at all."""
        data = json.dumps(_plain(asdict(self)), indent=1).encode()
        write_atomically(folder / OUTCOME, lambda file: file.write(data))

    @classmethod
    def load(cls, folder: Path) -> Outcome | None:
        """Return the outcome that was saved there, None where there is none that can be read."""
        try:
            data = json.loads((folder / OUTCOME).read_text())
            return cls(Trial(**data["trial"]), _with_nan(data["values"]), data["error"], data["elapsed_s"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


NAN, INFINITE = "NaN", "Infinity"  # JSON has neither; a diverged training has both


def _plain(value: Any) -> Any:
    """Return nested data with numbers that JSON lacks as text."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": NAN if math.isnan(value) else INFINITE if value > 0 else f"-{INFINITE}"}
    return value


def _with_nan(value: Any) -> Any:
    """Undo `_plain`."""
    if isinstance(value, dict):
        if value.keys() == {"number"}:
            return float(value["number"])
        return {key: _with_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_nan(item) for item in value]
    return value
