"""How is a callback reached after training? Every way is taken, in this process and in others, and the numbers are compared.

No idea of sentences: ``callbacks_words.py`` has them.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from actograph.callbacks.activation_stats import ActivationStats
from actograph.callbacks.recorder import Recorder
from actograph.learner import Learner
from actograph.runlog.schema import DATABASE
from actograph.runlog.view import STATISTICS, RunView
from actograph.show.activations import ActivationView
from actograph.show.run import open_run
from actograph.study import callbacks_words as words
from actograph.study.callbacks_words import GIVEN_TO_FIT, GIVEN_TO_LEARNER, KILLED, Way
from actograph.study.chapter import Chapter
from actograph.study.reading import LOSS, Numbers, all_numbers, compared
from actograph.study.setup import Setup
from actograph.study.study import Results, Study, seeds_of
from actograph.study.trial import Trial, Values
from actograph.train.events import Callback
from actograph.train.loop import Loop

# how long trainings live that then end without a word, in seconds. A run is written once a second: not at a multiple of that
ALIVE_S = (1.5, 2.2)
VANISHED = 9  # its exit code
MANY_EPOCHS = 100_000
SECOND = "second"  # folder of the second fit's run, in that of the first
LIVE_WAYS: Mapping[Way, Callable[[Learner], ActivationView]] = {
    Way.BY_CLASS: lambda learn: learn.callbacks[ActivationStats].activations,
    Way.BY_NAME: lambda learn: learn.callbacks["activation_stats"].activations,  # type: ignore[attr-defined]
    Way.ATTRIBUTE: lambda learn: learn.activation_stats,
}
# the command line as it is, and whether torch was imported on its standard error
SHOW = (
    "import atexit, sys; from actograph.cli.main import main; "
    "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); main()"
)


class Callbacks(Study):
    """Recording given to the Learner, given to one fit, and in a process that dies; reached in every way there is."""

    name = "callbacks"
    question = "How is a callback reached after training?"
    textbook = "Keep the object in a variable, and look at its attributes when training is over."
    default_epochs = 2

    def trials(self) -> Sequence[Trial]:
        """Return a training of each kind for each seed, and two that die: each needs a process of its own."""
        dying = [Trial(KILLED, seed, {"alive_s": alive_s}) for seed, alive_s in enumerate(ALIVE_S)]
        return [*seeds_of(self.setup, (GIVEN_TO_LEARNER, GIVEN_TO_FIT)), *dying]

    def measure(self, trial: Trial, folder: Path) -> Values:
        """Train, and reach for what was recorded."""
        if trial.variant == KILLED:
            return killed(self.setup, trial, folder)
        stats = ActivationStats(budget=None, out=folder, name=trial.variant)
        is_visitor = trial.variant == GIVEN_TO_FIT
        learner = _learner(self.setup, trial, () if is_visitor else (stats,))
        num_hooks = _num_hooks(learner.model)
        assert self.setup.epochs is not None
        learner.fit(self.setup.epochs, callbacks=(stats,) if is_visitor else ())
        kept = all_numbers(stats.activations)  # what the object in the variable has: all are compared with it
        ways: dict[str, Any] = {
            way: _timed(partial(_live_numbers, get, learner), kept) for way, get in LIVE_WAYS.items()
        }
        ways[Way.OPEN_RUN] = _read_elsewhere(folder, kept)
        ways[Way.SHOW] = _shown_elsewhere(folder, stats.view)
        values = {
            "ways": ways,
            "digest": hashlib.sha256(json.dumps(kept).encode()).hexdigest(),
            "num_layers": len(stats.view.layers),
            "num_steps": stats.view.num_steps,
            "hooks_left": _num_hooks(learner.model) - num_hooks,
            "bytes_kept": _bytes_of(stats.view),
            "bytes_on_disk": sum(file.stat().st_size for file in folder.glob(f"{DATABASE}*")),
        }
        return {**values, **(_second_fit(learner, folder, kept) if is_visitor else {})}

    def conclude(self, results: Results) -> Chapter:
        """Count what differs, over all trainings."""
        sentences, facts = words.verdict(results)
        return Chapter(
            self.name,
            self.question,
            self.textbook,
            sentences,
            words.tables(results),
            words.pictures(results),
            self._method(),
            results.failures,
            facts,
        )

    def _method(self) -> str:
        return (
            f"{self.setup.told_model} on {self.setup.told_data}, AdamW at rate {self.setup.lr}, constant, batches of "
            f"{self.setup.batch_size}, {self.setup.epochs} epochs, every step and layer recorded, one thread. Right after "
            "the fit mean, standard deviation and near-zero share of every layer at every recorded step and the training "
            "loss are taken from the object that was kept in a variable, and once more in each of the ways; every number is "
            "compared exactly (NaN equals NaN). open_run and the command line run in processes of their own, which get the "
            "run's folder and nothing else; the command line prints all statistics of the last step, so these are compared. "
            "JSON writes the shortest digits that give the same float64 again. Times include the start of the process. "
            f"The processes that die train for {' and '.join(f'{one:g}' for one in ALIVE_S)} s and then end at once with "
            "os._exit: nothing is closed or written; recording writes once a second."
        )


def _live_numbers(get: Callable[[Learner], ActivationView], learner: Learner) -> Numbers:
    return all_numbers(get(learner))


def _learner(setup: Setup, trial: Trial, callbacks: Sequence[Callback]) -> Learner:
    loaders = setup.open(trial.seed)
    assert setup.lr is not None
    return Learner(
        setup.build(trial.seed, loaders),
        loaders,
        setup.loss_func,
        lr=setup.lr,
        callbacks=callbacks,
        device=setup.torch_device,
        defaults=[Recorder],
    )


def _num_hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def _bytes_of(view: RunView) -> int:
    return sum(one.rows.nbytes + one.hist.nbytes + one.fired.nbytes for one in view.buckets)


def _timed(get: Callable[[], Numbers], kept: Numbers) -> dict[str, Any]:
    began_s = time.perf_counter()
    numbers = get()
    elapsed_s = time.perf_counter() - began_s
    return {**asdict(compared(kept, numbers)), "elapsed_s": elapsed_s, "has_torch": True, "peak_bytes": None}


def _read_elsewhere(folder: Path, kept: Numbers) -> dict[str, Any]:
    began_s = time.perf_counter()
    told = json.loads(_process("-m", "actograph.study.reading", str(folder)).stdout)
    elapsed_s = time.perf_counter() - began_s
    agreement = asdict(compared(kept, told["numbers"]))
    return {
        **agreement,
        "elapsed_s": elapsed_s,
        **{name: told[name] for name in ("read_s", "has_torch", "peak_bytes")},
    }


def _shown_elsewhere(folder: Path, view: RunView) -> dict[str, Any]:
    """Compare what the command line prints: all statistics at the last step, and the last loss."""
    began_s = time.perf_counter()
    process = _process("-c", SHOW, "show", str(folder), "--json")
    elapsed_s = time.perf_counter() - began_s
    told = json.loads(process.stdout)
    shown = {one["name"]: [one[name] for name in STATISTICS] for one in told["layers"]}
    columns = [view.column(name)[-1].tolist() for name in STATISTICS]
    kept = {one.name: [column[index] for column in columns] for index, one in enumerate(view.layers)}
    agreement = compared(
        {**kept, LOSS: view.scalar(LOSS).values[-1:].tolist()}, {**shown, LOSS: [told["loss"]]}
    )
    has_torch = process.stderr.split()[-1:] == ["True"]
    return {**asdict(agreement), "elapsed_s": elapsed_s, "has_torch": has_torch, "peak_bytes": None}


def _process(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)


def _second_fit(learner: Learner, folder: Path, kept: Numbers) -> dict[str, Any]:
    """Fit once more with recording of its own; see what the name leads to then, and whether the first run is whole."""
    second = ActivationStats(budget=None, out=folder / SECOND, name="second fit")
    learner.fit(1, callbacks=[second])
    return {
        "name_is_second": learner.callbacks[ActivationStats] is second,
        "first_unequal": compared(kept, all_numbers(open_run(folder).activation_stats)).num_unequal,
    }


class Vanish(Callback):
    """End the process at once after some seconds of training, having noted the step in a file."""

    def __init__(self, note: Path, alive_s: float) -> None:
        self._note, self._alive_s = note, alive_s
        self._end_s: float | None = None

    def after_step(self, loop: Loop) -> None:
        """Look at the clock."""
        now_s = time.monotonic()
        self._end_s = now_s + self._alive_s if self._end_s is None else self._end_s
        if now_s >= self._end_s:
            self._note.write_text(json.dumps(loop.progress.step))
            os._exit(VANISHED)


def train_and_vanish(setup: Setup, trial: Trial, folder: Path) -> None:
    """Train in this process, which ends without closing anything."""
    stats = ActivationStats(budget=None, out=folder, name=trial.variant)
    _learner(setup, trial, (stats, Vanish(_note_of(folder), trial.options["alive_s"]))).fit(MANY_EPOCHS)


def _note_of(folder: Path) -> Path:
    return folder / "steps.json"


def killed(setup: Setup, trial: Trial, folder: Path) -> dict[str, Any]:
    """Train in a process that vanishes, and return how many steps it made and how many can be read afterwards."""
    process = multiprocessing.get_context("spawn").Process(
        target=train_and_vanish, args=(setup, trial, folder)
    )
    process.start()
    process.join()
    if process.exitcode != VANISHED:
        raise RuntimeError(
            f"the process that was to vanish ended by itself, with exit code {process.exitcode}"
        )
    view = open_run(folder).view
    made = int(json.loads(_note_of(folder).read_text()))
    return {
        "steps_made": made,
        "steps_readable": int(view.num_recorded.sum()),
        "alive_s": trial.options["alive_s"],
    }
