"""Rules on facts: sick trainings they catch with layer and step, healthy ones and near misses they leave alone."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from actograph.recording.recording import Recording
from actograph.rules.batchnorm_statistics_frozen import BatchNormStatisticsFrozen
from actograph.rules.constant_initialization import ConstantInitialization
from actograph.rules.data_not_shuffled import DataNotShuffled
from actograph.rules.detached_graph import DetachedGraph
from actograph.rules.diagnose import diagnose
from actograph.rules.eval_mode_in_training import EvalModeInTraining
from actograph.rules.inputs_collapsed import InputsCollapsed
from actograph.rules.label_never_seen import LabelNeverSeen
from actograph.rules.missing_zero_grad import MissingZeroGrad
from actograph.rules.non_finite_input import NonFiniteInput
from actograph.rules.parameters_not_in_optimizer import ParametersNotInOptimizer
from actograph.rules.rule import Finding, Rule, Severity
from actograph.rules.softmax_before_cross_entropy import SoftmaxBeforeCrossEntropy
from actograph.rules.stale_optimizer import StaleOptimizer
from actograph.rules.train_mode_in_evaluation import TrainModeInEvaluation
from actograph.runlog.schema import RunInfo
from actograph.runlog.store import RunWriter
from actograph.runlog.view import RunView
from actograph.testing.rules import check_rule
from tests.rules.fact_runs import BATCH, CLASSES, FEATURES, HEALTHY, Branches, Run, classifier, plain_data

pytestmark = pytest.mark.xdist_group("facts")  # one process trains what they share

FACT_RULES: tuple[Rule, ...] = (
    EvalModeInTraining(),
    MissingZeroGrad(),
    ParametersNotInOptimizer(),
    StaleOptimizer(),
    DetachedGraph(),
    NonFiniteInput(),
    SoftmaxBeforeCrossEntropy(),
    TrainModeInEvaluation(),
    BatchNormStatisticsFrozen(),
    ConstantInitialization(),
    DataNotShuffled(),
    LabelNeverSeen(),
    InputsCollapsed(),
)


def found_by(rule: Rule, run: Run) -> Finding:
    findings = [one for one in rule.check(run.view()) if isinstance(one, Finding)]
    assert len(findings) == 1, findings
    return findings[0]


def conforms(rule: Rule, sick: list[Run], near: list[Run]) -> None:
    check_rule(
        rule,
        sick=[run.view() for run in sick],
        healthy=HEALTHY.view(),
        near_miss=[run.view() for run in near],
    )


# eval-mode-in-training


def switch(at: int, *, part: str | None = None) -> Callable[[nn.Module, int], None]:
    def before_step(model: nn.Module, step: int) -> None:
        if step == at:
            (model if part is None else model.get_submodule(part)).eval()

    return before_step


def attack_in_eval(model: nn.Module, step: int) -> None:
    """Make an adversarial example, as TRADES does: through the model in evaluation mode."""
    model.eval()
    x = torch.zeros(2, FEATURES, requires_grad=True)
    torch.autograd.grad(model(x).sum(), x)
    model.train()


def freeze_norms(model: nn.Module, step: int) -> None:
    assert isinstance(model, nn.Sequential)
    for part in list(model)[:3]:
        part.requires_grad_(False)
    model[1].eval()


def head_on_a_frozen_trunk() -> nn.Module:
    """Linear probing: the whole model is in evaluation mode, but what depends on the mode is frozen."""
    trunk = nn.Sequential(nn.Linear(FEATURES, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2))
    return nn.Sequential(trunk.requires_grad_(False), nn.Linear(16, CLASSES))


def test_eval_mode_in_training_conforms() -> None:
    conforms(
        EvalModeInTraining(),
        [HEALTHY.but(before_step=switch(15)), HEALTHY.but(before_step=switch(0))],
        [
            HEALTHY.but(before_step=switch(5, part="1"), name="one norm rests"),
            HEALTHY.but(before_step=attack_in_eval, name="adversarial"),
            HEALTHY.but(before_step=freeze_norms, name="frozen norms"),
            HEALTHY.but(model=head_on_a_frozen_trunk, before_step=switch(0), name="frozen trunk"),
            HEALTHY.but(
                model=lambda: nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Linear(8, CLASSES)),
                before_step=switch(0),
                name="no layer depends on the mode",
            ),
        ],
    )


def test_eval_mode_is_named_with_its_first_layer_and_step() -> None:
    finding = found_by(EvalModeInTraining(), HEALTHY.but(before_step=switch(15)))
    assert (finding.layer, finding.first_step, finding.last_step) == ("1", 15, 23)
    assert finding.severity is Severity.ERROR
    assert found_by(EvalModeInTraining(), HEALTHY.but(before_step=switch(0))).severity is Severity.WARNING


def test_eval_mode_is_seen_where_few_steps_are_recorded() -> None:
    finding = found_by(EvalModeInTraining(), HEALTHY.but(before_step=switch(15), every=10))
    assert finding.first_step == 15


# missing-zero-grad


def never(optimizer: torch.optim.Optimizer, step: int) -> None:
    pass


def from_15_on(optimizer: torch.optim.Optimizer, step: int) -> None:
    if step < 15:
        optimizer.zero_grad()


def in_place(optimizer: torch.optim.Optimizer, step: int) -> None:
    optimizer.zero_grad(set_to_none=False)


def through_data(optimizer: torch.optim.Optimizer, step: int) -> None:
    """As old scripts do: torch counts no change of the gradient."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad.data.zero_()


def test_missing_zero_grad_conforms() -> None:
    conforms(
        MissingZeroGrad(),
        [HEALTHY.but(zero=never), HEALTHY.but(zero=from_15_on)],
        [
            HEALTHY.but(micro_batches=4, name="accumulation"),
            HEALTHY.but(micro_batches=4, zero=in_place, name="accumulation, in place"),
            HEALTHY.but(zero=in_place, name="in place"),
            HEALTHY.but(zero=through_data, name="through data"),
        ],
    )


def test_missing_zero_grad_begins_where_the_first_leftover_is_used() -> None:
    assert found_by(MissingZeroGrad(), HEALTHY.but(zero=from_15_on)).first_step == 16
    assert found_by(MissingZeroGrad(), HEALTHY.but(zero=never)).first_step == 1


@pytest.mark.parametrize("set_to_none", [True, False])
def test_two_optimizers_that_zero_before_their_own_backward_leave_nothing_over(*, set_to_none: bool) -> None:
    view = adversarial(set_to_none=set_to_none)
    for rule in FACT_RULES:
        assert not [one for one in rule.check(view) if isinstance(one, Finding)], rule.id


def adversarial(*, set_to_none: bool) -> RunView:
    torch.manual_seed(0)
    maker = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    judge = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(), nn.Dropout(0.1), nn.Linear(8, 1))
    optimizers = [torch.optim.Adam(one.parameters(), lr=1e-3) for one in (judge, maker)]
    with Recording(RunWriter(None, RunInfo("gan")), budget=None) as recording:
        for model in (maker, judge):
            recording.attach(model)
        recording.optimizer(optimizers[1])
        recording.optimizer(optimizers[0])
        for _ in range(20):
            fake = maker(torch.randn(16, 4))
            for optimizer, samples, sign in zip(optimizers, (fake.detach(), fake), (1.0, -1.0), strict=True):
                optimizer.zero_grad(set_to_none=set_to_none)
                loss = sign * (judge(samples).mean() - judge(torch.randn(16, 2)).mean())
                recording.before_backward()
                loss.backward()
                optimizer.step()
    return recording.view()


# parameters-not-in-optimizer, stale-optimizer


def without_first(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(list(model.parameters())[2:], lr=1e-2)


def without_frozen_first(model: nn.Module) -> torch.optim.Optimizer:
    for parameter in list(model.parameters())[:2]:
        parameter.requires_grad_(False)
    return without_first(model)


def of_a_copy(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(deepcopy(model).parameters(), lr=1e-2)


def before_a_new_head(model: nn.Module) -> torch.optim.Optimizer:
    assert isinstance(model, nn.Sequential)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    model[4] = nn.Linear(16, CLASSES)
    return optimizer


def with_a_loose_parameter(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam([*model.parameters(), nn.Parameter(torch.zeros(3))], lr=1e-2)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(FEATURES, FEATURES)
        self.outer = nn.Linear(FEATURES, FEATURES)
        self.outer.weight = self.inner.weight
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.outer(self.inner(x).relu()).relu())


class WithTeacher(nn.Module):
    """A student beside a teacher that gets gradients, which nobody uses."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = classifier(), classifier()

    def forward(self, x: Tensor) -> Any:
        return self.student(x) + 0.0 * self.teacher(x)


def of_the_student(model: nn.Module) -> torch.optim.Optimizer:
    assert isinstance(model, WithTeacher)
    return torch.optim.Adam(model.student.parameters(), lr=1e-2)


def parts(model: nn.Module) -> list[nn.Module]:
    return list(model.children())


def test_parameters_not_in_optimizer_conforms() -> None:
    conforms(
        ParametersNotInOptimizer(),
        [HEALTHY.but(optimizer=without_first)],
        [
            HEALTHY.but(optimizer=without_frozen_first, name="frozen"),
            HEALTHY.but(model=Tied, name="tied"),
            HEALTHY.but(model=WithTeacher, optimizer=of_the_student, watched=parts, name="teacher"),
        ],
    )
    finding = found_by(ParametersNotInOptimizer(), HEALTHY.but(optimizer=without_first))
    assert (finding.layer, finding.first_step) == ("0", 0)
    assert finding.evidence["parameters"] == "0.weight, 0.bias"


def test_parameters_that_leave_the_optimizer_are_named_with_the_step() -> None:
    optimizers: list[torch.optim.Optimizer] = []

    def make(model: nn.Module) -> torch.optim.Optimizer:
        groups = [{"params": list(model.parameters())[:4]}, {"params": list(model.parameters())[4:]}]
        optimizers.append(torch.optim.SGD(groups, lr=0.1))
        return optimizers[-1]

    def drop(model: nn.Module, step: int) -> None:
        if step == 12:
            del optimizers[-1].param_groups[1]

    finding = found_by(ParametersNotInOptimizer(), HEALTHY.but(optimizer=make, before_step=drop))
    assert (finding.layer, finding.first_step) == ("4", 12)


def test_parameters_that_join_the_optimizer_later_are_no_fault() -> None:
    optimizers: list[torch.optim.Optimizer] = []

    def make(model: nn.Module) -> torch.optim.Optimizer:
        optimizers.append(torch.optim.SGD(list(model.parameters())[4:], lr=0.1))
        return optimizers[-1]

    def add(model: nn.Module, step: int) -> None:
        if step == 12:
            optimizers[-1].add_param_group({"params": list(model.parameters())[:4]})

    view = HEALTHY.but(optimizer=make, before_step=add).view()
    assert not list(ParametersNotInOptimizer().check(view))


def test_stale_optimizer_conforms() -> None:
    conforms(
        StaleOptimizer(),
        [HEALTHY.but(optimizer=of_a_copy), HEALTHY.but(optimizer=before_a_new_head)],
        [
            HEALTHY.but(optimizer=with_a_loose_parameter, name="loose parameter"),
            HEALTHY.but(optimizer=without_first, name="incomplete"),
        ],
    )
    view = HEALTHY.but(optimizer=before_a_new_head).view()
    (finding,) = diagnose(view).at_least(Severity.WARNING)
    assert (finding.rule, finding.layer, finding.first_step) == ("stale-optimizer", "4", 0)
    assert [below.rule for below in finding.consequences] == ["parameters-not-in-optimizer"]


# detached-graph


def cut(**how: bool) -> Callable[[], nn.Module]:
    return lambda: Branches(Tensor.detach, **how)


def cut_from(at: int) -> Callable[[nn.Module, int], None]:
    def before_step(model: nn.Module, step: int) -> None:
        assert isinstance(model, Branches)
        model.is_cut = step >= at

    return before_step


def functional_cut() -> nn.Module:
    return Branches(lambda h: (2.0 * h).detach())


class StopGradient(nn.Module):
    """Two views through one encoder, as SimSiam: the gradient of one of them is stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = nn.Linear(FEATURES, 16), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.encoder(x).relu() + self.encoder(x + 0.1).relu().detach())


class TwoInputs(nn.Module):
    """The first branch is computed and not used; the second begins with data of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(FEATURES, CLASSES), nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Any:
        self.first(x)
        return self.second(x)


def test_detached_graph_conforms() -> None:
    same = lambda h: h  # noqa: E731
    conforms(
        DetachedGraph(),
        [
            HEALTHY.but(model=cut()),
            HEALTHY.but(model=lambda: Branches(same, no_grad=True)),
            HEALTHY.but(model=functional_cut),
            HEALTHY.but(model=cut(), before_step=cut_from(15)),
            HEALTHY.but(model=cut(unused=True)),
        ],
        [
            HEALTHY.but(model=lambda: Branches(same, unused=True), name="unused head"),
            HEALTHY.but(model=StopGradient, name="stop-gradient"),
            HEALTHY.but(model=TwoInputs, name="unused first branch"),
            HEALTHY.but(optimizer=without_frozen_first, name="frozen"),
        ],
    )


@pytest.mark.parametrize(
    ("model", "last"),
    [
        (cut(), "trunk.1"),
        (lambda: Branches(lambda h: h, no_grad=True), "trunk.0"),
        (functional_cut, "trunk.0"),
    ],
)
def test_cut_is_named_with_the_layer_before_it_and_the_step(
    model: Callable[[], nn.Module], last: str
) -> None:
    finding = found_by(DetachedGraph(), HEALTHY.but(model=model, before_step=cut_from(15)))
    assert (finding.layer, finding.first_step) == (last, 15)
    assert finding.evidence["cut_before"] == "head"


# non-finite-input, inputs-collapsed


def spoilt(at: int, value: float) -> Callable[[int, torch.Generator], tuple[Tensor, Tensor]]:
    def data(step: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        x, y = plain_data(step, random)
        if step == at:
            x[3, 2] = value
        return x, y

    return data


class Tolerant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = classifier()

    def forward(self, x: Tensor) -> Any:
        return self.inner(x.nan_to_num(0.0, 0.0, 0.0))


def test_non_finite_input_conforms() -> None:
    conforms(
        NonFiniteInput(),
        [HEALTHY.but(data=spoilt(17, torch.nan)), HEALTHY.but(data=spoilt(17, -torch.inf))],
        [
            HEALTHY.but(data=spoilt(17, torch.nan), model=Tolerant, name="missing values"),
            HEALTHY.but(data=spoilt(17, 1e30), name="large"),
        ],
    )
    (finding,) = diagnose(HEALTHY.but(data=spoilt(17, torch.nan)).view()).at_least(Severity.WARNING)
    assert (finding.rule, finding.first_step, finding.layer) == ("non-finite-input", 17, None)
    assert "non-finite-loss" in [below.rule for below in finding.consequences]


def zeros_from(at: int, noise: float = 0.0) -> Callable[[int, torch.Generator], tuple[Tensor, Tensor]]:
    def data(step: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        x, y = plain_data(step, random)
        return (noise * x if step >= at else x), y

    return data


def test_inputs_collapsed_conforms() -> None:
    conforms(
        InputsCollapsed(),
        [HEALTHY.but(data=zeros_from(15)), HEALTHY.but(data=zeros_from(0))],
        [
            HEALTHY.but(data=zeros_from(0, noise=1e-5), name="small"),
            HEALTHY.but(data=lambda s, r: zeros_from(s if s in (5, 20) else 99)(s, r), name="blank batches"),
        ],
    )
    assert found_by(InputsCollapsed(), HEALTHY.but(data=zeros_from(15))).first_step == 15


# softmax-before-cross-entropy


def ended_by(last: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, CLASSES), last)


def test_softmax_before_cross_entropy_conforms() -> None:
    conforms(
        SoftmaxBeforeCrossEntropy(),
        [HEALTHY.but(model=ended_by(nn.Softmax(dim=1)))],
        [
            HEALTHY.but(model=ended_by(nn.Sigmoid()), name="sigmoid"),
            HEALTHY.but(model=ended_by(nn.LogSoftmax(dim=1)), name="log-softmax"),
        ],
    )
    finding = found_by(SoftmaxBeforeCrossEntropy(), HEALTHY.but(model=ended_by(nn.Softmax(dim=1))))
    assert (finding.layer, finding.first_step) == ("3", 0)
    assert finding.evidence["floor_of_the_loss"] == pytest.approx(0.7437, abs=1e-4)  # ln(e + 3) - 1


# train-mode-in-evaluation


def evaluation(
    *, in_eval: bool = False, with_loss: bool = True, phase: str | None = None
) -> Callable[[nn.Module, Recording, int], None]:
    def evaluate(model: nn.Module, recording: Recording, step: int) -> None:
        if step % 10 != 9:
            return
        if phase is not None:
            recording.phase(phase)
        model.train(not in_eval)
        with torch.no_grad():
            output = model(torch.ones(BATCH, FEATURES))
            if with_loss:
                recording.targets(output, torch.zeros(BATCH, dtype=torch.long))
        model.train()
        if phase is not None:
            recording.phase("train")

    return evaluate


def monte_carlo(model: nn.Module, recording: Recording, step: int) -> None:
    model.eval()
    model.get_submodule("3").train()
    with torch.no_grad():
        recording.targets(model(torch.ones(BATCH, FEATURES)), torch.zeros(BATCH, dtype=torch.long))
    model.train()


def test_train_mode_in_evaluation_conforms() -> None:
    conforms(
        TrainModeInEvaluation(),
        [
            HEALTHY.but(evaluate=evaluation()),
            HEALTHY.but(evaluate=evaluation(phase="valid", with_loss=False)),
        ],
        [
            HEALTHY.but(evaluate=evaluation(in_eval=True), name="eval mode"),
            HEALTHY.but(evaluate=evaluation(with_loss=False), name="samples"),
            HEALTHY.but(evaluate=monte_carlo, name="Monte Carlo dropout"),
        ],
    )
    finding = found_by(TrainModeInEvaluation(), HEALTHY.but(evaluate=evaluation()))
    assert (finding.layer, finding.first_step) == ("1", 10)


class Student(nn.Module):
    """A student, and a teacher that follows it: in training mode, without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.teacher = classifier(), classifier()

    def forward(self, x: Tensor) -> Any:
        with torch.no_grad():
            self.teacher(x)
        return self.student(x)


def evaluate_student(model: nn.Module, recording: Recording, step: int) -> None:
    assert isinstance(model, Student)
    model.student.eval()
    with torch.no_grad():
        recording.targets(model.student(torch.ones(BATCH, FEATURES)), torch.zeros(BATCH, dtype=torch.long))
    model.student.train()


def test_teacher_in_training_mode_is_not_taken_for_an_evaluation() -> None:
    view = HEALTHY.but(
        model=Student,
        watched=parts,
        optimizer=lambda m: torch.optim.Adam(m.student.parameters()),
        evaluate=evaluate_student,
    ).view()
    for rule in FACT_RULES:
        assert not [one for one in rule.check(view) if isinstance(one, Finding)], rule.id


# batchnorm-statistics-frozen, constant-initialization


def norm_with(momentum: float) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model = classifier()
        model.get_submodule("1").momentum = momentum  # type: ignore[assignment, unused-ignore]
        return model

    return make


def test_batchnorm_statistics_frozen_conforms() -> None:
    conforms(
        BatchNormStatisticsFrozen(),
        [HEALTHY.but(model=norm_with(0.0))],
        [
            HEALTHY.but(model=norm_with(1e-3), name="slow"),
            HEALTHY.but(before_step=switch(0, part="1"), name="rests in evaluation mode"),
        ],
    )
    assert found_by(BatchNormStatisticsFrozen(), HEALTHY.but(model=norm_with(0.0))).layer == "1"


def constant(*layers: str, value: float) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model = nn.Sequential(
            nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, CLASSES)
        )
        for name in layers:
            nn.init.constant_(model.get_submodule(name).weight, value)  # type: ignore[arg-type]
            nn.init.zeros_(model.get_submodule(name).bias)  # type: ignore[arg-type]
        return model

    return make


def test_constant_initialization_conforms() -> None:
    conforms(
        ConstantInitialization(),
        [
            HEALTHY.but(model=constant("0", "2", "4", value=0.1)),
            HEALTHY.but(model=constant("0", "2", "4", value=0.0)),
        ],
        [
            HEALTHY.but(model=constant("4", value=0.0), name="head of zeros"),
            HEALTHY.but(model=constant("2", value=0.1), name="told apart at once"),
        ],
    )
    finding = found_by(ConstantInitialization(), HEALTHY.but(model=constant("0", "2", "4", value=0.1)))
    assert (finding.layer, finding.first_step) == ("0", 0)


# data-not-shuffled, label-never-seen


def labelled(
    labels: Callable[[int, torch.Generator], Tensor],
) -> Callable[[int, torch.Generator], tuple[Tensor, Tensor]]:
    def data(step: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        y = labels(step, random)
        x = torch.randn(len(y), FEATURES, generator=random)
        x[:, 0] += y
        return x, y

    return data


def by_class(step: int, random: torch.Generator) -> Tensor:
    return torch.full((BATCH,), step // 3 % CLASSES)


def nearly_by_class(step: int, random: torch.Generator) -> Tensor:
    y = by_class(step, random)
    y[torch.randperm(BATCH, generator=random)[:2]] = torch.randint(CLASSES, (2,), generator=random)
    return y


def in_order_of(num_classes: int) -> Callable[[int, torch.Generator], Tensor]:
    """A small sorted data set: each batch has several classes, in order."""
    return lambda step, random: torch.arange(BATCH) * num_classes // BATCH


def pairs_of_classes(step: int, random: torch.Generator) -> Tensor:
    """Tasks of two classes each, one after the other."""
    return 2 * (step // 12) + torch.randint(2, (BATCH,), generator=random)


def numbers_of_samples(step: int, random: torch.Generator) -> Tensor:
    return torch.arange(CLASSES)


def several_of_each(step: int, random: torch.Generator) -> Tensor:
    return torch.randperm(CLASSES, generator=random)[:2].repeat_interleave(BATCH // 2)


def one_dominates(step: int, random: torch.Generator) -> Tensor:
    return (torch.rand(BATCH, generator=random) > 0.95).long()


def test_data_not_shuffled_conforms() -> None:
    ways = (pairs_of_classes, numbers_of_samples, several_of_each, one_dominates, in_order_of(CLASSES))
    conforms(
        DataNotShuffled(),
        [HEALTHY.but(data=labelled(by_class)), HEALTHY.but(data=labelled(nearly_by_class))],
        [HEALTHY.but(data=labelled(way), name=getattr(way, "__name__", "")) for way in ways],
    )


def without(*classes: int) -> Callable[[int, torch.Generator], Tensor]:
    known = torch.tensor([one for one in range(CLASSES) if one not in classes])
    return lambda step, random: known[torch.randint(len(known), (BATCH,), generator=random)]


def ignoring_last(recording: Recording, output: Tensor, y: Tensor) -> Tensor:
    recording.targets(output, y, CLASSES - 1)
    return functional.cross_entropy(output, y, ignore_index=CLASSES - 1)


def test_label_never_seen_conforms() -> None:
    conforms(
        LabelNeverSeen(),
        [HEALTHY.but(data=labelled(without(0))), HEALTHY.but(data=labelled(without(CLASSES - 1)))],
        [
            HEALTHY.but(data=labelled(without(1)), name="in the middle"),
            HEALTHY.but(data=labelled(without(2, 3)), name="two of them"),
            HEALTHY.but(data=labelled(without(CLASSES - 1)), loss=ignoring_last, name="ignored"),
            HEALTHY.but(data=labelled(by_class), steps=9, name="sorted, its turn has not come"),
        ],
    )
    assert found_by(LabelNeverSeen(), HEALTHY.but(data=labelled(without(0)))).evidence["class"] == 0


def test_healthy_training_has_no_fact_that_a_rule_looks_at() -> None:
    view = HEALTHY.view()
    for rule in FACT_RULES:
        assert not [one for one in rule.check(view) if isinstance(one, Finding)], rule.id
