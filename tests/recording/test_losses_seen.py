"""Facts of losses: what was compared, what came of it, who was evaluated, and which samples were in both."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from actograph.observe.watch import watch
from actograph.recording.facts.loss_call import PLACES, LossCall, loss_call_of
from actograph.recording.facts.outcomes import NUM_PARTS, Part, Task, num_parts, outcome_of, task_of
from actograph.recording.facts.samples import MAX_SAMPLES, SampleSet, fingerprints
from actograph.runlog.facts import Fact, FactKind
from actograph.runlog.view import RunView

CLASSES, BATCH = 4, 6


def numpy_outcome(logits: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    """Count in float64, sample by sample."""
    parts = np.zeros(num_parts(Task.CLASSES))
    for row, label in zip(logits.astype(np.float64), labels, strict=True):
        chance = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        best = int(chance.argmax())
        parts[Part.SAMPLES] += 1
        parts[Part.CORRECT] += best == label
        parts[Part.SURPRISE] -= math.log(chance[label])
        parts[Part.CONTRADICTED] += chance[best] > 0.9 and chance[label] < 0.05
        parts[Part.UNLIKELY] += chance[label] < 1 / len(row)
        parts[Part.CONFIDENCE] += chance[best]
    return parts


def test_outcome_of_classes_is_what_numpy_counts() -> None:
    torch.manual_seed(0)
    calls = [
        LossCall("cross_entropy", 4 * torch.randn(BATCH, CLASSES), torch.randint(CLASSES, (BATCH,)))
        for _ in range(3)
    ]
    outcome = outcome_of(calls)
    assert outcome is not None
    size = num_parts(Task.CLASSES)
    for number, call in enumerate(calls):
        assert isinstance(call.outputs, Tensor)
        assert isinstance(call.targets, Tensor)
        expected = numpy_outcome(call.outputs.numpy(), call.targets.numpy())
        got = outcome.numbers[number * size : (number + 1) * size].numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    confusion = outcome.numbers[3 * size :].reshape(CLASSES, CLASSES)
    expected_confusion = np.zeros((CLASSES, CLASSES))
    for call in calls:
        assert isinstance(call.outputs, Tensor)
        assert isinstance(call.targets, Tensor)
        for row, label in zip(call.outputs, call.targets, strict=True):
            expected_confusion[int(label), int(row.argmax())] += 1
    assert np.array_equal(confusion.numpy(), expected_confusion)


def test_a_class_that_is_left_out_does_not_count() -> None:
    outputs = torch.randn(4, CLASSES, 3)
    targets = torch.randint(CLASSES, (4, 3))
    targets[0] = -100
    outcome = outcome_of([LossCall("cross_entropy", outputs, targets)])
    assert outcome is not None
    assert outcome.numbers[Part.SAMPLES] == 9
    assert outcome.numbers[num_parts(Task.CLASSES) :].sum() == 9


def test_one_output_is_a_classification_of_two() -> None:
    outputs, targets = torch.tensor([[-3.0], [2.0], [1.0]]), torch.tensor([[0.0], [1.0], [0.0]])
    for name, given in (
        ("binary_cross_entropy_with_logits", outputs),
        ("binary_cross_entropy", outputs.sigmoid()),
    ):
        outcome = outcome_of([LossCall(name, given, targets)])
        assert outcome is not None
        assert outcome.num_classes == 2
        assert outcome.numbers[Part.CORRECT] == 2
        expected = functional.binary_cross_entropy_with_logits(outputs, targets, reduction="sum")
        assert outcome.numbers[Part.SURPRISE] == pytest.approx(float(expected), rel=1e-5)


def test_numbers_are_what_numpy_says() -> None:
    torch.manual_seed(0)
    outputs, targets = torch.randn(20, 1), 3 + 2 * torch.randn(20, 1)
    outcome = outcome_of([LossCall("mse_loss", outputs, targets)] * 2)
    assert outcome is not None
    x, y = outputs.numpy().astype(np.float64), targets.numpy().astype(np.float64)
    got = outcome.numbers[NUM_PARTS:].numpy()
    expected = [y.mean(), y.std(), x.mean(), x.std(), x.min(), x.max(), ((x - y) ** 2).mean()]
    np.testing.assert_allclose(got[Part.TARGET_MEAN : Part.ERROR + 1], expected, rtol=1e-5)


def test_one_hot_targets_are_told_from_several_labels() -> None:
    outputs = torch.randn(5, CLASSES)
    one = functional.one_hot(torch.arange(5) % CLASSES, CLASSES).float()
    several = one.clone()
    several[0] = 1.0
    for targets, share in ((one, 1.0), (several, 0.8), (torch.rand(5, CLASSES), 0.0)):
        outcome = outcome_of([LossCall("mse_loss", outputs, targets)])
        assert outcome is not None
        assert outcome.numbers[Part.ONE_HOT] == pytest.approx(share)


def test_what_cannot_be_compared_has_no_task() -> None:
    x = torch.randn(4, CLASSES)
    assert task_of(LossCall("cross_entropy", x, "no tensor")) is None
    assert task_of(LossCall("mse_loss", x, torch.randn(4))) is None
    assert task_of(LossCall("cross_entropy", torch.randn(CLASSES), torch.tensor(1))) is None
    assert task_of(LossCall("mse_loss", x, x)) is Task.SCORES


def test_calls_of_modules_and_functions_are_known() -> None:
    x, y = torch.randn(4, CLASSES), torch.zeros(4, dtype=torch.long)
    call = loss_call_of(nn.CrossEntropyLoss(ignore_index=2, reduction="sum", label_smoothing=0.1), x, y)
    assert call is not None
    assert (call.name, call.ignored, call.reduction, call.smoothing) == ("cross_entropy", 2, "sum", 0.1)
    assert loss_call_of(functional.huber_loss, x, x) is not None
    assert loss_call_of(lambda a, b: a, x, y) is None


# Fingerprints


def test_fingerprints_are_of_the_sample_alone() -> None:
    torch.manual_seed(0)
    x = torch.randn(500, 3, 20, 20)
    whole = fingerprints(x)
    assert torch.equal(whole[7:9], fingerprints(x[7:9]))
    assert torch.equal(whole, fingerprints(x.transpose(2, 3).contiguous().transpose(2, 3)))
    assert len(set(whole.tolist())) == 500
    assert whole.min() >= 0
    assert whole.max() < 2**52
    x[3, 0, 0, 0] += 1e-6
    assert fingerprints(x)[3] != whole[3]


def test_a_large_set_keeps_the_same_samples_whatever_the_order() -> None:
    random = np.random.default_rng(0)
    samples = random.integers(0, 2**52, 30_000).astype(np.float64)
    a, b = SampleSet(), SampleSet()
    for part in np.array_split(samples, 40):
        a.add(part)
    for part in np.array_split(samples[::-1][:15_000], 7):
        b.add(part)
    assert len(a) <= 2 * MAX_SAMPLES
    share, num = b.share_in(a)
    assert share == 1.0
    assert num > 1000
    assert a.share_in(b)[0] == pytest.approx(0.5, abs=0.05)


# Seen under `watch`


def trained(**how: Any) -> RunView:
    """Train for 20 steps; evaluate as ``how`` says."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, CLASSES))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(64, 3), torch.randint(CLASSES, (64,))
    vx, vy = torch.randn(30, 3), torch.randint(CLASSES, (30,))
    with watch(model, optimizer, out=":memory:", budget=None) as recording:
        for step in range(20):
            begin = step * 16 % 64
            loss = functional.cross_entropy(
                model(x[begin : begin + 16]), y[begin : begin + 16], **how.get("options", {})
            )
            (how.get("factor", 1.0) * loss).backward()
            optimizer.step()
            optimizer.zero_grad()
            if step % 5 == 4:
                if how.get("evaluates_train"):
                    evaluate(model, x, y)
                if how.get("says"):
                    recording.phase("valid")
                evaluate(model, vx, vy)
                if how.get("says"):
                    recording.step(loss=-1.0)
                    recording.phase("train")
    view = recording.view()
    with torch.no_grad():
        expected = functional.cross_entropy(model(vx), vy)
    assert view.scalar("lr").steps[-1] == 19
    view.info.config["expected"] = float(expected)
    return view


def evaluate(model: nn.Module, x: Tensor, y: Tensor) -> None:
    with torch.no_grad():
        for begin in range(0, len(x), 20):  # the last batch is smaller
            functional.cross_entropy(model(x[begin : begin + 20]), y[begin : begin + 20])


def fact(view: RunView, kind: FactKind) -> Fact:
    (found,) = view.facts.of(kind)
    return found


def test_evaluations_that_nobody_says_are_seen() -> None:
    view = trained()
    series = view.scalar("loss", "valid")
    assert series.steps.tolist() == [4, 9, 14, 19]
    assert series.values[-1] == pytest.approx(view.info.config["expected"], rel=1e-6)
    assert len(view.scalar("accuracy", "valid")) == 4
    assert fact(view, FactKind.EVALUATION).number("samples") == 30


def test_evaluations_that_are_said_are_not_said_twice() -> None:
    view = trained(says=True)
    assert view.scalar("loss", "valid").values.tolist() == [-1.0] * 4


def test_of_two_evaluations_the_one_of_unseen_samples_is_the_validation() -> None:
    view = trained(evaluates_train=True)
    assert view.scalar("loss", "valid").values[-1] == pytest.approx(view.info.config["expected"], rel=1e-6)
    shares = {one.subject: one.number("share") for one in view.facts.of(FactKind.SAMPLES)}
    assert shares == {"valid": 0.0, "valid 2": 1.0}


def test_a_backward_is_compared_with_what_the_loss_returned() -> None:
    for how, ratio in (
        ({}, 1.0),
        ({"factor": -1.0}, -1.0),
        ({"options": {"reduction": "sum"}}, 1.0),
        ({"factor": 0.25}, 0.25),
    ):
        view = trained(**how)
        assert fact(view, FactKind.BACKWARD_FROM).number("ratio") == pytest.approx(ratio)
        assert bool(view.facts.of(FactKind.NEGATED_LOSS)) == (ratio < 0)
    assert fact(view, FactKind.LOSS_CALLS).text("reduction") == "mean"


def test_a_teacher_and_a_target_network_are_no_evaluation() -> None:
    model, teacher = nn.Linear(3, CLASSES), nn.Linear(3, CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch([model, teacher], optimizer, out=":memory:", budget=None) as recording:
        for _ in range(5):
            x = torch.randn(8, 3)
            with torch.no_grad():
                goal = teacher(x).argmax(dim=1)
            functional.cross_entropy(model(x), goal).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
    view = recording.view()
    assert not view.facts.of(FactKind.EVALUATION)
    assert not len(view.scalar("loss", "valid"))


def test_a_loss_without_a_forward_before_it_is_no_evaluation() -> None:
    model = nn.Linear(3, CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, out=":memory:", budget=None) as recording:
        for _ in range(3):
            outputs, labels = model(torch.randn(8, 3)), torch.randint(CLASSES, (8,))
            functional.cross_entropy(outputs, labels).backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                functional.cross_entropy(outputs, labels)  # to be printed
            optimizer.step()
            optimizer.zero_grad()
    assert not recording.view().facts.of(FactKind.EVALUATION)


def test_losses_are_put_back_when_nobody_watches() -> None:
    before = {name: getattr(functional, name) for name in PLACES}
    with watch(nn.Linear(1, 1), torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0), out=":memory:"):
        assert all(getattr(functional, name) is not before[name] for name in PLACES)
    assert all(getattr(functional, name) is before[name] for name in PLACES)
