"""`write_report`: a run as one HTML file that needs nothing else, no network and no server.

No idea of where a run is stored. The page shows what the run view, the diagnosis and the figures say; words and numbers are
made in `words`, pictures in `figures`, `layers` and `strips`, the file in `document`, layout in ``page/``.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from actograph.errors import UsageError
from actograph.rules.rule import Diagnosis, Finding
from actograph.runlog.view import STATISTICS, RunView
from actograph.show import words
from actograph.show.document import Figures, fill
from actograph.show.evidence import finding_figure, run_loss, run_schedule
from actograph.show.figures import heat_map
from actograph.show.find import live_status
from actograph.show.layers import PICTURE_HEIGHT_PX
from actograph.show.parameters import gradient_norm, parameter_map
from actograph.show.report_layers import CURVES_PX, HEADS, layer_entry, layer_id
from actograph.show.series import LOSS, best_metric, schedules, training_loss

MAP_STATISTICS = (
    "std",
    "mean",
    "rms",
    "near_zero",
    "zeros",
    "flat",
    "dead",
    "non_finite",
    "q05",
    "q50",
    "q95",
)
GRADIENT_LABEL = "root mean square of the gradient"
RARE = ("flat", "dead", "non_finite")  # offered only where there is any
FIGURES_BYTES = 4_300_000  # of all figures: with plotly.js (4.8 MB) and text a page stays below 10 MB
MAPS_BYTES = 2_000_000  # beyond, fewer statistics are offered as heat maps
MAX_FINDING_FIGURES = 24  # beyond, findings repeat themselves


def write_report(view: RunView, diagnosis: Diagnosis, path: Path) -> Path:
    """Write the report of a run to ``path`` and return it; a file that is there is replaced at once or not at all.

    Raises UsageError when the file cannot be written.
    """
    page = render(view, diagnosis)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, page)
    except OSError as error:
        raise UsageError(
            f"cannot write the report to {path} ({error.strerror}); choose another --out"
        ) from error
    return path


def render(view: RunView, diagnosis: Diagnosis) -> str:
    """Return the page."""
    figures = Figures()
    content = {
        **_top(view, diagnosis),
        "findings": [_finding(view, one, n, figures) for n, one in enumerate(diagnosis.findings)],
        "abstained": diagnosis.abstained,
        "curves": _curves(view, figures),
        "parameters": _parameters(view, figures),
        "recorded": bool(view.buckets) and bool(view.layers),
        "heads": HEADS,
        "statistics": _maps(view, figures),
        "layers": _layers(view, diagnosis, figures),
        "picture_height": PICTURE_HEIGHT_PX,
        "curves_height": CURVES_PX,
        "setup": _setup(view),
    }
    content["map_height"] = content["statistics"][0]["height"] if content["statistics"] else 0
    return fill("actograph.show", "report.html.j2", content, figures)


def _layers(view: RunView, diagnosis: Diagnosis, figures: Figures) -> list[dict[str, Any]]:
    """Return what is said of each layer, with figures while there is room, and always where there is a finding."""
    entries: list[dict[str, Any]] = []
    room_bytes = FIGURES_BYTES - figures.size_bytes
    for index, layer in enumerate(view.layers):
        findings = _about(layer.name, diagnosis)
        before = figures.size_bytes
        entry = layer_entry(view, index, findings, figures.add if findings or room_bytes > 0 else None)
        pictures = (entry.get("strip"), entry.get("unit_strip"))
        room_bytes -= figures.size_bytes - before + sum(len(picture) for picture in pictures if picture)
        entries.append(entry)
    return entries


def _about(layer: str, diagnosis: Diagnosis) -> list[Finding]:
    """Return the findings and consequences about a layer."""
    said = [one for finding in diagnosis.findings for one in (finding, *finding.consequences)]
    return [finding for finding in said if finding.layer == layer]


def _replace(path: Path, text: str) -> None:
    """Write beside the target and rename, so that no reader sees half a file."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.chmod(0o644)  # mkstemp makes it readable to its owner only
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _top(view: RunView, diagnosis: Diagnosis) -> dict[str, Any]:
    return {
        "title": view.info.name,
        "status": live_status(view.info),
        "summary": words.summary(view),
        "tiles": _tiles(view, diagnosis),
        "cost": words.recording_cost(view.info.cost),
        "last_step": f"{int(view.last_steps[-1]):,}" if view.buckets else "",
    }


def _tiles(view: RunView, diagnosis: Diagnosis) -> list[dict[str, str]]:
    losses, smooth = training_loss(view)
    best, cost = best_metric(view), view.info.cost
    tiles = [("training steps", f"{view.num_steps:,}", f"{len(view.layers)} layers recorded")]
    if len(losses):
        last = float(losses.values[-1])
        tiles.append(
            ("training loss", words.loss(float(smooth[-1])), f"smoothed; last step {words.loss(last)}")
        )
    if best is not None:
        name = f"validation {best.name}" + (", lowest" if best.name == LOSS else "")
        tiles.append((name, words.number(best.value, 4), f"best, at step {best.step:,}"))
    if cost.steps_seen:
        recorded = f"{cost.steps_recorded:,} of {cost.steps_seen:,} steps recorded"
        tiles.append(("recording took", words.percent(cost.share), recorded))
    worst = diagnosis.findings[0].severity.value if diagnosis.findings else "nothing wrong was found"
    note = f"worst: {worst}" if diagnosis.findings else worst
    tiles.append(("findings", str(len(diagnosis.findings)), note))
    return [{"name": name, "value": value, "note": note} for name, value, note in tiles]


def _finding(view: RunView, finding: Finding, position: int, figures: Figures) -> dict[str, Any]:
    known = [layer.name for layer in view.layers]
    entry: dict[str, Any] = {
        "severity": finding.severity.value,
        "message": finding.message,
        "rule": finding.rule,
        "layer": finding.layer,
        "layer_id": layer_id(known.index(finding.layer)) if finding.layer in known else None,
        "when": words.when(finding),
        "remedies": [words.remedy(remedy) for remedy in finding.remedies],
        "evidence": words.evidence(finding.evidence),
        "consequences": [words.consequence(also) for also in finding.consequences],
        "figure": None,
    }
    drawable = finding.layer is None or finding.layer in known
    if position < MAX_FINDING_FIGURES and drawable and view.num_steps:
        entry["figure"] = f"finding-{position}"
        entry["height"] = figures.add(entry["figure"], finding_figure(view, finding))
        about = finding.layer or "the loss"
        entry["alt"] = (
            f"Evidence for {finding.rule}: {about} over the steps, {words.when(finding)} highlighted"
        )
    return entry


def _curves(view: RunView, figures: Figures) -> list[dict[str, Any]]:
    entries = []
    losses, _ = training_loss(view)
    if len(losses):
        caption = "Training loss at every step and smoothed; validation loss where it was measured."
        height = figures.add("loss-curve", run_loss(view))
        entries.append(
            {"id": "loss-curve", "alt": "Loss over the steps", "height": height, "caption": caption}
        )
    if schedules(view):
        caption = "What the optimizer was told at every step."
        height = figures.add("schedule", run_schedule(view))
        entries.append(
            {"id": "schedule", "alt": "Schedules over the steps", "height": height, "caption": caption}
        )
    return entries


def _maps(view: RunView, figures: Figures) -> list[dict[str, Any]]:
    if not view.buckets or not view.layers:
        return []
    entries = []
    for name in MAP_STATISTICS:
        if name in RARE and not (view.column(name) > 0).any():
            continue
        if figures.size_bytes > MAPS_BYTES:
            break
        height = figures.add(f"map-{name}", heat_map(view, name))
        entries.append({"figure": f"map-{name}", "label": STATISTICS[name].label, "height": height})
    if view.gradients.buckets and figures.size_bytes <= MAPS_BYTES:
        height = figures.add("map-gradient", heat_map(view.gradients, "rms", GRADIENT_LABEL))
        entries.append({"figure": "map-gradient", "label": GRADIENT_LABEL, "height": height})
    return entries


def _parameters(view: RunView, figures: Figures) -> list[dict[str, Any]]:
    """Return the figures of gradients and updates, where they were recorded."""
    if not view.parameters.buckets:
        return []
    return [
        {"id": figure_id, "alt": alt, "height": figures.add(figure_id, figure), "caption": caption}
        for figure_id, figure, alt, caption in (
            (
                "gradient-norm",
                gradient_norm(view),
                "Norm of all gradients over the steps",
                "Norm of all gradients together before clipping; below it, where they were clipped, what was left.",
            ),
            (
                "update-ratio",
                parameter_map(view, "update_ratio"),
                "Update over weight norm, parameters by steps",
                "How far a step moves each parameter, relative to its size. A rule of thumb is about 0.001 (the notes of "
                "Stanford's course CS231n): with far less it hardly learns, with far more it forgets.",
            ),
            (
                "parameter-gradients",
                parameter_map(view, "grad_norm"),
                "Gradient norm, parameters by steps",
                "Norm of each parameter's gradient before clipping.",
            ),
        )
    ]


def _setup(view: RunView) -> list[tuple[str, list[tuple[str, str]]]]:
    config = [(key, _plain(value)) for key, value in view.info.config.items()]
    environment = [(key, str(value)) for key, value in view.info.environment.items()]
    created = [("created", view.info.created[:19].replace("T", " "))] if view.info.created else []
    return [("Configuration", created + config), ("Environment", environment)]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
