"""Failures at a high rate, at once and after a warm-up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actograph.data.loaders import Loaders, TensorLoader
from actograph.study.high_start import (
    FACTORS,
    ClassCounts,
    HighStart,
    ladder,
    schedule_of,
)
from actograph.study.high_start_verdict import (
    ABRUPT,
    BOOK_RATE,
    HIGH,
    LOW,
    SGD,
    STEPS,
    WARM,
    WARM_STEPS,
    Group,
    Groups,
    about_prediction,
    sentences_of,
)
from actograph.study.setup import Setup
from actograph.study.study import Results, run_trial
from actograph.study.trial import Outcome, Trial

SETUP = Setup(seeds=3, lr=0.01)
CHANCE = math.log(10)


def few_images(batch_size: int, seed: int) -> Loaders:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 1, 8, 8, generator=generator), torch.arange(60) % 3
    train = TensorLoader(x, y, batch_size, shuffle=True, seed=seed)
    return Loaders(train, TensorLoader(x, y, 60), num_classes=3, input_size=(1, 8, 8))


def values(*, failed: bool, sharp: float = 3.0, felt: float = 1e3, peak: float = 100.0) -> dict[str, Any]:
    looks = [(0, sharp, None), (1, sharp, felt), (10, peak, felt / 2), (40, sharp / 2, felt / 50)]
    trail = [
        {"step": step, "lr": 0.06, "sharpness": raw, "preconditioned": told, "bound": 100.0}
        for step, raw, told in looks
    ]
    return {
        "lr": 0.06, "final_loss": CHANCE if failed else 0.5, "chance_loss": CHANCE, "failed": failed, "diverged": False,
        "start_sharpness": sharp, "trail": trail, "near_zero": 0.5, "dead_units": 0.9 if failed else 0.1,
        "dead_layers": ["act"] if failed else [],
    }  # fmt: skip


def made(fails: Mapping[tuple[str, float], int], **options: Mapping[str, float]) -> Results:
    """Return outcomes of the study's own trials, in which the first seeds of a kind and factor fail."""
    outcomes = []
    for trial in HighStart(SETUP).trials():
        key = (str(trial.options["kind"]), float(trial.options["factor"]))
        spread = 1 + trial.seed / 100
        told = {name: value * spread for name, value in options.get(key[0].split()[0], {}).items()}
        outcomes.append(Outcome(trial, values(failed=trial.seed < fails.get(key, 0), **told)))
    return Results(outcomes)


def verdict(fails: Mapping[tuple[str, float], int], **options: Mapping[str, float]) -> str:
    return " ".join(sentences_of(Groups.of(made(fails, **options)), SETUP))


SHARP_AT_ONCE = {"at": {"felt": 1e6}, "warm-up": {"felt": 1e3}}


def test_more_failures_at_once_are_laid_to_beginning_with_the_rate() -> None:
    told = verdict({(ABRUPT, HIGH): 11, (ABRUPT, 12.0): 12, (WARM, 12.0): 4}, **SHARP_AT_ONCE)
    assert "11 of 12 trainings fail" in told
    assert "fails less often where it is not begun with" in told
    assert "At 0.06 4 of 12 fail after the warm-up as well" in told
    assert "without a living unit" in told
    assert "that it is the cause was not tested" in told
    assert "at once (none of 12, which still allows 24 %)" in told
    assert "less by a factor of" in told


def test_a_warm_up_that_does_harm_is_told() -> None:
    assert "the warm-up does harm" in verdict({(WARM, HIGH): 12}, **SHARP_AT_ONCE)


def test_failure_rates_that_overlap_are_not_told_apart() -> None:
    told = verdict({(ABRUPT, HIGH): 2}, **SHARP_AT_ONCE)
    assert "cannot be told whether the warm-up helps" in told
    assert "moves the limit" not in told


def test_without_any_failure_nothing_is_said_of_dead_units_and_prediction_cannot_be_asked() -> None:
    told = verdict({}, **SHARP_AT_ONCE)
    assert "living unit" not in told
    assert "cannot be asked at 0.06, where none do" in told


def test_where_sgd_fails_is_told_against_its_bound() -> None:
    too_early = {(SGD, factor): 6 for factor in (0.25, 1.0, 4.0)}
    told = verdict(too_early, **SHARP_AT_ONCE)
    assert "at 0.25 times that bound; 0.0625 times it is the highest rate tried without a failure" in told
    assert "promise too much" in told
    assert "about where the first weights say" in verdict({(SGD, 4.0): 6}, **SHARP_AT_ONCE)
    assert "cannot be told where it breaks" in verdict({(SGD, 4.0): 1}, **SHARP_AT_ONCE)


def test_plain_sgd_that_has_not_begun_to_learn_is_told_from_what_failed() -> None:
    results = made({(SGD, 0.25): 6}, **SHARP_AT_ONCE)
    for one in results.outcomes:
        if one.trial.options["kind"] == SGD and not one.values["failed"] and one.trial.seed < 4:
            one.values["final_loss"] = CHANCE  # type: ignore[index]
    told = " ".join(sentences_of(Groups.of(results), SETUP))
    assert "(4 of 6 have not begun to learn there by step 80, unbroken)" in told


def test_the_way_of_the_sharpness_is_told_in_either_direction() -> None:
    told = verdict({}, **SHARP_AT_ONCE)
    assert "the sharpness falls by a factor of 2 (" in told  # of the synthetic trail
    assert "by way of 101 at step 10" in verdict({}, **{"warm-up": {"peak": 100.0}})


def test_a_sharpness_that_parts_failed_seeds_from_others_predicts_them() -> None:
    def group(ratio: float) -> Groups:
        seeds = {
            seed: values(failed=seed < 6, sharp=(ratio if seed < 6 else 1.0) + seed / 100)
            for seed in range(12)
        }
        return Groups([Group(ABRUPT, HIGH, seeds)], [])

    assert "does tell: it is larger for the failed one in 100 %" in about_prediction(group(3.0))[0]
    assert "does not tell, as far as 12 seeds can show" in about_prediction(group(1.05))[0]


def test_trainings_that_all_died_leave_a_sentence_that_says_so() -> None:
    outcomes = [
        Outcome(trial, {}, "RuntimeError: no")
        if trial.options["factor"] == HIGH
        else Outcome(trial, values(failed=False))
        for trial in HighStart(SETUP).trials()
    ]
    assert (
        "cannot be told: the trainings at the high rate did not come through"
        in HighStart(SETUP).conclude(Results(outcomes)).verdict
    )


def test_the_books_rate_is_on_the_ladder_whatever_was_found() -> None:
    assert ladder(SETUP) == sorted(FACTORS)
    assert BOOK_RATE in [pytest.approx(factor * 0.002) for factor in ladder(Setup(lr=0.002))]


def test_the_warm_up_rises_in_a_line_and_then_stays() -> None:
    rates = [schedule_of(WARM, 0.4)(step / STEPS) for step in range(STEPS)]
    assert rates[0] == pytest.approx(0.4 / WARM_STEPS)
    assert np.allclose(np.diff(rates[:WARM_STEPS]), rates[1] - rates[0])
    assert set(rates[WARM_STEPS:]) == {0.4}


def test_chance_is_the_least_loss_of_a_constant_prediction() -> None:
    counts = ClassCounts(3)
    counts._counts = torch.tensor([1, 3, 0])
    logits = torch.tensor([[0.25, 0.75, 1e-30]]).log().expand(4, 3)
    expected = float(torch.nn.CrossEntropyLoss()(logits, torch.tensor([0, 1, 1, 1])))
    assert counts.chance_loss() == pytest.approx(expected)
    assert counts.chance_loss(0.3) > expected


@pytest.mark.parametrize(("kind", "factor"), [(WARM, HIGH), (SGD, 0.5)])
def test_a_trial_measures_the_sharpness_along_a_real_training(
    tmp_path: Path, kind: str, factor: float
) -> None:
    setup = Setup(few_images, "mlp", seeds=2, lr=0.01, batch_size=30, network={"hidden": [8]})
    trial = Trial("x", 0, {"kind": kind, "factor": factor, "is_watched": True, "looks": [0, 1, 70]})
    outcome = run_trial(HighStart, setup, tmp_path, trial)
    assert outcome.error is None
    trail = outcome.values["trail"]
    assert [look["step"] for look in trail] == [0, 1, 70]
    assert all(look["sharpness"] > 0 for look in trail)
    assert (trail[1]["preconditioned"] is None) == (kind == SGD)
    assert outcome.values["chance_loss"] == pytest.approx(math.log(3))
    assert (tmp_path / "x-seed0" / "run.db").exists()


def test_low_is_a_variant_without_a_warm_up() -> None:
    kinds = {(trial.options["kind"], trial.options["factor"]) for trial in HighStart(SETUP).trials()}
    assert (ABRUPT, LOW) in kinds
    assert (WARM, LOW) not in kinds
