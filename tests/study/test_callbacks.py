"""Ways to a callback after training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actograph.study.callbacks import Callbacks
from actograph.study.callbacks_words import GIVEN_TO_FIT, GIVEN_TO_LEARNER, KILLED, Way
from actograph.study.chapter import Chapter
from actograph.study.setup import Setup
from actograph.study.study import Results, run_trial
from actograph.study.trial import Outcome, Trial
from tests.study.helpers import small_setup

SETUP = Setup(seeds=3, epochs=1, lr=0.01)


def chapter(**changes: Any) -> Chapter:
    """Return the chapter of made-up outcomes; ``changes`` are values of all of them, ``way`` those of all ways."""
    outcomes = []
    way = {
        "num": 10, "num_unequal": 0, "largest": 0.0, "elapsed_s": 1.0, "read_s": 0.1, "has_torch": False,
        "peak_bytes": None, **changes.pop("way", {}),
    }  # fmt: skip
    for trial in Callbacks(SETUP).trials():
        values = {
            "ways": {str(one): way for one in Way}, "digest": f"seed {trial.seed}", "num_layers": 2, "num_steps": 10,
            "hooks_left": 0, "bytes_kept": 2e6, "bytes_on_disk": 1e5, "name_is_second": True, "first_unequal": 0,
        }  # fmt: skip
        dead = {"steps_made": 100, "steps_readable": 60, "alive_s": 2.0}
        outcomes.append(Outcome(trial, {**(dead if trial.variant == KILLED else values), **changes}))
    return Callbacks(SETUP).conclude(Results(outcomes))


def test_equal_numbers_are_told_with_their_count() -> None:
    made = chapter()
    assert "All 5 ways give the same numbers" in made.sentences[0]
    assert "of 300 that were compared none differs" in made.sentences[0]
    assert "no two seeds give the same" in made.verdict
    assert "neither imports torch" in made.verdict
    assert "of 200 steps that 2 processes had made when they were ended 120 (60 %)" in made.verdict
    assert "lost are the last 0.8 s" in made.verdict
    assert made.facts["unequal"] == {str(way): 0 for way in Way}


def test_differences_are_told_with_their_size_and_way() -> None:
    made = chapter(way={"num_unequal": 2, "largest": 0.25})
    assert "Not all ways" in made.sentences[0]
    assert "learn.activation_stats (12, by up to 0.25)" in made.sentences[0]


def test_what_does_not_hold_is_not_claimed() -> None:
    told = chapter(digest="always the same", first_unequal=3, hooks_left=1, way={"has_torch": True}).verdict
    assert "says little" in told
    assert "no longer has all of its numbers" in told
    assert "hooks are left in the model" in told
    assert "torch was imported by" in told
    assert "the folder was no better" in chapter(steps_readable=0).verdict
    assert "in 0 of 3 cases" in chapter(name_is_second=False).verdict


def test_without_a_training_nothing_is_said() -> None:
    outcomes = [Outcome(trial, {}, "it broke") for trial in Callbacks(SETUP).trials()]
    assert "Nothing can be said" in Callbacks(SETUP).conclude(Results(outcomes)).verdict


def test_recording_of_one_fit_is_reached_in_every_way(tmp_path: Path) -> None:
    outcome = run_trial(Callbacks, small_setup(), tmp_path, Trial(GIVEN_TO_FIT))
    assert outcome.error is None
    ways = outcome.values["ways"]
    assert {way: (one["num"] > 0, one["num_unequal"]) for way, one in ways.items()} == dict.fromkeys(
        Way, (True, 0)
    )
    assert outcome.values["name_is_second"]
    assert outcome.values["first_unequal"] == 0
    assert not ways[Way.OPEN_RUN]["has_torch"]


def test_trials_give_each_seed_to_both_places() -> None:
    trials = Callbacks(SETUP).trials()
    assert [one.seed for one in trials if one.variant == GIVEN_TO_LEARNER] == [0, 1, 2]
    assert [one.seed for one in trials if one.variant == KILLED] == [0, 1]
