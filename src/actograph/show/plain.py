"""Runs as plain JSON data, for ``--json``. Not a number and infinity become null: JSON has neither.

No idea of printing.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from actograph.rules.rule import Diagnosis
from actograph.runlog.view import STATISTICS, RunView
from actograph.show.find import live_status
from actograph.show.series import Best, best_metric, training_loss


def run_entry(path: Path, view: RunView) -> dict[str, Any]:
    """Return one entry of the run list: name, path, created, status, steps, loss, best."""
    losses, _ = training_loss(view)
    return {
        "name": path.name,
        "path": str(path),
        "created": view.info.created,
        "status": live_status(view.info),
        "steps": view.num_steps,
        "loss": plain_number(float(losses.values[-1])) if len(losses) else None,
        "best": _best(best_metric(view)),
    }


def run_details(path: Path, view: RunView, diagnosis: Diagnosis) -> dict[str, Any]:
    """Return an entry of the run list, what recording cost, every layer now, and the diagnosis."""
    cost = view.info.cost
    return {
        **run_entry(path, view),
        "cost": {
            "share": plain_number(cost.share),
            "steps_seen": cost.steps_seen,
            "steps_recorded": cost.steps_recorded,
        },
        "layers": _layers(view),
        "diagnosis": diagnosis.to_json(path.name),
    }


def plain_number(value: float) -> float | None:
    """Return a number that JSON has, else None."""
    return value if math.isfinite(value) else None


def _layers(view: RunView) -> list[dict[str, Any]]:
    columns = {name: view.column(name) for name in STATISTICS}
    return [
        {
            "name": layer.name,
            "kind": layer.kind,
            "shape": list(layer.shape),
            "parameters": layer.num_parameters,
            "step": int(view.last_steps[-1]) if view.buckets else None,
            "first_non_finite": view.first_non_finite(index),
            **{name: plain_number(float(c[-1, index])) if len(c) else None for name, c in columns.items()},
        }
        for index, layer in enumerate(view.layers)
    ]


def _best(best: Best | None) -> dict[str, Any] | None:
    return None if best is None else best._asdict()
