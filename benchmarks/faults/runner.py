"""`Job` and `run_job`: one training of a case or control, recorded into a folder of its own; done jobs are not done again.

No idea of what is made of the recordings.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from actograph import watch
from actograph.recording.recording import Recording
from faults import VERSION
from faults.case import Case, Control
from faults.cases import CASES
from faults.controls import CONTROLS
from faults.loop import Loop, Outcome
from faults.programs import PROGRAMS
from faults.setting import Setting

# what `watch` is asked for: every step and everything; or what it does by itself
RECORDINGS = {"full": {"budget": None, "grad": True, "gradients": True}, "default": {}}


@dataclass(frozen=True, order=True)
class Job:
    """One seed of a case or control, under one way to record."""

    seed: int
    id: str
    recording: str = "full"

    @property
    def what(self) -> Case | Control:
        """The case or control."""
        return CASES[self.id] if self.id in CASES else CONTROLS[self.id]

    def folder(self, out: Path) -> Path:
        """Return where it is kept."""
        return out / f"v{VERSION}" / self.recording / self.id / str(self.seed)


class Watching:
    """Says the phases to a recording, as a user of `watch` does."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[None]:
        self._recording.phase("valid")
        yield
        self._recording.phase("train")

    def metrics(self, loss: float, metric: float) -> None:
        self._recording.step(loss=loss, metric=metric)

    def step(self, loss: float) -> None:
        pass  # it sees losses and steps by itself


def make_setting(what: Case | Control, seed: int) -> Setting:
    """Return the setting, changed as the case or control says."""
    torch.manual_seed(seed)
    setting = PROGRAMS[what.program].make(seed)
    if isinstance(what, Case) and what.twin is not None:
        what.twin(setting)
    if what.apply is not None:
        what.apply(setting)
    return setting


def run_job(job: Job, out: Path) -> dict[str, object]:
    """Train, record and keep the outcome; return it, from the folder where it is there already."""
    folder = job.folder(out)
    kept = folder / "result.json"
    if kept.exists():
        found: dict[str, object] = json.loads(kept.read_text())
        return found
    shutil.rmtree(folder / "run", ignore_errors=True)  # what packages said stays
    folder.mkdir(parents=True, exist_ok=True)
    began_s = time.perf_counter()
    setting = make_setting(job.what, job.seed)
    loop = Loop(setting, job.seed)
    outcome, error = Outcome(), ""
    options = RECORDINGS[job.recording]
    with watch(loop.model, loop.optimizer, folder / "run", name=job.id, **options) as recording:
        try:
            recording.phase("train")
            outcome = loop.run(Watching(recording))
        except Exception:  # a broken training may end in any error: it is part of the outcome
            error = traceback.format_exc()
    with contextlib.suppress(Exception):
        outcome.test_metric = loop.test()
    result = {**asdict(outcome), "error": error, "seconds": time.perf_counter() - began_s, "num_steps": setting.num_steps}
    kept.write_text(json.dumps(result))
    return result


def outcome_of(setting: Setting, seed: int) -> Outcome:
    """Train without recording and return what came of it."""
    loop = Loop(setting, seed)
    outcome = Outcome()
    with contextlib.suppress(Exception):
        outcome = loop.run()
    with contextlib.suppress(Exception):
        outcome.test_metric = loop.test()
    return outcome
