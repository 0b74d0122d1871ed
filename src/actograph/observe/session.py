"""`Session`: one observed program and the run that it leaves.

No idea of the command line, nor of what is said about a run.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

from actograph.hooks import compiled
from actograph.observe.observer import Observer
from actograph.observe.script import Program, execute
from actograph.recording.new_run import new_run
from actograph.recording.recording import Recording, status_after
from actograph.runlog.reader import closed_run
from actograph.runlog.schema import RUNS
from actograph.runlog.view import RunView

NOTHING_SEEN = "no optimizer step was seen: nothing to record"
# Libraries with optimizers that are not torch's, by a module that is loaded where they are used
NEED_ADAPTERS = {
    "fastai.optimizer": "fastai's optimizers are not torch's, so their steps are not seen: give the Learner "
    "cbs=actograph.integrations.fastai.ActographCallback()",
    "keras.src.backend.torch": "Keras' optimizers are not torch's, so their steps are not seen: give model.fit "
    "callbacks=[actograph.integrations.keras.ActographCallback()]",
}
NO_LAYERS = "no layer was recorded: no model with trainable parameters was called, gradients enabled and in training mode"
NOT_COMPILED = (
    "compiled code was run, and no layer in it was recorded: a model is recorded that torch.compile has wrapped, or that "
    "was called once without being compiled; not one that is first called by a compiled function or after model.compile()"
)
# torch says so of compiled models whenever somebody watches modules; the hook that it means does nothing there
COMPILE_WARNING = r"Using `torch.compile\(module\)` when there are global hooks"


@dataclass(frozen=True)
class Outcome:
    """What is left of a program that has ended.

    ``view`` is None where nothing was recorded, in a forked child, and on all ranks but the first, which speaks for all.
    """

    error: BaseException | None
    view: RunView | None
    directory: Path | None
    remarks: tuple[str, ...]  # what was not seen, one line each


class Session:
    """A run that is ready to take in what a program does.

    Args:
        name: what to call the run.
        out: run directory; None makes ``runs/<date>-<time>-<name>``.
        budget: share of the step time that recording may take; None: no limit.
        every: record every so many steps instead.
        grad: whether to record gradients, weights and updates too.

    Raises:
        UsageError: the folder holds a run already, or a number is out of range.

    """

    def __init__(
        self, name: str, out: Path | None, *, budget: float | None, every: int | None, grad: bool
    ) -> None:
        self._had_runs = RUNS.exists()
        self._num_graphs = compiled.num_graphs()
        self._writer = new_run(name, out)
        assert self._writer.directory is not None
        self._writer.directory = self._writer.directory.absolute()  # the program may change its folder
        try:
            self._recording = Recording(self._writer, budget=budget, every=every, grad=grad)
        except Exception:
            self._discard()
            raise
        self._observer = Observer(self._recording, gradients=grad, complain=complain)

    def run(self, program: Program, args: list[str]) -> Outcome:
        """Run a program to its end, however it ends, and store what was seen."""
        pid = os.getpid()
        with warnings.catch_warnings(), self._observer:
            warnings.filterwarnings("ignore", COMPILE_WARNING)
            error = execute(program, args)
        if error is not None and not isinstance(error, SystemExit):
            sys.excepthook(type(error), error, error.__traceback__)
        if os.getpid() != pid:  # a child that was forked has come to the program's end too
            return Outcome(error, None, None, ())
        try:
            return self._conclude(error)
        except Exception as failure:
            complain(f"the run was not stored to its end ({type(failure).__name__}: {failure})")
            return Outcome(error, None, None, ())

    def _conclude(self, error: BaseException | None) -> Outcome:
        is_good = isinstance(error, SystemExit) and error.code in (None, 0)
        self._recording.close("finished" if is_good else status_after(None if error is None else type(error)))
        remarks = tuple(self._observer.roots.unseen)
        if compiled.num_graphs() != self._num_graphs and not self._recording.has_seen_compiled:
            remarks = (*remarks, NOT_COMPILED)
        if not self._recording.num_steps:
            self._discard()
            reasons = (reason for module, reason in NEED_ADAPTERS.items() if module in sys.modules)
            return Outcome(error, None, None, (*remarks, NOTHING_SEEN, *reasons))
        assert self._writer.directory is not None
        if self._writer.info.rank:
            return Outcome(error, None, self._writer.directory, ())
        view = self._recording.view()
        if view.info.world_size > 1:
            view = closed_run(self._writer.directory)
        if not view.layers:
            remarks = (*remarks, NO_LAYERS)
        return Outcome(error, view, self._writer.directory, remarks)

    def _discard(self) -> None:
        assert self._writer.directory is not None
        self._writer.discard()
        if not self._had_runs and self._writer.directory.parent.name == RUNS.name:
            with contextlib.suppress(OSError):  # somebody else has a run there by now
                self._writer.directory.parent.rmdir()


def complain(line: str) -> None:
    """Say one line where it cannot be taken for the program's output."""
    print(f"actograph: {line}", file=sys.stderr)
