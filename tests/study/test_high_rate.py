"""What a high rate buys."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from actograph.study.high_rate import CONSTANTS, PEAKS, RISE, HighRate, budgets_of, chance_loss, held
from actograph.study.high_rate_results import CONSTANT, CYCLE, HIGH, LOW, Runs, valid_loss_at
from actograph.study.high_rate_verdict import sentences_of
from actograph.study.setup import Setup
from actograph.study.study import Results
from actograph.study.trial import Outcome, Trial
from tests.study.helpers import small_setup

SETUP = Setup(seeds=4, lr=0.01, epochs=4)
BUDGETS = [1, 2, 4]
CHANCE = math.log(10)

Look = dict[str, float]
Accuracy = Callable[[str, float, int], float]  # of kind, factor and epochs


def flat(kind: str, factor: float, epochs: int) -> float:
    """Nothing matters."""
    return 0.9


def peaked(kind: str, factor: float, epochs: int) -> float:
    """The setup's rate is best, and a cycle at the high rate is better than the low constant one."""
    return 0.95 - 0.05 * abs(math.log10(factor)) + (0.04 if (kind, factor) == (CYCLE, HIGH) else 0.0)


def worse_high(kind: str, factor: float, epochs: int) -> float:
    """The lower the better."""
    return 0.9 - 0.1 * math.log10(factor)


def fading(kind: str, factor: float, epochs: int) -> float:
    """What the high cycle has over the low constant rate, time takes back."""
    return 0.9 - (0.4 / epochs if kind == CONSTANT and factor == LOW else 0.0)


def made(
    accuracy: Accuracy, *, noise: float = 0.001, fails: int = 0, gap: Callable[[float], float] = lambda _: 0.1
) -> Results:
    """Return outcomes of the study's own trials; with the highest peaks the first seeds fail."""
    random = np.random.default_rng(0)
    outcomes = []
    for trial in HighRate(SETUP).trials():
        kind, factor, epochs = (trial.options[name] for name in ("kind", "factor", "epochs"))
        looks: list[Look] = []
        for epoch in range(1, epochs + 1):
            train = 1.0 / epoch
            valid = train * (1 + gap(factor)) + 1e-3 * random.standard_normal()
            right = accuracy(kind, factor, epoch) + noise * random.standard_normal()
            looks.append(
                {"step": 63 * epoch, "train_loss": train, "valid_loss": valid, "accuracy": right, "shown_gap": -0.5}
            )  # fmt: skip
        values = {
            "lr": 1.0,
            "looks": looks,
            "num_samples": 1000,
            "chance_loss": CHANCE,
            "failed": kind == CYCLE and factor >= PEAKS[-2] and trial.seed < fails,
        }
        outcomes.append(Outcome(trial, values))
    return Results(outcomes)


def runs(results: Results) -> Runs:
    return Runs(results, 0.01, BUDGETS)


def verdict(results: Results) -> str:
    return " ".join(sentences_of(runs(results)))


def test_the_best_peak_and_what_cannot_be_told_from_it() -> None:
    assert "0.01 over 4 epochs (95 %; its neighbours are worse, or fail)" in verdict(
        made(lambda kind, factor, epochs: 0.95 - 0.05 * abs(math.log10(factor)))
    )
    assert "from 0.001 to 0.3 none can be told from it" in verdict(made(flat))
    assert "from 0.001 to 0.03 none can be told from it" in verdict(made(flat, fails=1))


def test_the_high_cycle_against_the_low_constant_rate_has_either_sign() -> None:
    assert "against a constant 0.001, at equal budget, changes accuracy by +6" in verdict(made(peaked))
    assert "changes accuracy by -14" in verdict(made(worse_high))
    assert "(at 1, 2 and 4 the seeds do not tell the sign)" in verdict(made(flat, noise=0.05))


def test_an_advantage_that_fades_is_bought_time() -> None:
    assert "fades with the budget" in verdict(made(fading))
    assert "whether a longer budget changes that cannot be told" in verdict(made(peaked))


def test_what_needs_each_other_is_told_from_what_does_not() -> None:
    def together(kind: str, factor: float, epochs: int) -> float:
        return 0.8 + (0.1 if (kind, factor) == (CYCLE, HIGH) else 0.0)

    def apart(kind: str, factor: float, epochs: int) -> float:
        return 0.9 - (0.1 if (kind, factor) == (CONSTANT, LOW) else 0.0)

    assert "they need each other." in verdict(made(together))
    assert "together they gain less than apart" in verdict(made(apart))
    assert "whether they need each other cannot be told" in verdict(made(flat))


def test_the_best_constant_rate_is_a_rival() -> None:
    assert ": the cycle is better." in verdict(made(peaked))
    assert ": the constant rate is better." in verdict(
        made(lambda kind, factor, epochs: 0.9 if kind == CONSTANT else 0.8)
    )
    assert "which of them is better cannot be told" in verdict(made(flat))


def test_steps_to_the_low_rates_accuracy() -> None:
    told = verdict(made(fading))
    assert "has after 252 steps one cycle reaches soonest" in told
    assert (
        "by the median of the trainings after 63: 4 times as soon; a constant 0.003, 0.01 and 0.03 is as soon"
        in told
    )
    assert "no peak reaches in most seeds" in verdict(
        made(lambda kind, factor, epochs: 0.9 if kind == CONSTANT else 0.8)
    )


def test_the_gap_has_either_sign() -> None:
    assert "the high rate widens the gap" in verdict(made(flat, gap=lambda factor: factor / 10))
    assert "the high rate narrows the gap" in verdict(made(flat, gap=lambda factor: 0.1 / factor))
    assert "which the seeds do not tell apart" in verdict(made(flat))
    assert "The losses shown while training have it -0.5" in verdict(made(flat))


def test_at_equal_training_loss_validation_loss_tells_what_generalizes() -> None:
    assert "it generalizes better than by" in verdict(made(flat, gap=lambda factor: 0.1 / factor))
    assert "it generalizes worse" in verdict(made(flat, gap=lambda factor: factor))
    assert "beyond fitting sooner, cannot be told" in verdict(made(flat))


def test_where_trainings_fail() -> None:
    assert "Nothing failed up to the peak of 0.3" in verdict(made(flat))
    told = verdict(made(flat, fails=7))
    assert "Over 1 epoch 7 of 12 (32 % to 81 %) fail with the peak of 0.1" in told
    assert "the highest peak tried below is 0.03, with 0 of 12" in told
    assert "Over 4 epochs 4 of 4" in told


def test_trainings_that_diverge_to_nan_are_told_and_not_raised() -> None:
    results = made(flat, fails=12)
    for one in results.outcomes:
        if one.values["failed"]:
            one.values["looks"][-1].update(train_loss=math.nan, valid_loss=math.nan)
    chapter = HighRate(SETUP).conclude(results)
    assert "12 of 12" in chapter.verdict
    assert "nan" not in chapter.verdict.lower()


def test_without_full_cycles_nothing_is_said() -> None:
    dead = [
        Outcome(one.trial, {}, "RuntimeError: no") if one.trial.options["epochs"] == 4 else one
        for one in made(flat).outcomes
    ]
    assert "Nothing can be said" in HighRate(SETUP).conclude(Results(dead)).verdict


def test_where_the_low_rate_had_a_training_loss_is_interpolated_between_logarithms() -> None:
    looks = [{"train_loss": 2.0**-k, "valid_loss": 3.0**-k} for k in range(3)]
    assert valid_loss_at(looks, 2.0**-1.5) == pytest.approx(3.0**-1.5)
    assert valid_loss_at(looks, 2.0**-1) == pytest.approx(3.0**-1)
    assert valid_loss_at(looks, 0.1) is None
    assert valid_loss_at([{"train_loss": math.nan, "valid_loss": 1.0}] * 2, 0.5) is None


def test_the_interaction_is_what_both_gain_beyond_each() -> None:
    gains = {(CONSTANT, LOW): 0.5, (CONSTANT, HIGH): 0.6, (CYCLE, LOW): 0.7, (CYCLE, HIGH): 0.95}
    found = runs(made(lambda kind, factor, epochs: gains.get((kind, factor), 0.0), noise=1e-9)).interaction()
    assert found.value == pytest.approx(0.95 - 0.6 - 0.7 + 0.5)


def test_only_constant_rates_above_the_setups_rise() -> None:
    assert [held(0.03, 0.01)(progress) for progress in (0.0, RISE, 1.0)] == pytest.approx([0.01, 0.03, 0.03])
    assert [held(0.001, 0.01)(progress) for progress in (0.0, 0.05, 1.0)] == pytest.approx([0.001] * 3)


def test_chance_is_the_loss_of_the_classes_shares() -> None:
    y = torch.tensor([0, 1, 1, 1])
    assert chance_loss(nn.CrossEntropyLoss(), y) == pytest.approx(
        -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    )


def test_budgets_of_few_epochs_are_not_trained_twice() -> None:
    assert [budgets_of(epochs) for epochs in (1, 2, 4, 12)] == [[1], [1, 2], [1, 2, 4], [3, 6, 12]]
    one = HighRate(Setup(seeds=2, lr=0.01, epochs=1))
    assert len(one.trials()) == 2 * (len(PEAKS) + len(CONSTANTS))


def test_it_runs_on_a_few_images_and_a_hopeless_rate_counts_as_failed(tmp_path: Path) -> None:
    class Short(HighRate):
        def trials(self) -> list[Trial]:
            return [one for one in super().trials() if one.options["factor"] in (LOW, HIGH) and one.seed < 2]

    chapter = Short(small_setup(seeds=2, epochs=1, lr=0.03)).run(out=tmp_path)
    assert not chapter.failures
    assert "With one cycle" in chapter.verdict
    looks: Any = HighRate(small_setup()).measure(
        Trial("x", 0, {"kind": CONSTANT, "factor": 1e6, "epochs": 1}), tmp_path / "x"
    )
    assert looks["failed"]
