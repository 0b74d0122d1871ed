"""Rules about data, labels, losses and validation: trainings that are sick, healthy, and near misses, seen by `watch`."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from actograph.callbacks.activation_stats import ActivationStats
from actograph.learner import Learner
from actograph.rules.class_collapse import ClassCollapse
from actograph.rules.data_not_shuffled import DataNotShuffled
from actograph.rules.diagnose import diagnose
from actograph.rules.given import is_normalized_first
from actograph.rules.head_initialization import HeadInitialization
from actograph.rules.inputs_collapsed import InputsCollapsed
from actograph.rules.inputs_not_normalized import InputsNotNormalized
from actograph.rules.label_noise import LabelNoise
from actograph.rules.labels import label_counts
from actograph.rules.labels_misaligned import LabelsMisaligned
from actograph.rules.loss_diverging import LossDiverging
from actograph.rules.loss_sign_flipped import LossSignFlipped
from actograph.rules.non_finite_input import NonFiniteInput
from actograph.rules.overfitting import Overfitting
from actograph.rules.rule import Abstention, Finding, Rule, Severity
from actograph.rules.softmax_before_cross_entropy import SoftmaxBeforeCrossEntropy
from actograph.rules.summed_loss import SummedLoss
from actograph.rules.targets_not_scaled import TargetsNotScaled
from actograph.rules.train_valid_leak import TrainValidLeak
from actograph.rules.wrong_loss import WrongLoss
from actograph.runlog.view import RunView
from actograph.testing.rules import check_rule
from tests.rules.watched import (
    BATCH,
    CLASSES,
    HEALTHY,
    HEALTHY_LINE,
    Data,
    Training,
    classifier,
    clusters,
    normed,
    regressor,
)

pytestmark = pytest.mark.xdist_group("labels")  # one process trains what they share

RULES: tuple[Rule, ...] = (
    InputsNotNormalized(),
    LabelsMisaligned(),
    LabelNoise(),
    TrainValidLeak(),
    WrongLoss(),
    SummedLoss(),
    LossSignFlipped(),
    TargetsNotScaled(),
    ClassCollapse(),
    Overfitting(),
)


def conforms(
    rule: Rule, sick: list[Training], near: list[Training], healthy: Training = HEALTHY
) -> list[Finding]:
    check_rule(
        rule,
        sick=[one.view for one in sick],
        healthy=healthy.view,
        near_miss=[one.view for one in near],
    )
    found = [next(one for one in rule.check(run.view) if isinstance(one, Finding)) for run in sick]
    for run, finding in zip(sick, found, strict=True):
        top = diagnose(run.view).findings[0]
        assert (top.rule, top.first_step) == (rule.id, finding.first_step), (run.name, top.rule)
    return found


def scaled(data: Data, factor: float, offset: float = 0.0) -> Data:
    return data[0] * factor + offset, data[1]


def sgd(rate: float) -> object:
    return lambda model: torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)


def on_scale(factor: float, offset: float = 0.0, name: str = "", of: Training = HEALTHY) -> Training:
    assert of.valid is not None
    return of.but(
        train=scaled(of.train, factor, offset),
        valid=scaled(of.valid, factor, offset),
        name=name or f"x{factor:g}",
    )


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_healthy_trainings_are_left_alone(rule: Rule) -> None:
    for run in (HEALTHY, HEALTHY_LINE):
        found = [one for one in rule.check(run.view) if isinstance(one, Finding)]
        assert not found, (run.name, found)


# inputs-not-normalized


class Divided(nn.Module):
    """A classifier that divides its input by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.body = classifier()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x / 100)
        return y


def test_inputs_not_normalized_conforms() -> None:
    uneven = (HEALTHY.train[0] * torch.tensor([1e4, *[1.0] * 7]), HEALTHY.train[1])
    found = conforms(
        InputsNotNormalized(),
        [
            on_scale(64, 100),
            on_scale(0.004).but(optimizer=sgd(0.05)),
            HEALTHY.but(train=uneven, valid=None, name="one large feature"),
        ],
        [
            on_scale(64, 100, name="norm").but(model=normed),
            on_scale(100, name="divided inside").but(model=Divided),
            on_scale(3, name="three times too large"),
        ],
    )
    assert found[0].layer == "0"
    assert found[2].evidence["feature"] == 0.0
    strict = InputsNotNormalized(learned=0.0, well=0.0)
    assert [one.rule for one in strict.check(on_scale(64, 100).view)] == [strict.id]
    assert not list(strict.check(on_scale(64, 100).but(model=normed).view))
    assert not list(strict.check(on_scale(100).but(model=Divided).view))


# labels-misaligned


def paired_wrongly(seed: int = 7) -> Data:
    x, y = HEALTHY.train
    return x, y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))]


def rolled_from(t0: int) -> object:
    return lambda step, x, y: (x, y.roll(1) if step >= t0 else y)


def negated_from(t0: int) -> object:
    return lambda step, x, y: (-3 * x if step >= t0 else x, y)


def test_labels_misaligned_conforms() -> None:
    jump = HEALTHY.but(batches=rolled_from(70), steps=140, name="from step 70")
    found = conforms(
        LabelsMisaligned(),
        [
            HEALTHY.but(train=paired_wrongly(), name="all the time"),
            HEALTHY.but(batches=rolled_from(0), valid=None, name="anew each batch"),
            jump,
        ],
        [
            HEALTHY.but(optimizer=sgd(1e-6), name="rate too low"),
            HEALTHY.but(schedule=lambda step: 300.0 if step >= 70 else 1.0, steps=140, name="the rate jumps"),
            HEALTHY.but(batches=negated_from(70), steps=140, name="the inputs change"),
            HEALTHY.but(train=clusters(64, 1, 3.0), valid=clusters(200, 2, 3.0), name="overfitting"),
        ],
    )
    assert [one.first_step for one in found] == [0, 0, 70]
    assert found[2].severity is Severity.ERROR


# label-noise


def noisy(share: float) -> Data:
    x, y = clusters(1200, 1, 0.6)
    random = torch.Generator().manual_seed(5)
    other = torch.randint(CLASSES, (len(y),), generator=random)
    return x, torch.where(torch.rand(len(y), generator=random) < share, other, y)


def test_label_noise_conforms() -> None:
    conforms(
        LabelNoise(),
        [HEALTHY.but(train=noisy(0.5), valid=clusters(200, 2, 0.6), name="half of the labels")],
        [
            HEALTHY.but(train=noisy(0.05), name="a few labels"),
            HEALTHY.but(
                train=clusters(600, 1, 2.5), valid=clusters(200, 2, 2.5), name="classes that overlap"
            ),
            HEALTHY.but(batches=rolled_from(0), name="all labels"),
        ],
    )


def test_mixed_samples_are_not_taken_for_noise() -> None:
    def mixed(outputs: Tensor, y: Tensor) -> Tensor:
        other = y.roll(1, 0)
        return 0.5 * functional.cross_entropy(outputs, y) + 0.5 * functional.cross_entropy(outputs, other)

    view = HEALTHY.but(
        batches=lambda step, x, y: (0.5 * (x + x.roll(1, 0)), y), loss=mixed, valid=None, name="mixup"
    ).view
    assert all(isinstance(one, Abstention) for one in LabelNoise().check(view))
    assert not diagnose(view).at_least(Severity.WARNING)


# train-valid-leak


def leaking(num: int) -> Training:
    assert HEALTHY.valid is not None
    (x, y), (vx, vy) = HEALTHY.train, HEALTHY.valid
    train = torch.cat([x, vx[:num]]), torch.cat([y, vy[:num]])
    return HEALTHY.but(train=train, name=f"{num} samples in both")


def test_train_valid_leak_conforms() -> None:
    few = torch.randint(2, (600, 8), generator=torch.Generator().manual_seed(0)).float()
    found = conforms(
        TrainValidLeak(),
        [leaking(200), leaking(60), leaking(200).but(thinned=8, name="thinned")],
        [
            leaking(3),
            HEALTHY.but(valid=HEALTHY.train, name="the training data themselves"),
            HEALTHY.but(
                train=(few, HEALTHY.train[1]), valid=(few[:200], HEALTHY.train[1][:200]), name="bits"
            ),
            leaking(200).but(
                batches=lambda step, x, y: (x + 0.01 * torch.randn(x.shape), y),
                name="changed at random each time",
            ),
        ],
    )
    assert found[0].evidence["share_of_evaluated_samples"] == 1.0
    assert found[1].evidence["share_of_evaluated_samples"] == pytest.approx(0.3)


# wrong-loss, summed-loss, loss-sign-flipped


def one_hot(outputs: Tensor, y: Tensor) -> Tensor:
    return functional.one_hot(y, CLASSES).to(outputs.dtype)


def squares(outputs: Tensor, y: Tensor) -> Tensor:
    return functional.mse_loss(outputs.softmax(1), one_hot(outputs, y))


def several_labels(outputs: Tensor, y: Tensor) -> Tensor:
    targets = one_hot(outputs, y)
    targets[:, 0] = 1.0
    return functional.binary_cross_entropy_with_logits(outputs, targets)


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_wrong_loss_conforms() -> None:
    found = conforms(
        WrongLoss(),
        [
            HEALTHY.but(loss=squares, optimizer=sgd(0.01), name="squares of probabilities"),
            HEALTHY_LINE.but(
                loss=lambda outputs, y: functional.mse_loss(outputs, y[:, 0]), valid=None, name="broadcast"
            ),
        ],
        [
            HEALTHY.but(loss=squares, name="squares, and it goes well"),
            HEALTHY.but(loss=several_labels, optimizer=sgd(0.01), name="several labels a sample"),
            HEALTHY_LINE,
        ],
    )
    assert found[1].evidence["outputs"] == f"({BATCH}, 1)"


def summed(outputs: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, y, reduction="sum")


def summed_by_hand(outputs: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, y, reduction="none").sum()


def test_summed_loss_conforms() -> None:
    found = conforms(
        SummedLoss(),
        [
            HEALTHY.but(loss=summed, optimizer=sgd(0.2), name="summed"),
            HEALTHY.but(loss=summed_by_hand, optimizer=sgd(0.2), name="summed by hand", valid=None),
        ],
        [
            HEALTHY.but(loss=summed, name="Adam does not mind"),
            HEALTHY.but(optimizer=sgd(5.0), name="a mean, the rate is too high"),
        ],
    )
    assert found[0].remedies[1].new == pytest.approx(0.2 / BATCH)


def negative(outputs: Tensor, y: Tensor) -> Tensor:
    return -functional.cross_entropy(outputs, y)


class Reversed(torch.autograd.Function):
    """A layer whose gradient has the other sign."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return -gradient


def negative_of_reversed(outputs: Tensor, y: Tensor) -> Tensor:
    return -functional.cross_entropy(Reversed.apply(outputs), y)  # type: ignore[no-untyped-call]


def test_loss_sign_flipped_conforms() -> None:
    conforms(
        LossSignFlipped(),
        [
            HEALTHY.but(loss=negative, name="minus"),
            HEALTHY.but(
                optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1e-2, maximize=True),
                name="maximize",
            ),
        ],
        [
            HEALTHY.but(loss=negative_of_reversed, name="the gradient is reversed"),
            HEALTHY.but(optimizer=sgd(5.0), name="the rate is too high"),
        ],
    )


# targets-not-scaled


def in_unit(factor: float, offset: float, name: str) -> Training:
    assert HEALTHY_LINE.valid is not None
    return HEALTHY_LINE.but(
        train=(HEALTHY_LINE.train[0], HEALTHY_LINE.train[1] * factor + offset),
        valid=(HEALTHY_LINE.valid[0], HEALTHY_LINE.valid[1] * factor + offset),
        name=name,
    )


def begun_well() -> nn.Module:
    model = regressor()
    nn.init.constant_(model.get_submodule("2").bias, 100.0)  # type: ignore[arg-type]
    return model


def test_targets_not_scaled_conforms() -> None:
    conforms(
        TargetsNotScaled(),
        [
            in_unit(100, 2000, "thousands"),
            in_unit(100, 2000, "they explode").but(optimizer=sgd(0.05)),
        ],
        [
            in_unit(4, 100, "the bias begins at the mean").but(model=begun_well),
            in_unit(8, 0, "large, learned soon"),
            HEALTHY_LINE.but(batches=lambda step, x, y: (x, y[torch.randperm(len(y))]), name="noise"),
        ],
        HEALTHY_LINE,
    )


# class-collapse, overfitting


def unbalanced(num_rare: int, spread: float = 1.0) -> Data:
    x, y = clusters(3000, 1, spread)
    often, rare = x[y == 0], (x[y != 0][:num_rare], y[y != 0][:num_rare])
    return torch.cat([often, rare[0]]), torch.cat([torch.zeros(len(often), dtype=y.dtype), rare[1]])


def test_class_collapse_conforms() -> None:
    conforms(
        ClassCollapse(),
        [HEALTHY.but(train=unbalanced(6, 2.0), valid=clusters(200, 2, 2.0), name="1 % of rare classes")],
        [
            HEALTHY.but(train=unbalanced(160), name="16:1, found all the same"),
            HEALTHY.but(train=unbalanced(4, 2.0), valid=None, name="too few to tell"),
            HEALTHY.but(optimizer=sgd(1e-6), name="nothing learned, balanced"),
        ],
    )


def test_overfitting_conforms() -> None:
    few = HEALTHY.but(
        train=clusters(64, 1, 2.5),
        valid=clusters(200, 2, 2.5),
        model=wide,
        steps=300,
        every=15,
        name="few samples",
    )
    (finding,) = conforms(
        Overfitting(),
        [few],
        [
            HEALTHY.but(
                train=clusters(600, 1, 2.5), valid=clusters(200, 2, 2.5), name="hard, enough samples"
            ),
            HEALTHY.but(train=clusters(50, 1), valid=None, steps=200, name="learned by heart on purpose"),
        ],
    )
    lowest = finding.evidence["lowest_validation_loss"]
    series = few.view.scalar("loss", "valid")
    assert lowest == series.values.min()
    assert finding.first_step == series.steps[series.values.argmin()]


def wide() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 128), nn.ReLU(), nn.Linear(128, CLASSES))


# What a thinned run sees


def test_a_thinned_run_names_the_step_at_which_inputs_went_bad() -> None:
    thinned = HEALTHY.but(thinned=25, steps=100, valid=None)
    blank = thinned.but(batches=lambda step, x, y: (x * (step < 61), y))
    nan = thinned.but(batches=lambda step, x, y: (x / (step < 61), y))
    for rule, run in ((InputsCollapsed(), blank), (NonFiniteInput(), nan)):
        assert run.view.info.cost.steps_recorded == 4
        finding = next(one for one in rule.check(run.view) if isinstance(one, Finding))
        assert (finding.first_step, finding.severity) == (61, Severity.ERROR)


def test_no_rule_of_these_speaks_about_another_ones_fault() -> None:
    sick = (
        HEALTHY.but(train=noisy(0.5), name="noise"),
        leaking(200),
        in_unit(100, 2000, "targets"),
        HEALTHY.but(loss=negative, name="minus"),
    )
    expected = ("label-noise", "train-valid-leak", "targets-not-scaled", "loss-sign-flipped")
    for (run, rule_id), rule in itertools.product(zip(sick, expected, strict=True), RULES):
        if rule.id != rule_id:
            found = [one for one in rule.check(run.view) if isinstance(one, Finding)]
            assert not [one for one in found if one.severity >= Severity.WARNING], (run.name, found)


def learned(train: Data, **options: Any) -> RunView:
    """A fit of our own `Learner`, in which no loss function is seen but the one that it was given."""
    valid = clusters(200, 2, 0.6)
    first, second = (
        DataLoader(TensorDataset(*part), BATCH, shuffle=True, generator=torch.Generator().manual_seed(0))
        for part in (train, valid)
    )
    stats = ActivationStats(budget=None)
    factory = functools.partial(torch.optim.Adam, **options)
    learn = Learner(
        classifier(), (first, second), functional.cross_entropy, opt_func=factory, callbacks=[stats]
    )
    learn.fit(3, lr=1e-2)
    return stats.view


@pytest.mark.parametrize(("train", "options", "expected"), [
    (noisy(0.5), {}, ["label-noise"]),
    (clusters(1200, 1, 0.6), {"maximize": True}, ["loss-sign-flipped"]),
    (clusters(1200, 1, 0.6), {}, []),
])  # fmt: skip
def test_the_learner_says_what_a_backward_begins_with(
    train: Data, options: dict[str, Any], expected: list[str]
) -> None:
    diagnosis = diagnose(learned(train, **options))
    assert [finding.rule for finding in diagnosis.at_least(Severity.WARNING)] == expected


# probabilities where a loss takes logits, or their logarithms


def binary(outputs: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(outputs, y)


def likelihood(outputs: Tensor, y: Tensor) -> Tensor:
    return functional.nll_loss(outputs, y)


YES_OR_NO = HEALTHY.but(
    train=(clusters(1200, 1)[0], (clusters(1200, 1)[1] % 2).float()[:, None]),
    valid=None,
    model=regressor,
    loss=binary,
    name="one class against the other",
)


def sigmoid_first(outputs: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(outputs.sigmoid().view(-1, 1), y)


def test_a_sigmoid_before_a_loss_that_takes_logits_is_found_whatever_its_values() -> None:
    conforms(
        SoftmaxBeforeCrossEntropy(),
        [YES_OR_NO.but(loss=sigmoid_first, name="sigmoid twice")],
        [
            YES_OR_NO.but(
                loss=lambda outputs, y: functional.binary_cross_entropy(outputs.sigmoid(), y),
                name="sigmoid once",
            ),
            YES_OR_NO.but(model=shifted, name="logits between 0 and 1"),
        ],
    )


def shifted() -> nn.Module:
    class Within(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 0.5 + 0.4 * torch.tanh(x)

    return nn.Sequential(regressor(), Within())


def real_and_made_up(outputs: Tensor, y: Tensor) -> Tensor:
    both = [outputs[y == value] for value in (1, 0)]
    parts = zip(both, (1.0, 0.0), strict=True)
    return sum(  # type: ignore[return-value]
        functional.binary_cross_entropy_with_logits(part, torch.full_like(part, value))
        for part, value in parts
    )


def test_binary_labels_are_looked_at_for_their_order_unless_a_step_has_several_losses() -> None:
    x, y = YES_OR_NO.train
    order = y.flatten().argsort(stable=True)
    in_order = YES_OR_NO.but(train=(x[order], y[order]), shuffle=False, name="in order")
    (found,) = conforms(DataNotShuffled(), [in_order], [YES_OR_NO, HEALTHY])
    assert found.evidence["pairs_alike_overall"] == pytest.approx(0.55, abs=0.05)
    adversarial = YES_OR_NO.but(loss=real_and_made_up, name="a loss for each label")
    (labels,) = label_counts(adversarial.view)
    assert labels.num_batches == 0
    assert labels.counts.min() > 0.3 * labels.counts.sum()


def test_nll_of_probabilities_and_of_logits_is_no_likelihood() -> None:
    conforms(
        WrongLoss(),
        [
            HEALTHY.but(
                loss=lambda outputs, y: functional.nll_loss(outputs.softmax(1), y), name="no logarithm"
            ),
            HEALTHY.but(loss=likelihood, name="no softmax"),
        ],
        [
            HEALTHY.but(
                loss=lambda outputs, y: functional.nll_loss(outputs.log_softmax(1), y), name="as it is meant"
            )
        ],
    )


# what is told of regressions, small gaps, and losses of one's own


def smooth(outputs: Tensor, y: Tensor) -> Tensor:
    return functional.smooth_l1_loss(outputs, y)


def test_labels_misaligned_sees_regressions() -> None:
    x, y = HEALTHY_LINE.train
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(7))
    jump = HEALTHY_LINE.but(batches=rolled_from(80), steps=160, name="numbers from step 80")
    found = conforms(
        LabelsMisaligned(),
        [
            HEALTHY_LINE.but(train=(x, y[order]), name="numbers of others"),
            jump,
        ],
        [
            HEALTHY_LINE.but(loss=smooth, name="another loss"),
            HEALTHY_LINE.but(optimizer=sgd(1e-6), name="weights that stand still"),
            HEALTHY_LINE.but(batches=negated_from(80), steps=160, name="other inputs"),
        ],
        healthy=HEALTHY_LINE,
    )
    assert [one.first_step for one in found] == [0, 80]
    assert diagnose(jump.view).findings[0].severity is Severity.ERROR


def test_one_large_feature_is_not_mended_by_a_norm_behind_the_first_layer() -> None:
    x, y = HEALTHY.train
    uneven = HEALTHY.but(
        train=(x * torch.tensor([1e4, *[1.0] * 7]), y), valid=None, model=normed, name="uneven, with a norm"
    )
    conforms(InputsNotNormalized(), [uneven], [uneven.but(model=norm_first, name="a norm in front")])


def norm_first() -> nn.Module:
    return nn.Sequential(nn.BatchNorm1d(8), *classifier())  # type: ignore[misc]


class PassedBy(nn.Module):
    """A norm on a branch, beside which the input goes straight on."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Linear(8, 32), nn.LayerNorm(32)
        self.fc, self.head = nn.Linear(32, 32), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        y: Tensor = self.head(h + torch.relu(self.fc(self.norm(h))))
        return y


def test_a_norm_that_a_shortcut_passes_by_excuses_no_input() -> None:
    assert not is_normalized_first(HEALTHY.but(model=PassedBy, name="passed by").view)
    assert is_normalized_first(HEALTHY.but(model=normed, name="norm").view)


def test_a_small_gap_between_training_and_validation_is_a_note() -> None:
    easy = HEALTHY.but(
        train=clusters(200, 1, 0.9),
        valid=clusters(60, 5, 0.9),
        model=wide,
        steps=400,
        every=20,
        name="few to judge by",
    )
    said = [one for one in Overfitting(rise=0.0, noise=0.0).check(easy.view) if isinstance(one, Finding)]
    assert [one.severity for one in said] == [Severity.NOTE]
    assert said[0].evidence["training_loss_at_end"] < said[0].evidence["validation_loss_at_end"]  # type: ignore[operator]


def test_an_objective_that_changes_its_sign_is_no_loss_that_diverges() -> None:
    def objective(outputs: Tensor, y: Tensor) -> Tensor:
        value = -outputs.softmax(1).gather(1, y[:, None]).mean()
        return value + (-2.0 if next(steps) < 60 else 2.0)

    steps = itertools.count()
    rising = HEALTHY.but(loss=objective, valid=None, name="objective")
    answers = list(LossDiverging().check(rising.view))
    assert [type(one) for one in answers] == [Abstention]

    def above(outputs: Tensor, y: Tensor) -> Tensor:
        return objective(outputs, y) + 10.0

    steps = itertools.count()
    assert [type(one) for one in LossDiverging(rise=0.2).check(rising.but(loss=above).view)] == [Finding]


def sure_regressor() -> nn.Module:
    model = regressor()
    with torch.no_grad():
        model[2].weight.mul_(20.0)  # type: ignore[index]
    return model


def test_a_wild_start_of_a_regression_is_told_by_its_first_error() -> None:
    (found,) = conforms(
        HeadInitialization(),
        [HEALTHY_LINE.but(model=sure_regressor, optimizer=sgd(1e-3), name="a sure head")],
        [],
        healthy=HEALTHY_LINE,
    )
    assert float(found.evidence["first_error_over_variance"]) > 1.8
