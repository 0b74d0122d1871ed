"""Runs and findings for the terminal, as rich renderables: `actograph ls`, `show`, `diagnose` and the end of `train`.

No idea of where they are printed: a console that is no terminal leaves colours out by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from actograph.rules.rule import Diagnosis, Finding, Severity
from actograph.runlog.view import RunView
from actograph.show import words
from actograph.show.find import live_status
from actograph.show.series import best_metric, training_loss
from actograph.show.sparkline import evenly, sparkline

STYLES = {Severity.NOTE: "blue", Severity.WARNING: "yellow", Severity.ERROR: "red"}
UNREADABLE = "unreadable"
STATUS_STYLES = {"finished": "green", "running": "cyan", "failed": "red", "died": "red", UNREADABLE: "red"}
LOSS_SPARK, LAYER_SPARK = 48, 13  # characters
INDENT = 2
LAYER_COLUMNS = {
    "mean": "mean",
    "std": "std",
    "near_zero": "near 0",
    "flat": "flat",
    "dead": "dead",
    "non_finite": "NaN/Inf",
}
RARE_COLUMNS = ("flat", "dead", "non_finite")


def run_list(runs: Mapping[str, RunView | Exception]) -> RenderableType:
    """List runs, given by name: state, steps, losses. A run that could not be read is there too."""
    if not runs:
        return Text("No runs here; `actograph train mnist` makes one.")
    table = _table()
    table.add_column("run", overflow="fold")
    table.add_column("created", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("steps", justify="right", no_wrap=True)
    table.add_column("loss", justify="right", no_wrap=True)
    table.add_column("best", no_wrap=True)
    for name, run in runs.items():
        table.add_row(
            Text(name), *(_run_cells(run) if isinstance(run, RunView) else ("", _status(UNREADABLE)))
        )
    return table


def run_summary(view: RunView, diagnosis: Diagnosis) -> RenderableType:
    """Show a run: what it was, its loss, every layer, the findings."""
    losses, smooth = training_loss(view)
    parts: list[RenderableType] = [Text(view.info.name, "bold"), Text(words.summary(view))]
    if len(losses):
        ends = [words.loss(float(loss)) for loss in (smooth[0], losses.values[-1])]
        line = sparkline(evenly(smooth, losses.steps), LOSS_SPARK)
        parts += [Text(f"loss {ends[0]} {line} {ends[1]}")]
    return Group(*parts, Text(), layer_table(view), Text(), findings(diagnosis))


def layer_table(view: RunView) -> RenderableType:
    """Show every layer's numbers at the last recorded step, and its spread over the whole run.

    A column that would be empty for all layers is left out, so that the table fits 80 characters.
    """
    if not view.buckets:
        return Text("No activations were recorded.")
    columns = {name: view.column(name) for name in LAYER_COLUMNS}
    shown = [name for name, column in columns.items() if name not in RARE_COLUMNS or np.nansum(column) > 0]
    table = _table(title=f"Layers at step {int(view.last_steps[-1]):,}, the last recorded:")
    table.add_column("layer", overflow="fold", min_width=8)
    table.add_column("kind", no_wrap=True, overflow="ellipsis", min_width=4)
    table.add_column("shape", justify="right", overflow="fold", min_width=4)
    for name in shown:
        table.add_column(LAYER_COLUMNS[name], justify="right", no_wrap=True)
    table.add_column("std over time", no_wrap=True)
    for index, layer in enumerate(view.layers):
        cells = [_cell(name, float(columns[name][-1, index])) for name in shown]
        spark = sparkline(evenly(columns["std"][:, index], view.last_steps), LAYER_SPARK)
        table.add_row(Text(layer.name), Text(layer.kind), words.shape(layer), *cells, spark)
    return table


def findings(diagnosis: Diagnosis) -> RenderableType:
    """Show findings in words, worst first as diagnosed, then what could not be judged."""
    parts: list[RenderableType] = []
    for finding in diagnosis.findings:
        parts += [_finding(finding), Text()]
    if not diagnosis.findings:
        parts.append(Text("Nothing wrong was found.", "green"))
    parts += [Text(line, "dim") for line in _not_judged(diagnosis)]
    return Group(*parts)


def _not_judged(diagnosis: Diagnosis) -> list[str]:
    """Return a line for each reason not to judge: several rules may share one."""
    rules: dict[str, list[str]] = {}
    for abstention in diagnosis.abstained:
        rules.setdefault(abstention.reason, []).append(abstention.rule)
    return [f"Not judged: {', '.join(names)} ({reason})" for reason, names in rules.items()]


def _finding(finding: Finding) -> RenderableType:
    style = STYLES[finding.severity]
    where = f" in {finding.layer}" if finding.layer else ""
    head = Text(overflow="fold")
    head.append(finding.severity.value, f"bold {style}")
    head.append(f" {finding.rule}", "bold")
    head.append(f"{where}, {words.when(finding)}")
    body = Table.grid(padding=(0, 1))
    body.add_row("", Text(finding.message))
    if finding.evidence:
        known = ", ".join(f"{name} {value}" for name, value in words.evidence(finding.evidence))
        body.add_row("", Text(known, "dim"))
    for proposed in finding.remedies:
        body.add_row("•", Text(words.remedy(proposed)))
    for also in finding.consequences:
        body.add_row("↳", Text(f"explains {words.consequence(also)}", "dim"))
    return Group(head, Padding(body, (0, 0, 0, INDENT)))


def _table(**options: Any) -> Table:
    return Table(
        box=None, pad_edge=False, collapse_padding=True, header_style="bold", title_style="", title_justify="left",
        **options,
    )  # fmt: skip


def _cell(name: str, value: float) -> Text:
    if name in ("mean", "std"):
        return Text(words.number(value))
    alarming = name == "non_finite" and value > 0
    return Text(words.percent(value), "red" if alarming else "")


def _run_cells(view: RunView) -> tuple[str | Text, ...]:
    created = view.info.created[:16].replace("T", " ")
    return (
        created,
        _status(live_status(view.info)),
        f"{view.num_steps:,}",
        _last_loss(view),
        Text(_best(view)),
    )


def _status(status: str) -> Text:
    return Text(status, STATUS_STYLES.get(status, ""))


def _last_loss(view: RunView) -> str:
    losses, _ = training_loss(view)
    return words.loss(float(losses.values[-1])) if len(losses) else words.DASH


def _best(view: RunView) -> str:
    best = best_metric(view)
    return words.DASH if best is None else f"{best.name} {words.number(best.value, 4)}"
