"""Make the example figures of docs/rules.md: `PYTHONPATH=benchmarks python docs/rule_figures.py runs-faults [RULE ...]`.

No idea of any rule. Each figure is the one that a report shows with the finding, in the first training of the fault benchmark
in which the rule is right. What is not recorded yet is trained. Needs the `test` extra and Debian's chromium.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import plotly.graph_objects as go
import torch
from faults.cases import CASES
from faults.runner import Job, run_job
from pages import draw

from actograph.rules.catalog import DEFAULT_RULES
from actograph.rules.diagnose import diagnose
from actograph.rules.rule import Finding
from actograph.runlog.reader import read_run
from actograph.show.evidence import finding_figure

PICTURES = Path(__file__).with_name("rules")


def main(runs: Path, chosen: list[str]) -> None:
    figures, pictures = [], []
    for rule in DEFAULT_RULES:
        if not chosen or rule.id in chosen:
            figure = example(rule.id, runs)
            if figure is None:
                print(f"{rule.id}: no case of the benchmark shows it")
                continue
            figures.append(figure)
            pictures.append(PICTURES / f"{rule.id}.png")
    draw(figures, pictures)


def example(rule: str, runs: Path) -> go.Figure | None:
    """Return the figure of the first finding of a rule in the benchmark's cases that it is right about."""
    own = [case for case in CASES.values() if rule in case.rules]  # what only follows from others has none
    for case in own or CASES.values():
        job = Job(0, case.id)
        run_job(job, runs)
        view = read_run(job.folder(runs) / "run")
        found = [finding for finding in _all(diagnose(view).findings) if finding.rule == rule]
        if found:
            return finding_figure(view, found[0])
    return None


def _all(findings: tuple[Finding, ...]) -> Iterator[Finding]:
    for finding in findings:
        yield finding
        yield from _all(finding.consequences)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), sys.argv[2:])
