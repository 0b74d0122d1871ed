"""Packages that watch a training themselves: `run_under` trains under one and keeps what it says, `said_by` reads that.

No idea of cases. Each is an optional requirement of the benchmark; what is kept is what the package says in its own words,
so that what it may mean (`rival_packages`) is decided when it is scored. Both get their quick start's calls and defaults.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.metadata
import json
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faults.loop import Loop, NoWatcher, Outcome
from faults.rival_packages import translated
from faults.runner import Job, make_setting
from faults.said import Said

KEPT = "said.json"


@dataclass(frozen=True)
class Heard:
    """A finding as the package gives it; equal ones of several steps are one."""

    name: str  # title or id
    severity: str
    layers: tuple[str, ...]
    first_step: int | None
    last_step: int | None
    message: str


class Session(NoWatcher):
    """Watches one training. ``heard`` is complete once the context that gave it is left."""

    heard: list[Heard]


class _Autopsy(Session):
    def __init__(self, autopsy: Any) -> None:
        self._autopsy = autopsy

    def step(self, loss: float) -> None:
        self._autopsy.step(loss=loss)


@contextlib.contextmanager
def _torchmortem(loop: Loop) -> Iterator[Session]:
    from torchmortem import Autopsy

    autopsy = Autopsy(loop.model, optimizer=loop.optimizer)
    session = _Autopsy(autopsy)
    try:
        with autopsy:
            yield session
    finally:
        # it keeps each model of a process alive up to the end, to report on crashes
        atexit.unregister(autopsy._atexit_handler)
    report = autopsy.get_report()
    session.heard = [
        Heard(one.title, one.severity.name.lower(), tuple(one.affected_layers), *one.step_range, one.summary)
        for one in report.findings
    ]


@contextlib.contextmanager
def _torch_audit(loop: Loop) -> Iterator[Session]:
    from torch_audit import autopatch

    # every step: its default, each 1,000th, sees one step of most of these runs
    auditor = autopatch(loop.model, optimizer=loop.optimizer, every_n_steps=1)
    session = Session()
    try:
        yield session
    finally:
        auditor.unpatch()
    session.heard = _merged(_of_audit(one) for one in auditor.finish(report=False).findings)


def _of_audit(finding: Any) -> Heard:
    layers = (finding.module_path,) if finding.module_path else ()
    return Heard(
        finding.rule_id, finding.severity.value.lower(), layers, finding.step, finding.step, finding.message
    )


def _merged(found: Iterator[Heard]) -> list[Heard]:
    """Join the findings of many steps that are the same but for step and message."""
    merged: dict[tuple[object, ...], Heard] = {}
    for one in found:
        key = one.name, one.severity, one.layers
        first = merged.setdefault(key, one)
        merged[key] = Heard(
            first.name, first.severity, first.layers, first.first_step, one.last_step, first.message
        )
    return list(merged.values())


PACKAGES: dict[str, Callable[[Loop], contextlib.AbstractContextManager[Session]]] = {
    "torchmortem": _torchmortem,
    "torch-audit": _torch_audit,
}


def version_of(package: str) -> str | None:
    """Return the version that is installed, None where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def kept_by(package: str, job: Job, out: Path) -> Path:
    """Return the file in which is kept what a package says of a training."""
    return job.folder(out) / package / KEPT


def run_under(package: str, job: Job, out: Path) -> dict[str, Any]:
    """Train under a package and keep what it says and the outcome; return it, from the folder where it is there already."""
    kept = kept_by(package, job, out)
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    began_s = time.perf_counter()
    setting = make_setting(job.what, job.seed)
    loop = Loop(setting, job.seed)
    outcome, error = Outcome(), ""
    heard: list[Heard] = []
    try:
        with PACKAGES[package](loop) as session:
            try:
                outcome = loop.run(session)
            except Exception:  # a broken training may end in any error: it is part of the outcome
                error = traceback.format_exc()
        heard = session.heard
    except Exception:  # and so may the package
        error += f"{package} failed: {traceback.format_exc()}"
    kept.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "package": package, "version": version_of(package), "findings": [asdict(one) for one in heard],
        "metric": outcome.metric, "error": error, "seconds": time.perf_counter() - began_s,
    }  # fmt: skip
    kept.write_text(json.dumps(result))
    return result


def said_by(package: str, job: Job, out: Path) -> tuple[list[Said], list[Said], str] | None:
    """Return what a package said of a training, nothing for on the way, and its version; None where it did not watch."""
    kept = kept_by(package, job, out)
    if not kept.exists():
        return None
    found = json.loads(kept.read_text())
    return translated(package, found["findings"]), [], found["version"]
