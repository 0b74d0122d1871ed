from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from actograph.errors import UsageError
from actograph.testing.callbacks import tiny_loop
from actograph.train.loop import Loop
from actograph.train.metrics import Accuracy, Mean, Metric, TopK, metric_values, named_metrics
from actograph.train.metrics_classes import F1, ConfusionMatrix, PerClassAccuracy
from actograph.train.metrics_errors import MAE, RMSE

MakeMetric = Callable[[], Any]

OURS: dict[str, MakeMetric] = {
    "accuracy": Accuracy,
    "top_k": lambda: TopK(2),
    "f1": F1,
    "confusion_matrix": ConfusionMatrix,
    "per_class_accuracy": PerClassAccuracy,
    "mae": MAE,
    "rmse": RMSE,
}


def batch(name: str, size: int) -> tuple[Tensor, Tensor]:
    if name in ("mae", "rmse"):
        return torch.randn(size), torch.randn(size)
    return torch.randn(size, 4), torch.randint(0, 4, (size,))


def plain(value: object) -> object:
    return value.tolist() if isinstance(value, Tensor) else value


@given(st.lists(st.tuples(st.floats(-100, 100), st.integers(1, 64)), min_size=1, max_size=20))
def test_the_mean_is_that_of_all_samples_under_uneven_batches(parts: list[tuple[float, int]]) -> None:
    mean = Mean()
    for value, count in parts:
        mean.update(torch.tensor(value, dtype=torch.float64), count)
    expected = sum(value * count for value, count in parts) / sum(count for _, count in parts)
    assert mean.compute() == pytest.approx(expected, abs=1e-9)


def test_the_mean_of_nothing_is_nan_also_after_a_reset() -> None:
    mean = Mean()
    assert math.isnan(mean.compute())
    mean.update(torch.tensor(1.0), 2)
    mean.reset()
    assert math.isnan(mean.compute())


def test_the_mean_holds_no_graph() -> None:
    mean = Mean()
    mean.update(torch.tensor(2.0, requires_grad=True) * 3, 1)
    assert mean._sum is not None
    assert not mean._sum.requires_grad


def test_the_state_of_a_mean_is_a_copy_and_can_be_gone_on_with() -> None:
    mean, resumed = Mean(), Mean()
    mean.update(torch.tensor(1.0), 3)
    state = mean.state_dict()
    mean.update(torch.tensor(9.0), 3)
    resumed.load_state_dict(state)
    assert resumed.compute() == 1.0
    resumed.update(torch.tensor(5.0), 1)
    assert resumed.compute() == 2.0
    assert state == {"count": 3, "sum": torch.tensor(3.0)}


@pytest.mark.parametrize("name", OURS)
def test_uneven_batches_give_what_one_large_batch_gives(name: str) -> None:
    parts, whole = OURS[name](), OURS[name]()
    pred, target = batch(name, 19)
    for rows in (slice(0, 8), slice(8, 16), slice(16, 19)):
        parts.update(pred[rows], target[rows])
    whole.update(pred, target)
    torch.testing.assert_close(parts.compute(), whole.compute(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", OURS)
def test_a_metric_goes_on_from_its_saved_state(name: str) -> None:
    through, saved, resumed = OURS[name](), OURS[name](), OURS[name]()
    first, second = batch(name, 8), batch(name, 5)
    for metric in (through, saved):
        metric.update(*first)
    state = pickle.loads(pickle.dumps(saved.state_dict()))
    saved.update(*second)  # the state is a copy
    resumed.load_state_dict(state)
    for metric in (through, resumed):
        metric.update(*second)
    assert plain(resumed.compute()) == plain(through.compute())
    resumed.load_state_dict(OURS[name]().state_dict())
    assert resumed.count == 0
    assert plain(resumed.state_dict()) == {"count": 0}


@pytest.mark.parametrize("name", OURS)
def test_a_metric_holds_no_graph(name: str) -> None:
    metric = OURS[name]()
    pred, target = batch(name, 8)
    metric.update(pred.requires_grad_(), target)
    assert not any(value.requires_grad for value in metric.state_dict().values() if isinstance(value, Tensor))


class NoReading(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raise where a value is brought to the host: what would wait for an accelerator."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        waits = (
            "_local_scalar_dense",
            "nonzero",
            "bincount",
            "is_nonzero",
            "equal",
            "masked_select",
            "unique",
        )
        assert func.overloadpacket.__name__ not in waits, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", [*OURS, "mean"])
def test_no_update_waits_for_the_device(name: str) -> None:
    with NoReading():  # type: ignore[no-untyped-call]
        if name == "mean":
            Mean().update(torch.tensor(1.0), 3)
            return
        metric = OURS[name]()
        for size in (8, 3):
            metric.update(*batch(name, size))
    with pytest.raises(AssertionError, match="waits"), NoReading():  # type: ignore[no-untyped-call]
        torch.tensor(1.0).item()


@pytest.mark.parametrize("shape", [(), (4, 2)])
def test_accuracy_equals_a_count_by_hand(shape: tuple[int, ...]) -> None:
    accuracy, right, total = Accuracy(), 0, 0
    for size in (8, 8, 3):
        pred, target = torch.randn(size, 5, *shape), torch.randint(0, 5, (size, *shape))
        accuracy.update(pred, target)
        right += int((pred.numpy().argmax(axis=1) == target.numpy()).sum())
        total += target.numel()
    assert accuracy.compute() == right / total
    accuracy.reset()
    assert math.isnan(accuracy.compute())


@pytest.mark.parametrize("target", [(4,), (5, 1), (5, 3)])
def test_accuracy_names_both_shapes_that_do_not_fit(target: tuple[int, ...]) -> None:
    with pytest.raises(UsageError) as error:
        Accuracy().update(torch.zeros(5, 3), torch.zeros(target))
    assert "(5, 3)" in str(error.value)
    assert str(target) in str(error.value)


def test_accuracy_of_yes_and_no_takes_a_threshold() -> None:
    logits, target = torch.tensor([[2.0, -1.0], [0.2, 0.4]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    accuracy = Accuracy(threshold=0.0)
    accuracy.update(logits, target)
    assert accuracy.compute() == 3 / 4
    accuracy = Accuracy(threshold=0.3)
    accuracy.update(logits, target)
    assert accuracy.compute() == 1.0
    with pytest.raises(
        UsageError, match=r"with a threshold needs .* same shape, but they have \(4, 1\) and \(4,\)"
    ):
        accuracy.update(torch.zeros(4, 1), torch.zeros(4))


def test_top_k_refuses_what_has_no_meaning() -> None:
    with pytest.raises(UsageError, match="k of at least 1, not 0"):
        TopK(0)
    with pytest.raises(UsageError, match=r"TopK\(5\) has no meaning for 3 classes"):
        TopK(5).update(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))


def test_numbers_are_never_broadcast() -> None:
    for metric in (MAE(), RMSE()):
        with pytest.raises(UsageError, match=r"\(4, 1\) and \(4,\): .* squeeze\(1\)"):
            metric.update(torch.zeros(4, 1), torch.zeros(4))


def test_errors_of_half_precision_are_summed_in_more() -> None:
    mae = MAE()
    mae.update(torch.ones(3000, dtype=torch.bfloat16), torch.full((3000,), 0.999))  # 0.999 is 1 in bfloat16
    assert mae.compute() == pytest.approx(0.001, rel=1e-4)


def test_a_target_that_is_no_class_is_told_on_reading() -> None:
    matrix = ConfusionMatrix()
    matrix.update(torch.zeros(4, 3), torch.tensor([0, -100, 3, 1]))
    with pytest.raises(UsageError, match="2 of 4 targets are no class from 0 to 2"):
        matrix.compute()


def test_the_number_of_classes_may_not_change() -> None:
    matrix = ConfusionMatrix()
    matrix.update(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(UsageError, match="have 2 classes now, and had 3 before"):
        matrix.update(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64))


def test_nothing_seen_has_no_value() -> None:
    assert ConfusionMatrix().compute().shape == (0, 0)
    assert math.isnan(F1().compute())
    assert math.isnan(RMSE().compute())


def test_f1_refuses_other_averages_and_more_than_two_classes() -> None:
    with pytest.raises(UsageError, match="average='mean': choose one of macro, micro, weighted, binary"):
        F1("mean")  # type: ignore[arg-type]
    f1 = F1("binary")
    f1.update(*batch("f1", 8))
    with pytest.raises(UsageError, match="two classes, and there are 4: use 'macro'"):
        f1.compute()


def test_metrics_are_known_by_their_snake_names_or_those_given() -> None:
    assert list(named_metrics([Accuracy(), MAE()])) == ["accuracy", "mae"]
    assert list(named_metrics({"top_3": TopK(3), "top_5": TopK(5)})) == ["top_3", "top_5"]
    with pytest.raises(UsageError, match="two metrics are called accuracy: name them, metrics="):
        named_metrics([Accuracy(), Accuracy()])
    with pytest.raises(UsageError, match=r"write Accuracy\(\), not Accuracy"):
        named_metrics([Accuracy])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="metrics is a list, or a dict by name: put the Accuracy into one"):
        named_metrics(Accuracy())  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"<built-in function abs> is no metric: give an object with reset"):
        named_metrics([abs])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="cannot be called valid_loss"):
        named_metrics({"valid_loss": MAE()})


class LikeTorchmetrics(nn.Module):
    """What torchmetrics.Metric is to us: a module with plain tensors as state, moved by ``to``, that caches its value."""

    def __init__(self, value: object = None) -> None:
        super().__init__()
        self.total = torch.zeros(())
        self.value = value
        self.devices: list[torch.device] = []

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LikeTorchmetrics:
        self.total = fn(self.total)
        self.devices.append(self.total.device)
        return self

    def reset(self) -> None:
        self.total = torch.zeros_like(self.total)

    def update(self, preds: Tensor, target: Tensor) -> None:
        assert not torch.is_grad_enabled()
        self.total = self.total + (preds.argmax(1) == target).sum()

    def compute(self) -> Any:
        return self.total if self.value is None else self.value


def test_metrics_of_torchmetrics_kind_are_moved_to_the_device_and_give_their_tensor() -> None:
    metric = LikeTorchmetrics()
    assert named_metrics([metric], torch.device("meta")) == {"like_torchmetrics": metric}
    assert metric.devices == [torch.device("meta")]
    loop = with_metrics([LikeTorchmetrics(), Accuracy()])
    loop.fit(1)
    assert loop.values["like_torchmetrics"] == round(loop.values["accuracy"] * 10)  # of 10 samples


def test_what_is_no_number_is_left_out_of_the_values() -> None:
    value = {"a": torch.tensor(0.5), "b": 1, "curve": (torch.zeros(3),), "each": torch.zeros(2)}
    assert metric_values({"many": LikeTorchmetrics(value)}) == {"many_a": 0.5, "many_b": 1.0}
    assert metric_values({"curve": LikeTorchmetrics((torch.zeros(3), torch.zeros(3)))}) == {}
    loop = with_metrics([ConfusionMatrix(), Accuracy()])
    loop.fit(1)
    assert list(loop.values) == ["train_loss", "valid_loss", "accuracy"]
    assert int(loop.metrics["confusion_matrix"].compute().sum()) == 10


def with_metrics(metrics: list[Metric]) -> Loop:
    loop = tiny_loop()
    return Loop(loop.model, loop.optimizer, loop.step, loop.train_loader, loop.valid_loader, metrics=metrics)
