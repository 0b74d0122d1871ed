from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from actograph.errors import UsageError
from actograph.study.chapter import Chapter
from actograph.study.ladder import ladder, set_input_scale
from actograph.study.saturation import ACTS, DEPTHS, STARTS, Saturation, log_ratio, relation, variant
from actograph.study.setup import Setup
from actograph.study.study import Results
from actograph.study.trial import Outcome, Trial
from tests.study.helpers import small_data, small_model, small_setup

NUM_SEEDS = 3


def concluded(numbers: Mapping[str, Any]) -> Chapter:
    """Return the chapter of made-up trainings; ``numbers`` are functions of the trial that replace the usual ones."""
    study = Saturation(Setup(seeds=NUM_SEEDS, epochs=1, lr=0.01))
    outcomes = []
    for trial in study.trials():
        values = {name: numbers.get(name, usual)(trial) for name, usual in USUAL.items()}
        values["gradients"] = values["flat_layers"] = [1.0] * trial.options["depth"]
        outcomes.append(Outcome(trial, values))
    return study.conclude(Results(outcomes))


def jitter(trial: Trial, size: float = 1e-3) -> float:
    return size * math.sin(7.0 * trial.seed + len(trial.variant))


def unevenness(trial: Trial) -> float:
    return 0.0 if trial.options["norm"] else float(trial.options["depth"])


def accuracy_by_gradients(trial: Trial) -> float:
    return 0.95 - 0.05 * unevenness(trial) + jitter(trial)


USUAL: dict[str, Any] = {
    "accuracy": accuracy_by_gradients,
    "tails_start": lambda trial: 0.3 if trial.options["act"] == "tanh" else 0.0,
    "tails": lambda trial: 0.3 if trial.options["act"] == "tanh" else 0.0,
    "zero_start": lambda trial: 0.5 if trial.options["act"] == "relu" else 0.0,
    "zero": lambda trial: 0.5 if trial.options["act"] == "relu" else 0.0,
    "near_zero_start": lambda trial: 0.0 if trial.options["act"] == "sigmoid" else 0.4,
    "near_zero": lambda trial: 0.0,
    "dead": lambda trial: 0.0,
    "ratio_start": lambda trial: -unevenness(trial),
    "ratio": lambda trial: -unevenness(trial),
    "uneven_start": unevenness,
    "uneven": unevenness,
    "flat_layers": lambda trial: [],
    "gradients": lambda trial: [],
}


def test_gradients_are_blamed_where_accuracy_falls_with_them() -> None:
    chapter = concluded({})
    assert chapter.facts["strongest"] == "gradients that shrink or grow over the blocks"
    assert "is “gradients that shrink or grow over the blocks”" in chapter.sentences[0]
    assert chapter.facts["at_first_step"]["gradients that shrink or grow over the blocks"].value < -0.9


def test_tails_are_blamed_where_accuracy_falls_with_them() -> None:
    tails = {
        "tails_start": lambda trial: len(trial.variant) / 100,
        "accuracy": lambda trial: 0.9 - len(trial.variant) / 100 + jitter(trial),
    }
    chapter = concluded(tails)
    assert chapter.facts["strongest"] == "in the saturated tails"


def test_where_accuracy_is_chance_nothing_is_blamed() -> None:
    noise = np.random.default_rng(0)
    chapter = concluded({"accuracy": lambda trial: noise.uniform(0.1, 0.9)})
    assert chapter.facts["strongest"] is None
    assert "No property" in chapter.sentences[0] or "do not tell" in chapter.sentences[0]


def test_a_healthy_network_of_half_zeros_is_named() -> None:
    told = concluded({}).verdict
    assert "has 50 % of its values flat at zero and is among the best" in told


def test_a_network_that_lost_without_a_flat_value_is_named() -> None:
    told = concluded({}).verdict
    assert "“sigmoid, depth 16” begins with hardly a value flat or near zero" in told
    assert "at most 1/4" in told


def test_where_no_network_lost_it_is_said() -> None:
    assert "nothing vanished for good" in concluded({"accuracy": lambda trial: 0.9 + jitter(trial)}).verdict


def test_a_start_that_helps_is_told_from_one_that_harms() -> None:
    def effect(sign: float) -> Any:
        return lambda trial: 0.7 + sign * 0.1 * (trial.options["start"] == 1.0) + jitter(trial)

    what = "relu whose weights are set so that the signal keeps its size has 10.0 points"
    assert f"{what} more accuracy" in concluded({"accuracy": effect(1)}).verdict
    assert f"{what} less accuracy" in concluded({"accuracy": effect(-1)}).verdict


def test_the_effect_of_batch_norm_is_told_with_its_sign() -> None:
    assert "raises accuracy for relu" in concluded({}).verdict
    worse = {"accuracy": lambda trial: 0.5 - 0.2 * (trial.options["norm"] is not None) + jitter(trial)}
    assert "lowers it for relu" in concluded(worse).verdict


def test_the_rank_correlation_is_that_of_the_ranks() -> None:
    x, y = np.array([3.0, 1.0, 2.0, 9.0, 5.0]), np.array([0.2, 0.9, 0.5, 0.1, 0.4])
    outcomes = [
        Outcome(Trial(f"v{index}", 0), {"x": float(a), "accuracy": float(b)})
        for index, (a, b) in enumerate(zip(x, y, strict=True))
    ]
    ranks = [np.argsort(np.argsort(one)) for one in (x, y)]
    assert relation(Results(outcomes), "x") == {0: pytest.approx(np.corrcoef(ranks[0], ranks[1])[0, 1])}


def test_numbers_that_do_not_vary_or_are_nan_have_no_correlation() -> None:
    outcomes = [
        Outcome(Trial(f"v{index}", 0), {"x": 1.0, "nan": math.nan, "accuracy": index / 5})
        for index in range(5)
    ]
    assert relation(Results(outcomes), "x") == {}
    assert relation(Results(outcomes), "nan") == {}


def test_a_gradient_of_zero_is_many_orders_smaller_and_nan_stays_unknown() -> None:
    ratios = log_ratio(np.array([[1e-3, 5.0, 1.0], [0.0, 5.0, 1.0], [np.nan, 5.0, 1.0]]))
    assert ratios[0] == pytest.approx(-3)
    assert ratios[1] == pytest.approx(-30)
    assert math.isnan(ratios[2])


def test_all_blocks_of_a_ladder_give_one_shape() -> None:
    for side in (8, 28, 30, 64):
        shapes: list[torch.Size] = []
        model = ladder(10, (3, side, side + 5), "tanh", 4, "batch")
        for block in list(model.children())[:4]:
            block.register_forward_hook(lambda module, args, output, seen=shapes: seen.append(output.shape))
        assert model(torch.zeros(2, 3, side, side + 5)).shape == (2, 10)
        assert len(shapes) == 4
        assert len(set(shapes)) == 1


@pytest.mark.parametrize("std", [1.0, 10.0])
def test_inputs_of_all_activations_have_the_scale_that_was_set(std: float) -> None:
    torch.manual_seed(0)
    model, x = ladder(3, (1, 8, 8), "relu", 3), torch.randn(20, 1, 8, 8)
    set_input_scale(model, x, std)
    for block in list(model.children())[:3]:
        assert isinstance(block, nn.Sequential)
        y = block[0](x).detach().double().numpy()
        assert math.sqrt(np.square(y - y.mean((0, 2, 3), keepdims=True)).mean()) == pytest.approx(
            std, rel=1e-4
        )
        x = block(x)


def test_a_network_of_the_users_own_is_refused_with_a_remedy() -> None:
    with pytest.raises(UsageError, match="leave --model out"):
        Saturation(Setup(small_data, small_model)).check()


def test_the_whole_plan_is_there_for_every_seed() -> None:
    trials = Saturation(small_setup()).trials()
    assert len(trials) == 2 * len(ACTS) * (2 * len(DEPTHS) + len(STARTS) - 1)
    assert len({trial.folder for trial in trials}) == len(trials)


class Short(Saturation):
    def trials(self) -> list[Trial]:
        names = {
            variant("relu", 2),
            variant("tanh", 2, ", BatchNorm"),
            variant("sigmoid", 8, ", pushed outward"),
        }
        return [trial for trial in super().trials() if trial.variant in names]


def test_a_small_study_runs_from_end_to_end(tmp_path: Path) -> None:
    chapter = Short(small_setup()).run(out=tmp_path)
    assert not chapter.failures
    rows = {str(row[0]): row for row in chapter.tables[2].rows}
    zero, tails = rows["relu, depth 2"][3], rows["relu, depth 2"][2]
    assert isinstance(zero, float)
    assert 0.2 < zero < 0.8
    assert tails == 0.0
    pushed = rows["sigmoid, depth 8, pushed outward"][2]
    assert isinstance(pushed, float)
    assert pushed > 0.4
