from __future__ import annotations

from pathlib import Path

import pytest
import torch

from actograph.data.loaders import Loaders, TensorLoader
from actograph.errors import UsageError
from actograph.study.chapter import Chapter
from actograph.study.filters import (
    CONSTANT,
    DOUBLING,
    EQUAL,
    FULL_UNSTRIDED,
    PACE,
    UNSTRIDED,
    Filters,
    conv_rows,
    level_told,
    total_macs,
)
from actograph.study.setup import Setup
from actograph.study.study import Results
from actograph.study.trial import Outcome, Trial

SEEDS = 3


def images(batch_size: int, seed: int, side: int = 28) -> Loaders:
    torch.manual_seed(0)
    y = torch.arange(30) % 3
    x = torch.randn(30, 1, side, side) + y.view(-1, 1, 1, 1)
    train = TensorLoader(x, y, batch_size, shuffle=True, seed=seed)
    return Loaders(train, TensorLoader(x, y, 30), num_classes=10, input_size=(1, side, side))


def small_images(batch_size: int, seed: int) -> Loaders:
    return images(batch_size, seed, side=8)


def concluded(constant: float, wobble: float = 0.002) -> Chapter:
    study = Filters(Setup(images, seeds=SEEDS, epochs=1, lr=0.01))
    means = {DOUBLING: 0.9, CONSTANT: constant, EQUAL: 0.9, UNSTRIDED: 0.9}

    def outcome(trial: Trial) -> Outcome:
        if trial.variant == PACE:
            return Outcome(
                trial, {"paces": {name: [100.0, 50.0 * (1 + (name == CONSTANT))] for name in means}}
            )
        sway = wobble * ((trial.seed + (trial.variant == DOUBLING)) % SEEDS - 1)
        return Outcome(trial, {"accuracy": means[trial.variant] + sway, "valid_loss": 0.3})

    return study.conclude(Results([outcome(trial) for trial in study.trials()]))


def test_not_doubling_that_costs_accuracy_is_told_with_its_size() -> None:
    verdict = concluded(0.8).verdict
    assert "“constant” has 10.0 points less accuracy than “doubling”" in verdict
    assert "“constant, equal compute” or “doubling” has more accuracy cannot be told" in verdict


def test_not_doubling_that_gains_accuracy_is_told_too() -> None:
    assert "“constant” has 5.0 points more accuracy than “doubling”" in concluded(0.95).verdict


def test_level_compute_is_said_where_it_is_and_no_further() -> None:
    loaders = images(10, 0)
    study = Filters(Setup(images))
    (told,) = level_told(conv_rows(study.build(DOUBLING, 0, loaders), loaders))
    assert (
        "level from convolution 3 to 4 (1 times);" in told
    )  # 2 to 3 is not: 7 x 7 becomes 4 x 4, rounded up
    assert (
        "from convolution 1 to 2 it grows 1.44 times (positions 196 to 49, inputs of a window 25 to 72, filters 8 to 16)"
        in told
    )
    even = images(10, 0, side=64)
    (told,) = level_told(conv_rows(study.build(DOUBLING, 0, even), even))
    assert "stays level from convolution 2 to 3 (1 times) and from convolution 3 to 4 (1 times)" in told
    (told,) = level_told(conv_rows(study.build(CONSTANT, 0, even), even))
    assert "level between no two" in told


def test_equal_compute_is_as_near_as_whole_widths_allow() -> None:
    loaders, study = images(10, 0), Filters(Setup(images))
    wanted = total_macs(conv_rows(study.build(DOUBLING, 0, loaders), loaders))
    rows = conv_rows(study.build(EQUAL, 0, loaders), loaders)
    assert rows[0].window is not None
    width = rows[0].window.filters
    assert width is not None
    gaps = {
        one: abs(total_macs(conv_rows(study._with(0, loaders, [one] * 4), loaders)) - wanted)
        for one in (width - 1, width, width + 1)
    }
    assert min(gaps, key=lambda one: gaps[one]) == width


def test_without_stride_the_grid_stays_and_compute_is_counted_by_hand() -> None:
    loaders, study = small_images(10, 0), Filters(Setup(small_images))
    rows = conv_rows(study.build(FULL_UNSTRIDED, 0, loaders), loaders)
    assert all(row.grid == row.predicted_grid == (8, 8) for row in rows)
    assert [row.macs for row in rows] == [
        64 * inputs * filters for inputs, filters in [(25, 8), (72, 16), (144, 32), (288, 64), (576, 10)]
    ]


def test_networks_whose_widths_are_not_known_are_refused() -> None:
    with pytest.raises(UsageError, match="give --model simple_cnn or simple_cnn_bn"):
        Filters(Setup(model="mlp")).check()


def test_a_whole_study_runs(tmp_path: Path) -> None:
    chapter = Filters(Setup(small_images, "simple_cnn_bn", 2, epochs=1, batch_size=10, lr=0.01)).run(
        out=tmp_path
    )
    assert not chapter.failures
    assert chapter.facts["pace_ratio"][DOUBLING].value == 1.0
    assert len(chapter.tables) == 6
