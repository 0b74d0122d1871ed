from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from actograph.errors import UsageError
from actograph.show.run import open_run
from actograph.study.setup import Setup
from actograph.study.study import SETTINGS, TRIALS, Results, found_rate
from actograph.study.training import learner_for, result_of
from actograph.study.trial import Outcome, Trial
from tests.study.helpers import BROKEN, AllFailing, Counting, Dying, Failing, Timed, small_setup


def runs_of(folder: Path) -> list[str]:
    return sorted((folder / "runs.txt").read_text().split())


def test_every_variant_runs_once_for_every_seed(tmp_path: Path) -> None:
    told = []
    chapter = Counting(small_setup(seeds=3)).run(
        out=tmp_path, on_outcome=lambda done, total, outcome: told.append((done, total, outcome.trial.folder))
    )
    names = [f"{name}-seed{seed}" for name in ("one", "two") for seed in range(3)]
    assert runs_of(tmp_path) == names
    assert told == [(number + 1, 6, name) for number, name in enumerate(names)]
    assert chapter.table.rows[0][1].value == 1.0  # type: ignore[attr-defined]


def test_an_interrupted_study_goes_on_and_reruns_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int, outcome: Outcome) -> None:
        if done == 2:
            raise KeyboardInterrupt

    study = Counting(small_setup())
    with pytest.raises(KeyboardInterrupt):
        study.run(out=tmp_path, on_outcome=stop)
    assert len(runs_of(tmp_path)) == 2
    chapter = study.run(out=tmp_path)
    assert runs_of(tmp_path) == sorted(["one-seed0", "one-seed1", "two-seed0", "two-seed1"])
    assert study.run(out=tmp_path).facts == chapter.facts


def test_more_seeds_go_on_with_a_study(tmp_path: Path) -> None:
    Counting(small_setup(seeds=2)).run(out=tmp_path)
    Counting(small_setup(seeds=3)).run(out=tmp_path)
    assert len(runs_of(tmp_path)) == 6


def test_a_trial_that_fails_is_told_and_made_again_next_time(tmp_path: Path) -> None:
    study = Failing(small_setup())
    chapter = study.run(out=tmp_path)
    assert list(chapter.failures) == [
        f"{BROKEN}, seed {seed}: UsageError: it was meant to fail" for seed in (0, 1)
    ]
    assert len(chapter.table.rows) == 1
    assert (
        "it was meant to fail" in (tmp_path / TRIALS / "variant-that-fails-seed0" / "error.txt").read_text()
    )
    (tmp_path / "mended").touch()
    assert not study.run(out=tmp_path).failures
    assert len(runs_of(tmp_path)) == 6


def test_nothing_follows_where_all_trials_fail(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="all 2 trials of counting failed; the first: UsageError: it was meant"
    ):
        AllFailing(small_setup()).run(out=tmp_path)


def test_in_processes_the_numbers_are_the_same_and_one_that_dies_is_told(tmp_path: Path) -> None:
    alone = Counting(small_setup()).run(out=tmp_path / "alone")
    beside = Dying(small_setup()).run(out=tmp_path / "beside", jobs=2)
    assert {name: beside.facts[name] for name in ("one", "two")} == alone.facts
    assert len(beside.facts["dies"]) == 1
    (failure,) = beside.failures
    assert failure.startswith("dies, seed 0: its process was ended")


def test_random_states_and_threads_are_put_back(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    states = random.getstate(), np.random.get_state(legacy=False)["state"]["key"].copy()
    threads = torch.get_num_threads()
    Counting(small_setup()).run(out=tmp_path)
    assert torch.equal(torch.rand(3), expected)
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], states[1])
    assert torch.get_num_threads() == threads


def test_a_timed_trial_comes_last_and_has_one_thread_as_all_have(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        Timed(small_setup()).run(out=tmp_path)
    finally:
        torch.set_num_threads(before)
    assert runs_of(tmp_path)[0] == "not-timed-seed0"
    outcomes = [Outcome.load(tmp_path / TRIALS / name) for name in ("timed-seed0", "not-timed-seed0")]
    assert [one.values["threads"] for one in outcomes if one is not None] == [1, 1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 2}, "epochs 1 instead of 2"),
        ({"batch_size": 5}, "batch_size 10 instead of 5"),
        ({"lr": 0.1}, "lr 0.05 instead of 0.1"),
    ],
)
def test_a_folder_of_another_setup_is_refused(
    tmp_path: Path, changed: dict[str, float], message: str
) -> None:
    Counting(small_setup()).run(out=tmp_path)
    with pytest.raises(UsageError, match=f"holds another study \\({message}\\); give another folder"):
        Counting(replace(small_setup(), **changed)).run(out=tmp_path)  # type: ignore[arg-type]
    assert len(runs_of(tmp_path)) == 4


def test_defaults_are_filled_in_once_and_kept(tmp_path: Path) -> None:
    study = Counting(small_setup(epochs=None, lr=None))
    resolved = study.resolved(tmp_path)
    settings = json.loads((tmp_path / SETTINGS).read_text())
    assert settings["epochs"] == resolved.setup.epochs == 1
    assert settings["lr"] == resolved.setup.lr == found_rate(study.setup)
    assert 1e-4 < settings["lr"] < 1.0
    assert study.resolved(tmp_path).setup == resolved.setup
    assert resolved.resolved(tmp_path).setup == resolved.setup  # given by hand


def test_a_lambda_is_refused_where_processes_are_needed(tmp_path: Path) -> None:
    setup = replace(small_setup(), model=lambda num_classes, input_size: torch.nn.Identity())
    with pytest.raises(UsageError, match="cannot be given to other processes"):
        Counting(setup).run(out=tmp_path, jobs=2)


def test_an_outcome_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    values = {"nan": math.nan, "list": [1.0, math.inf, {"a": -math.inf}], "text": "NaN", "none": None}
    outcome = Outcome(Trial("x", 1, {"depth": 2}), values, None, 1.5)
    outcome.save(tmp_path)
    loaded = Outcome.load(tmp_path)
    assert loaded is not None
    assert repr(loaded) == repr(outcome)  # NaN is equal to nothing
    (tmp_path / "outcome.json").write_text("{")
    assert Outcome.load(tmp_path) is None


def test_results_pair_differences_by_seed_and_leave_failures_out() -> None:
    outcomes = [
        Outcome(Trial(name, seed), {"value": base + seed, "missing": None})
        for name, base in (("a", 10.0), ("b", 9.0))
        for seed in range(3)
    ]
    results = Results([*outcomes, Outcome(Trial("c", 0), {}, "it broke")])
    assert results.variants == ["a", "b"]
    assert results.difference("a", "b", "value").value == 1.0
    assert results.mean("a", "missing").num == 0
    assert results.failures == ["c, seed 0: it broke"]


def test_a_training_is_an_ordinary_run_directory(tmp_path: Path) -> None:
    setup: Setup = small_setup(epochs=2)
    learner = learner_for(setup, Trial("plain", 1, {"depth": 3}), tmp_path)
    learner.fit(2)
    result = result_of(learner)
    assert result["accuracy"] > 0.5
    assert result["steps"] == 8
    view = open_run(tmp_path).view
    assert view.num_steps == 8
    assert view.info.config["depth"] == 3
    assert view.info.cost.steps_recorded == 8
