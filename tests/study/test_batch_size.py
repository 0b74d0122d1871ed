from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from actograph.data.loaders import Loaders, TensorLoader
from actograph.errors import UsageError
from actograph.study import batch_size
from actograph.study.batch_size import BatchSize, FirstBatches
from actograph.study.chapter import Chapter
from actograph.study.setup import Setup
from actograph.study.study import Results
from actograph.study.trial import Outcome, Trial

SEEDS = 3
WOBBLE = (-0.002, 0.0, 0.002)  # between seeds


def images(batch_size: int, seed: int) -> Loaders:
    torch.manual_seed(0)
    y = torch.arange(60) % 3
    x = torch.randn(60, 1, 8, 8) + y.view(-1, 1, 1, 1)
    train = TensorLoader(x, y, batch_size, shuffle=True, seed=seed)
    return Loaders(train, TensorLoader(x, y, 60), num_classes=3, input_size=(1, 8, 8))


def one_size(batch_size: int, seed: int) -> Loaders:
    return images(4, seed)


def concluded(
    time: dict[int, float], scales: tuple[float, ...] = (50.0, 100.0, 400.0), root_gain: float = 0.0
) -> Chapter:
    """Return the chapter of made-up outcomes: accuracy at equal time by size, noise scales along the training."""
    setup = Setup(images, "mlp", SEEDS, epochs=2, batch_size=4, lr=0.01)
    study = BatchSize(setup)
    return study.conclude(Results([_outcome(trial, time, scales, root_gain) for trial in study.trials()]))


def _outcome(trial: Trial, time: dict[int, float], scales: tuple[float, ...], root_gain: float) -> Outcome:
    if trial.variant == "memory":
        return Outcome(
            trial, {"fixed": 1e5, "per_sample": 1e3, "peaks": {"4": 1e4, "16": 8e4}, "why_not": None}
        )
    if trial.variant == "pace":
        return Outcome(trial, {"paces": {"4": [100.0, 110.0], "8": [190.0, 200.0], "16": [200.0, 205.0]}})
    size, rule, budget = trial.options["size"], trial.options["rule"], trial.options["budget"]
    accuracy = time[size] if budget == "time" or size == 4 else {"epochs": 0.7, "steps": 0.95}[budget]
    accuracy += WOBBLE[(trial.seed + (size == 16)) % SEEDS] + (root_gain if rule == "root" else 0.0)
    noise = [
        {"step": step, "signal": 1.0, "noise": scale, "scale": scale * (1 + trial.seed / 50), "low": 1.0, "high": 2.0,
         "pairs": 8, "big_size": 16}
        for step, scale in enumerate(scales) if size == 4 and rule == "same"
    ]  # fmt: skip
    values: dict[str, Any] = {
        "accuracy": accuracy, "valid_loss": 0.1, "size": size, "lr": 0.01, "steps": 30, "epochs_seen": 2.0,
        "is_guessing": rule == "linear", "noise": noise,
    }  # fmt: skip
    return Outcome(trial, values)


def test_sizes_are_a_ladder_that_leaves_steps_in_an_epoch() -> None:
    assert BatchSize(Setup(images, "mlp", batch_size=4)).sizes == [4, 16]
    assert BatchSize(Setup(images, "mlp", batch_size=8)).sizes == [2, 8]
    assert BatchSize(Setup(batch_size=64)).sizes == [16, 64, 256, 1024]


def test_a_size_that_falls_behind_in_equal_time_ends_the_use() -> None:
    chapter = concluded({4: 0.9, 16: 0.8})
    assert chapter.sentences[0].startswith("Batches are useful up to 4 here")
    assert "16 falls 10.0 points behind 4" in chapter.sentences[0]


def test_a_largest_size_that_is_ahead_is_useful_at_least() -> None:
    chapter = concluded({4: 0.8, 16: 0.9})
    assert "useful up to 16 at least" in chapter.sentences[0]
    assert "every other size is shown to reach less" in chapter.sentences[1]


def test_sizes_that_are_alike_leave_it_open() -> None:
    chapter = concluded({4: 0.9005, 16: 0.9})
    assert "cannot be told" in chapter.sentences[0]


def test_equal_epochs_and_equal_steps_are_told_apart() -> None:
    verdict = concluded({4: 0.9, 16: 0.8}).verdict
    assert "A batch of 16 has 20.0 points less accuracy at equal epochs than one of 4" in verdict
    assert "A batch of 16 has 5.0 points more accuracy at equal steps than one of 4" in verdict


@pytest.mark.parametrize(
    ("gain", "told"), [(0.1, "more accuracy than with"), (-0.1, "less accuracy than with")]
)
def test_the_rule_for_the_rate_is_judged_by_its_sign(gain: float, told: str) -> None:
    assert told in concluded({4: 0.9, 16: 0.8}, root_gain=gain).verdict


def test_a_rule_that_makes_no_difference_is_left_open_and_guessing_is_counted() -> None:
    verdict = concluded({4: 0.9, 16: 0.8}, root_gain=0.0).verdict
    assert (
        "Whether the rate should grow with the root of the batch cannot be told at equal epochs for 16."
        in verdict
    )
    assert "leaves 3 of 3 trainings with batches of 16 guessing" in verdict


def test_the_noise_scale_is_followed_and_compared_with_the_sizes() -> None:
    verdict = concluded({4: 0.9, 16: 0.8}, scales=(500.0, 50.0, 10.0)).verdict
    assert "first it falls by a factor of 10 and then it falls by a factor of 5" in verdict
    assert "doubling a batch saves 36 % at 4 and 19 % at 16" in verdict
    assert (
        "first it grows by a factor of 10" in concluded({4: 0.9, 16: 0.8}, scales=(5.0, 50.0, 10.0)).verdict
    )


def test_a_noise_scale_without_a_sign_is_not_told() -> None:
    assert "cannot be told at every point" in concluded({4: 0.9, 16: 0.8}, scales=(50.0, -3.0, 8.0)).verdict


def test_pace_and_memory_are_compared_with_what_was_expected() -> None:
    verdict = concluded({4: 0.9, 16: 0.8}).verdict
    assert "doubling 8 is the first that gives less than 10 %" in verdict
    assert "5 times as much" in verdict


def test_an_epoch_can_have_any_number_of_steps() -> None:
    loader = TensorLoader(torch.arange(5.0), torch.arange(5), 2)
    batches = FirstBatches(loader, 4)
    assert len(batches) == 4
    assert [len(y) for _, y in batches] == [2, 2, 1, 2]


def test_data_that_ignore_the_batch_size_and_bases_without_room_are_refused() -> None:
    with pytest.raises(UsageError, match="follow batch_size"):
        BatchSize(Setup(one_size, "mlp", batch_size=4)).check()
    with pytest.raises(UsageError, match="leaves no other size"):
        BatchSize(Setup(images, "mlp", batch_size=64)).check()


class SameRates(BatchSize):
    """All kinds of trials, fewer of each."""

    def trials(self) -> list[Trial]:
        return [trial for trial in super().trials() if trial.options.get("rule") in (None, "same")]


def test_a_whole_study_runs_on_any_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the process of its own takes seconds to import torch; what runs in it is tested in test_memory.py
    monkeypatch.setattr(
        batch_size, "measured_peaks", lambda setup, loaders, sizes, line: {size: 1e6 * size for size in sizes}
    )
    setup = Setup(images, "mlp", 2, epochs=1, batch_size=8, lr=0.01, network={"hidden": [4]})
    chapter = SameRates(setup).run(out=tmp_path)
    assert not chapter.failures
    assert chapter.facts["accuracy"].keys() == {"epochs", "steps", "time"}
    assert len(chapter.facts["noise_scale"]) == 3
    assert chapter.facts["memory"]["peaks"].keys() == {"2", "4", "8"}
    assert len(chapter.pictures) == 4
