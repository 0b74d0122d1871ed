from __future__ import annotations

from pathlib import Path

import pytest
import torch

from actograph.errors import UsageError
from actograph.study.chapter import Chapter
from actograph.study.kernel import LARGE, SMALL, USUAL, WIDE, FirstKernel, first_conv
from actograph.study.kernel_words import FROZEN
from actograph.study.setup import Setup
from actograph.study.study import Results
from actograph.study.trial import Outcome, Trial
from actograph.study.windows import first_layer
from tests.study.helpers import small_data

SEEDS = 3


def concluded(usual: float, fixed: float, wobble: float = 0.002, dead: float = 0.0) -> Chapter:
    study = FirstKernel(Setup(small_data, seeds=SEEDS, epochs=1, lr=0.01))
    means = {SMALL: 0.9, USUAL: usual, LARGE: 0.9, WIDE: 0.9}
    means |= {name + FROZEN: fixed for name in means}
    block = study.build(5, 1, 0, small_data(10, 0)).get_submodule("block1")
    assert isinstance(block, torch.nn.Sequential)
    looked_at = first_layer(block, torch.randn(4, 1, 8, 8))

    def outcome(trial: Trial) -> Outcome:
        sway = wobble * ((trial.seed + list(means).index(trial.variant)) % SEEDS - 1)
        ranks = {f"{name}_{when}": value for name, value in looked_at.items() for when in ("start", "end")}
        ranks["responses_rank_end"] = 5.0 + sway + (trial.variant == USUAL)
        values = {"accuracy": means[trial.variant] + sway, "valid_loss": 0.3, "dead": dead, "near_zero": 0.5}
        return Outcome(trial, {**values, **ranks})

    return study.conclude(Results([outcome(trial) for trial in study.trials()]))


def test_a_larger_kernel_that_gains_is_told_with_its_size() -> None:
    verdict = concluded(0.95, 0.8).verdict
    assert f"A first kernel of {USUAL} has 5.0 points more accuracy than one of {SMALL}" in verdict
    assert f"Learning is worth more to a first layer of {USUAL}" in verdict
    assert "instead of leaving it as it began" in verdict
    assert f"Whether a first kernel of {LARGE} or one of {SMALL} has more accuracy cannot be told" in verdict
    assert f"the answers of {USUAL} differ more than those of {SMALL} (effective rank 6 against 5)" in verdict


def test_a_larger_kernel_that_loses_is_told_too() -> None:
    verdict = concluded(0.85, 0.8).verdict
    assert f"A first kernel of {USUAL} has 5.0 points less accuracy than one of {SMALL}" in verdict
    assert f"Learning is worth less, not more, to a first layer of {USUAL}" in verdict


def test_what_the_seeds_do_not_tell_is_not_claimed() -> None:
    verdict = concluded(0.901, 0.9, wobble=0.02).verdict
    assert f"Whether a first kernel of {USUAL} or one of {SMALL} has more accuracy cannot be told" in verdict
    assert "Whether it matters that the first layer learns" in verdict
    assert "has more to learn" in verdict
    assert "is not shown here" in verdict
    assert "Learning is worth" not in verdict


def test_dead_filters_are_told() -> None:
    assert "No filter of the first layer was dead" in concluded(0.9, 0.9).verdict
    assert "are dead at the end" in concluded(0.9, 0.9, dead=0.25).verdict


def test_a_spread_kernel_begins_from_the_weights_of_the_small_one() -> None:
    study, loaders = FirstKernel(Setup(small_data)), small_data(10, 0)
    small, wide = study.build(3, 1, 4, loaders), study.build(3, 2, 4, loaders)
    assert torch.equal(first_conv(small).weight, first_conv(wide).weight)
    x = torch.zeros(1, 1, 8, 8)
    assert first_conv(small)(x).shape == first_conv(wide)(x).shape


def test_networks_whose_kernel_is_not_known_are_refused() -> None:
    with pytest.raises(UsageError, match="give --model simple_cnn or simple_cnn_bn"):
        FirstKernel(Setup(model="mlp")).check()


def test_a_whole_study_runs_and_a_fixed_layer_stays(tmp_path: Path) -> None:
    chapter = FirstKernel(Setup(small_data, "simple_cnn_bn", 2, epochs=1, batch_size=10, lr=0.01)).run(
        out=tmp_path
    )
    assert not chapter.failures
    assert len(chapter.table.rows) == 4
    outcome = Outcome.load(tmp_path / "trials" / "3-3-fixed-seed0")
    assert outcome is not None
    assert outcome.values["kept_start"] == outcome.values["kept_end"]
    moved = Outcome.load(tmp_path / "trials" / "3-3-seed0")
    assert moved is not None
    assert moved.values["kept_start"] != moved.values["kept_end"]
