"""`Study`: one question, many trials, one chapter.

No idea of any question. A study says which trials there are (`trials`), how one is measured (`measure`, in a worker process)
and what follows (`conclude`); here is what all have in common: where outcomes lie, how a study goes on, what failed.
"""

from __future__ import annotations

import json
import pickle
import random
import shutil
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import torch

from actograph.callbacks.recorder import Recorder
from actograph.errors import UsageError
from actograph.files import write_atomically
from actograph.learner import Learner
from actograph.study.chapter import Chapter
from actograph.study.estimate import Estimate, difference_of, mean_of
from actograph.study.executor import Executor, InProcess, executor_for
from actograph.study.setup import Setup
from actograph.study.trial import Outcome, Trial, Values
from actograph.train.position import random_state, set_random_state

STUDIES = Path("studies")  # where studies lie that are given no folder
SETTINGS = "study.json"
TRIALS = "trials"
RATE_REPEATS = 3  # range tests from the same weights
ERROR_TEXT = "error.txt"  # in a trial's folder: the traceback of one that failed

OnOutcome = Callable[[int, int, Outcome], None]  # trials done, of how many, the one that ended


@dataclass(frozen=True)
class Results:
    """The outcomes of a study, by variant and seed."""

    outcomes: Sequence[Outcome]

    @property
    def variants(self) -> list[str]:
        """The variants of which a trial succeeded, in the study's order."""
        return list(dict.fromkeys(one.trial.variant for one in self.outcomes if one.error is None))

    @property
    def failures(self) -> list[str]:
        """The trials that failed, and why."""
        return [
            f"{one.trial.variant}, seed {one.trial.seed}: {one.error}" for one in self.outcomes if one.error
        ]

    def of(self, variant: str) -> dict[int, Values]:
        """Return what was measured of a variant, by seed."""
        return {
            one.trial.seed: one.values
            for one in self.outcomes
            if one.trial.variant == variant and one.error is None
        }

    def by_seed(self, variant: str, name: str) -> dict[int, float]:
        """Return one number of a variant, by seed; trials that do not have it (None) are left out."""
        found = {seed: values[name] for seed, values in self.of(variant).items()}
        return {seed: float(value) for seed, value in found.items() if value is not None}

    def mean(self, variant: str, name: str) -> Estimate:
        """Estimate the mean of one number of a variant over the seeds."""
        return mean_of(list(self.by_seed(variant, name).values()))

    def difference(self, a: str, b: str, name: str, *, num_looks: int = 1) -> Estimate:
        """Estimate by how much one number is larger for variant a than for b, seeds paired."""
        return difference_of(self.by_seed(a, name), self.by_seed(b, name), num_looks=num_looks)


class Study(ABC):
    """One question about a setup. ``run()`` answers it.

    Subclasses are given to worker processes by their class and the setup alone.
    """

    name: ClassVar[str]
    question: ClassVar[str]
    textbook: ClassVar[str]  # the usual answer, in a sentence
    default_epochs: ClassVar[int]
    needs_rate: ClassVar[bool] = True  # whether a rate is looked for where the setup has none

    def __init__(self, setup: Setup | None = None) -> None:
        self.setup: Final = Setup() if setup is None else setup

    # What each study says

    @abstractmethod
    def trials(self) -> Sequence[Trial]:
        """Return all trials, in the order in which a reader would compare them. The setup is resolved by then."""

    @abstractmethod
    def measure(self, trial: Trial, folder: Path) -> Values:
        """Run one trial and return what was measured, plain data; ``folder`` is empty, and its run directory."""

    @abstractmethod
    def conclude(self, results: Results) -> Chapter:
        """Return the chapter that follows from the outcomes."""

    def check(self) -> None:  # noqa: B027 - most questions suit any setup
        """Raise UsageError where the setup does not suit the question; the data were opened once before."""

    # What all have in common

    def run(
        self,
        *,
        out: str | Path | None = None,
        jobs: int | None = 1,
        executor: Executor | None = None,
        on_outcome: OnOutcome | None = None,
    ) -> Chapter:
        """Run the trials that have no outcome yet, and conclude.

        Args:
            out: the study's folder; None is ``studies/<name>``. One that holds outcomes of the same setup goes on where
                it was stopped; of another setup it is refused.
            jobs: trials at a time; None: as many as there are cores. With more than one they run in processes of their
                own, and functions in the setup must be importable. A trial computes in one thread, so that its numbers do
                not depend on this; where time is measured it runs alone, after the others.
            executor: where trials run, instead of ``jobs``.
            on_outcome: told of each trial that ends.

        """
        folder = STUDIES / self.name if out is None else Path(out)
        tell = on_outcome or (lambda done, total, outcome: None)
        with ExitStack() as stack:
            engine = stack.enter_context(executor_for(jobs)) if executor is None else executor
            if not isinstance(engine, InProcess):
                _check_portable(self.setup)
            study = self.resolved(folder)
            outcomes = study._outcomes(folder, engine, tell)
        if all(one.error is not None for one in outcomes):
            raise UsageError(
                f"all {len(outcomes)} trials of {self.name} failed; the first: {outcomes[0].error}"
            )
        return study.conclude(Results(outcomes))

    def resolved(self, folder: Path) -> Study:
        """Return this study with its defaults filled in: as they stand in ``folder``, or else found now and kept there.

        Raises UsageError where the folder holds another study, or network and data do not go together.
        """
        asked = self.setup.to_json()
        settings = _read_settings(folder)
        if settings is None:
            with _own_random_state(0):
                self.setup.check()
                self.check()
                setup = self._fill_in()
            told = {"study": self.name, "setup": asked, "epochs": setup.epochs, "lr": setup.lr}
            data = json.dumps(told, indent=1).encode()
            write_atomically(folder / SETTINGS, lambda file: file.write(data))
            return type(self)(setup)
        if differences := _differences(settings, self.name, asked):
            raise UsageError(f"{folder} holds another study ({differences}); give another folder")
        return type(self)(replace(self.setup, epochs=settings["epochs"], lr=settings["lr"]))

    def _fill_in(self) -> Setup:
        setup = self.setup
        if setup.epochs is None:
            setup = replace(setup, epochs=self.default_epochs)
        if setup.lr is None and self.needs_rate:
            setup = replace(setup, lr=found_rate(setup))
        return setup

    def _outcomes(self, folder: Path, executor: Executor, on_outcome: OnOutcome) -> list[Outcome]:
        """Return the outcomes of all trials in order; those that succeeded before are read, not made again."""
        trials = self.trials()
        folders = {trial.folder for trial in trials}
        assert len(folders) == len(trials), "two trials have one name"
        done = {trial.folder: Outcome.load(folder / TRIALS / trial.folder) for trial in trials}
        known = {name: one for name, one in done.items() if one is not None and one.error is None}
        for outcome in known.values():
            on_outcome(len(known), len(trials), outcome)
        run = partial(run_trial, type(self), self.setup, folder / TRIALS)
        for engine, chosen in (
            (executor, [trial for trial in trials if not trial.is_timed]),
            (InProcess(), [trial for trial in trials if trial.is_timed]),
        ):
            for trial, result in engine.run(run, [one for one in chosen if one.folder not in known]):
                outcome = result if isinstance(result, Outcome) else _died(trial, result, folder / TRIALS)
                known[trial.folder] = outcome
                on_outcome(len(known), len(trials), outcome)
        return [known[trial.folder] for trial in trials]


def run_trial(study: type[Study], setup: Setup, root: Path, trial: Trial) -> Outcome:
    """Run one trial in a fresh folder below ``root`` and keep what came of it there; an error of its is its outcome."""
    folder = root / trial.folder
    shutil.rmtree(folder, ignore_errors=True)  # what a trial has left that was not ended
    folder.mkdir(parents=True)
    began_s = time.perf_counter()
    values: Values = {}
    error = None
    with _own_random_state(trial.seed), _one_thread():
        try:
            values = study(setup).measure(trial, folder)
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}".splitlines()[0]
            (folder / ERROR_TEXT).write_text(traceback.format_exc())
    outcome = Outcome(trial, values, error, time.perf_counter() - began_s)
    outcome.save(folder)
    return outcome


@contextmanager
def _own_random_state(seed: int) -> Iterator[None]:
    """Seed Python's, numpy's and torch's random numbers, and put their states back in the end."""
    state = random_state()
    random.seed(seed)
    np.random.seed(seed)  # for networks and data that are the user's
    torch.manual_seed(seed)
    try:
        yield
    finally:
        set_random_state(state)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread: the same numbers however many trials run beside, and times that other load changes less."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def found_rate(setup: Setup) -> float:
    """Return a rate for the setup from range tests: the median of `LRFind.minimum`; raises UsageError where there is none.

    Not ``valley``: over seeds that ranged from 0.0007 to 0.004 for simple_cnn on the digits, ``minimum`` from 0.01 to 0.014.
    """
    loaders = setup.open()
    learner = Learner(
        setup.build(0, loaders), loaders, setup.loss_func, device=setup.torch_device, defaults=[Recorder]
    )
    found = learner.lr_find(repeats=RATE_REPEATS)
    if found.refusal is not None:
        raise UsageError(f"no learning rate was found: {found.refusal}; or give one")
    return float(f"{found.minimum:.1e}")  # two digits: a rate is not known better


def rate_of_folder(folder: Path) -> float | None:
    """Return the rate that the study in ``folder`` was made with; raises UsageError where there is no study."""
    settings = _read_settings(folder)
    if settings is None:
        raise UsageError(f"{folder} holds no study; make one with actograph study")
    rate: float | None = settings["lr"]
    return rate


def _check_portable(setup: Setup) -> None:
    try:
        pickle.dumps(setup)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(
            f"the setup cannot be given to other processes ({error}); let data and model be functions of a module, or give "
            "jobs=1"
        ) from error


def _read_settings(folder: Path) -> dict[str, Any] | None:
    path = folder / SETTINGS
    if not path.exists():
        return None
    try:
        settings = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}); give another folder") from error
    if not isinstance(settings, dict):
        raise UsageError(f"{path} holds no study's settings; give another folder")
    return settings


def _differences(settings: Mapping[str, Any], name: str, asked: Mapping[str, Any]) -> str:
    """Return in what the folder's study differs from the one asked for; empty where it does not."""
    if settings.get("study") != name:
        return f"{settings.get('study')} instead of {name}"
    kept = settings.get("setup", {})
    return ", ".join(
        f"{key} {kept.get(key)} instead of {value}"
        for key, value in asked.items()
        # a default that was filled in may be given by hand, too
        if value != kept.get(key) and not (kept.get(key) is None and value == settings.get(key))
    )


def _died(trial: Trial, error: BrokenProcessPool, root: Path) -> Outcome:
    outcome = Outcome(trial, {}, str(error))
    outcome.save(root / trial.folder)
    return outcome


def seeds_of(setup: Setup, variants: Iterable[str | tuple[str, Mapping[str, Any]]]) -> list[Trial]:
    """Return a trial of each variant, given as a name or a name and options, for each seed of the setup."""
    named = [(one, {}) if isinstance(one, str) else one for one in variants]
    return [Trial(name, seed, options) for name, options in named for seed in range(setup.seeds)]
