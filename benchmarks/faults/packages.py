"""Packages that watch a training themselves: `run_under` trains under one and keeps what it says, `said_by` reads that.

No idea of cases. Each is an optional requirement of the benchmark; what is kept is what the package says in its own words,
so that what it may mean (`CAUSES`) is decided when it is scored. Both get their quick start's calls and defaults.
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
from faults.runner import Job, make_setting
from faults.said import Said, earliest

# What each finding may mean, by the package's own title or id; what is not here is no statement about a training
CAUSES: dict[str, dict[str, tuple[str, ...]]] = {
    "torchmortem": {
        "Vanishing gradients detected": ("vanishing-gradients", "initialization-too-small", "detached-graph", "fp16-underflow"),
        "Gradient stalling": ("vanishing-gradients", "dead-units", "detached-graph", "fp16-underflow"),
        "Exploding gradients detected": (
            "exploding-gradients", "learning-rate-too-high", "initialization-too-large", "missing-warmup", "summed-loss",
            "missing-zero-grad", "targets-not-scaled", "inputs-not-normalized",
        ),
        "Dead units": ("dead-units",),
        "Activation saturation": ("saturated-activations", "initialization-too-large", "inputs-not-normalized"),
        "Rank collapse": ("constant-initialization", "over-regularized", "inputs-collapsed", "softmax-in-hidden-layer"),
        "Update ratio too low": (
            "learning-rate-too-low", "learning-rate-decayed-early", "vanishing-gradients", "clipping-too-tight", "optimizer-epsilon",
        ),
        "Update ratio too high": ("learning-rate-too-high", "missing-warmup", "momentum-too-high", "missing-zero-grad", "summed-loss"),
        "Weight norm explosion": ("learning-rate-too-high", "exploding-gradients", "momentum-too-high", "loss-sign-flipped"),
        "Stagnant weight norms": (
            "parameters-not-in-optimizer", "stale-optimizer", "detached-graph", "learning-rate-too-low", "vanishing-gradients",
        ),
        "Inter-layer weight norm imbalance": ("initialization-too-large", "initialization-too-small", "head-initialization"),
        "Training divergence detected": ("loss-diverging", "learning-rate-too-high", "non-finite-loss", "loss-sign-flipped"),
        "Loss plateau detected": ("loss-not-decreasing", "learning-rate-too-low", "learning-rate-decayed-early"),
        "High gradient noise (low SNR)": ("batch-too-small",),
    },
    # Not here: advice on a set-up that holds whatever the training does (TA2xx on speed; TA400 to TA404 on biases before
    # norms, weight decay and kernel sizes), and crashes of its own checks (TA000)
    "torch-audit": {
        "TA100": ("non-finite-loss", "non-finite-input", "exploding-gradients", "fp16-overflow", "learning-rate-too-high"),
        "TA102": ("exploding-gradients", "learning-rate-too-high", "missing-zero-grad", "summed-loss", "targets-not-scaled"),
        "TA103": ("dead-units", "vanishing-gradients", "fp16-underflow"),
        "TA104": ("detached-graph", "stale-optimizer"),
        "TA105": ("dead-units",),
        "TA300": (),
        "TA301": ("inputs-not-normalized",),
        "TA302": ("inputs-collapsed",),
        "TA303": (),
        "TA304": ("batchnorm-batch-too-small",),
        "TA305": (),
        "TA405": ("constant-initialization", "dead-units", "initialization-too-small"),
        "TA500": (),
        "TA501": (),
    },
}  # fmt: skip

ALARMS = ("warning", "critical", "warn", "error", "fatal")  # not "info"
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

    auditor = autopatch(loop.model, optimizer=loop.optimizer, every_n_steps=1)  # its default, 1,000, sees one step of most runs
    session = Session()
    try:
        yield session
    finally:
        auditor.unpatch()
    session.heard = _merged(
        Heard(one.rule_id, one.severity.value.lower(), (one.module_path,) if one.module_path else (), one.step, one.step, one.message)
        for one in auditor.finish(report=False).findings
    )


def _merged(found: Iterator[Heard]) -> list[Heard]:
    """Join the findings of many steps that are the same but for step and message."""
    merged: dict[tuple[object, ...], Heard] = {}
    for one in found:
        key = one.name, one.severity, one.layers
        first = merged.setdefault(key, one)
        merged[key] = Heard(first.name, first.severity, first.layers, first.first_step, one.last_step, first.message)
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


def said_by(package: str, job: Job, out: Path) -> list[Said] | None:
    """Return what a package said of a training, None where it was not trained under it."""
    kept = kept_by(package, job, out)
    if not kept.exists():
        return None
    return translated(package, json.loads(kept.read_text())["findings"])


def translated(package: str, findings: list[dict[str, Any]]) -> list[Said]:
    """Return findings as kept, most severe first as the package sorts them, each kind once with all its layers."""
    causes = CAUSES[package]
    said: list[Said] = []
    for one in findings:
        name = one["name"].split(" in ")[0]  # titles end with the layer: "Dead units in fc1"
        if name in causes and one["severity"] in ALARMS:
            layers = [layer for layer in one["layers"] if layer != "global"]
            said += [Said(name, layer, one["first_step"], causes=causes[name]) for layer in layers or [None]]
    if package == "torch-audit":
        return earliest(said)  # in the order of steps anyway
    by_name: dict[str, list[Said]] = {}
    for one in said:
        by_name.setdefault(one.rule, []).append(one)
    return [joined for same in by_name.values() for joined in earliest(same)]
