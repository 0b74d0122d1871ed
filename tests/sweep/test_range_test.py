"""The range test as a Learner makes it: what it trains, when it ends, and that nothing of it stays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from actograph.callbacks.activation_stats import ActivationStats
from actograph.callbacks.collection import CallbackNotFoundError
from actograph.callbacks.recorder import Recorder
from actograph.data.loaders import TensorLoader
from actograph.errors import UsageError
from actograph.learner import Learner
from actograph.sweep import range_test
from actograph.sweep.range_test import MAX_SKIPPED, has_diverged, lr_find
from actograph.train.events import Callback
from actograph.train.loop import Loop
from actograph.train.step_precision import MixedPrecision
from actograph.train.step_wrapper import find_step

from .test_suggestions import scripted_loop


def data(num: int = 96) -> tuple[Tensor, Tensor]:
    x = torch.randn(num, 4, generator=torch.Generator().manual_seed(1))
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))


def learner(**options: Any) -> Learner:
    loaders = options.pop("loaders", None) or (TensorLoader(*data(), 8, shuffle=True), [data(8)])
    model = options.pop("model", None) or network()
    return Learner(model, loaders, nn.functional.cross_entropy, **{"defaults": (Recorder,), **options})


def weights(learn: Learner) -> list[Tensor]:
    return [value.clone() for value in learn.model.state_dict().values()]


class Seen(nn.Module):
    """A loss function that notes what it was given and the rates at the time."""

    def __init__(self) -> None:
        super().__init__()
        self.learn: Learner | None = None
        self.sizes: list[int] = []
        self.losses: list[float] = []
        self.rates: list[list[float]] = []

    def forward(self, pred: Tensor, y: Tensor) -> Tensor:
        assert self.learn is not None
        loss = nn.functional.cross_entropy(pred, y)
        self.sizes.append(len(y))
        self.losses.append(loss.item())
        self.rates.append([group["lr"] for group in self.learn.optimizer.param_groups])
        return loss


def watched(num: int = 96, **options: Any) -> tuple[Learner, Seen]:
    seen = Seen()
    learn = Learner(network(), (TensorLoader(*data(num), 8), None), seen, defaults=(), **options)
    seen.learn = learn
    return learn, seen


def test_a_learnable_task_gets_its_suggestions() -> None:
    found = learner().lr_find()
    assert found.refusal is None
    assert list(found.suggestions) == ["valley", "steep", "minimum", "slide"]
    assert 1e-4 < found.valley < 1.0
    assert (found.valley, found.steep, found.minimum, found.slide) == tuple(found.suggestions.values())
    assert found.rates[0] == pytest.approx(1e-7)


@pytest.mark.parametrize(
    "options", [{}, {"accumulate": 2, "clip_norm": 1.0}, {"amp": "fp16"}, {"amp": "bf16"}]
)
def test_the_fit_after_it_is_that_without_it(options: dict[str, Any]) -> None:
    expected = learner(**options)  # seeds
    expected.fit_one_cycle(2, 0.01)
    learn = learner(**options)
    learn.lr_find(num_it=30, repeats=2)
    learn.fit_one_cycle(2, 0.01)
    assert all(torch.equal(a, b) for a, b in zip(weights(learn), weights(expected), strict=True))
    np.testing.assert_array_equal(learn.recorder.losses, expected.recorder.losses)
    assert learn.loop.progress.step == expected.loop.progress.step


def test_no_callback_runs_and_nothing_is_validated() -> None:
    class Never(Callback):
        def before_fit(self, loop: Loop) -> None:
            raise AssertionError("called")

    class Unread:
        def __iter__(self) -> Iterator[Any]:
            raise AssertionError("read")

    learn = learner(callbacks=[ActivationStats(), Never()], loaders=(TensorLoader(*data(), 8), Unread()))
    learn.lr_find(num_it=30)
    assert len(learn.recorder.losses) == 0
    with pytest.raises(UsageError, match="nothing is recorded yet"):
        _ = learn.callbacks[ActivationStats].recording
    with pytest.raises(CallbackNotFoundError):
        learn.callbacks["rate_sweep"]


def test_an_iteration_is_an_optimizer_step() -> None:
    learn, seen = watched(accumulate=3)  # 12 batches an epoch
    found = learn.lr_find(num_it=24, stop_div=False)
    assert len(found.rates) == 24
    assert len(seen.losses) == 24 * 3
    assert found.losses == pytest.approx(np.reshape(seen.losses, (24, 3)).mean(1), rel=1e-6)
    assert [rates[0] for rates in seen.rates] == pytest.approx(np.repeat(found.rates, 3))


def test_the_loss_of_an_iteration_is_the_mean_over_its_samples() -> None:
    learn, seen = watched(accumulate=2, num=5 * 8 + 2)  # the last batch has 2 samples
    found = learn.lr_find(num_it=24, stop_div=False)
    assert seen.sizes[:6] == [8, 8, 8, 8, 8, 2]
    windows = [(0, 2), (2, 4), (4, 6)]
    means = [np.average(seen.losses[a:b], weights=seen.sizes[a:b]) for a, b in windows]
    assert found.losses[:3] == pytest.approx(means, rel=1e-6)


def test_groups_keep_their_ratios_and_the_largest_rate_is_told() -> None:
    def groups(model: nn.Module) -> list[Any]:
        assert isinstance(model, nn.Sequential)
        return [model[4], [model[0], model[1]]]  # the largest rate first: it need not be the last group's

    learn, seen = watched(splitter=groups, lr=[0.2, 0.05])
    found = learn.lr_find(num_it=30, stop_div=False)
    assert [rates[0] for rates in seen.rates] == pytest.approx(found.rates)
    assert [rates[1] for rates in seen.rates] == pytest.approx(found.rates / 4)
    assert [group["lr"] for group in learn.optimizer.param_groups] == [0.2, 0.05]


def test_a_step_that_a_scaler_skips_is_made_again_at_the_same_rate() -> None:
    learn, seen = watched(amp="fp16")
    precision = find_step(learn.loop.step, MixedPrecision)
    assert precision is not None
    precision.scaler.load_state_dict({**precision.scaler.state_dict(), "scale": 2.0**24})
    found = learn.lr_find(num_it=30, stop_div=False)
    rates = [group_rates[0] for group_rates in seen.rates]
    assert rates.count(1e-7) > 3
    assert len(rates) > len(found.rates) == 30
    assert sorted(set(rates)) == pytest.approx(found.rates)
    assert precision.scale == 2.0**24


@pytest.mark.parametrize("amp", [None, "fp16"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_it(bad: float, amp: Any) -> None:
    count = iter(range(1000))

    def loss_func(pred: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(pred, y) * (bad if next(count) == 40 else 1.0)

    learn = Learner(network(), (TensorLoader(*data(), 8), None), loss_func, defaults=(), amp=amp)
    found = learn.lr_find(stop_div=False)
    assert len(found.losses) in (41, 40)  # fp16 may skip a step at first
    assert not math.isfinite(found.losses[-1])
    assert np.isfinite(found.losses[:-1]).all()


def test_gradients_that_are_never_finite_end_it_with_the_reason() -> None:
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            return gradients[0] * math.inf

    def loss_func(pred: Tensor, y: Tensor) -> Tensor:
        loss = Broken.apply(nn.functional.cross_entropy(pred, y))  # type: ignore[no-untyped-call]
        assert isinstance(loss, Tensor)
        return loss

    learn = Learner(network(), (TensorLoader(*data(), 8), None), loss_func, defaults=(), amp="fp16")
    found = learn.lr_find()
    assert found.refusal is not None
    assert f"after 0 of 100 iterations ({MAX_SKIPPED + 1} steps were skipped" in found.refusal
    found.plot()
    assert found.picture() == ""


def test_it_ends_where_the_smoothed_loss_is_far_above_its_best() -> None:
    def loss_at(k: int) -> float:
        return 2.0 - 0.02 * k if k < 60 else 20.0

    assert len(lr_find(scripted_loop(loss_at)).losses) < 75
    assert len(lr_find(scripted_loop(loss_at), stop_div=False).losses) == 100


def test_a_loss_below_zero_diverges_when_it_is_far_from_its_best() -> None:
    assert not has_diverged(np.array([-1.0, -2.0, -2.5]))
    assert not has_diverged(np.full(9, -3.0))
    assert has_diverged(np.array([-1.0, *[100.0] * 9]))


def test_repeats_begin_with_the_same_weights_and_see_other_batches() -> None:
    found = learner(model=nn.Linear(4, 3)).lr_find(repeats=3)
    first, second, _ = found.repeats
    assert first.losses[0] != second.losses[0]
    assert {name: (low, high) for name, (low, high) in found.ranges.items()} == {
        name: (min(every), max(every))
        for name in found.suggestions
        for every in [[one.suggestions[name] for one in found.repeats]]
    }
    same = lr_find(scripted_loop(math.sin), num_it=30, repeats=1)
    assert same.repeats == ()
    in_order = learner(model=nn.Linear(4, 3), loaders=(TensorLoader(*data(), 8), None)).lr_find(repeats=3)
    for one in in_order.repeats:
        np.testing.assert_array_equal(one.losses, in_order.repeats[0].losses)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("on purpose")])
def test_an_error_leaves_everything_as_it_was(error: BaseException) -> None:
    count = iter(range(1000))

    def loss_func(pred: Tensor, y: Tensor) -> Tensor:
        if next(count) == 20:
            raise error
        return nn.functional.cross_entropy(pred, y)

    learn = Learner(network(), (TensorLoader(*data(), 8), None), loss_func, lr=0.25, defaults=())
    before = weights(learn)
    with pytest.raises(type(error)):
        learn.lr_find()
    assert all(torch.equal(a, b) for a, b in zip(weights(learn), before, strict=True))
    assert learn.optimizer.param_groups[0]["lr"] == 0.25
    assert not learn.optimizer.state
    assert not learn.loop.is_running


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_lr": 0.0}, "start_lr is 0.0"),
        ({"start_lr": 1.0, "end_lr": 0.1}, "give positive rates that rise"),
        ({"end_lr": math.inf}, "end_lr inf"),
        ({"num_it": 22}, "at least 23 iterations"),
        ({"repeats": 0}, "repeats is 0"),
    ],
)
def test_what_makes_no_test_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        learner().lr_find(**options)


def test_the_fewest_iterations_are_enough_for_every_suggestion() -> None:
    found = lr_find(scripted_loop(lambda k: 3.0 - 0.1 * k), num_it=23)
    assert len(found.suggestions) == 4


def test_an_iterator_is_refused_because_it_would_be_used_up() -> None:
    batches = iter([data(8)] * 20)
    with pytest.raises(UsageError, match="can be read only once"):
        learner(loaders=(batches, None)).lr_find(steps=10)
    assert len(list(batches)) == 20


def test_a_loader_without_a_length_needs_the_steps() -> None:
    class Endless:
        def __iter__(self) -> Iterator[Any]:
            while True:
                yield data(8)

    learn = learner(loaders=(Endless(), None))
    with pytest.raises(UsageError, match="steps="):
        learn.lr_find()
    assert len(learn.lr_find(num_it=30, steps=7, stop_div=False).losses) == 30


def test_persistent_workers_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = DataLoader(TensorDataset(*data(16)), 8, num_workers=1, persistent_workers=True)
    learn = learner(loaders=(loader, None))
    monkeypatch.setattr(range_test, "undone", lambda loop: pytest.fail("went on"))  # starts no process
    with (
        pytest.warns(UserWarning, match="persistent_workers=False") as warned,
        pytest.raises(pytest.fail.Exception),
    ):
        learn.lr_find()
    assert warned[0].filename == __file__


def test_in_a_fit_it_is_refused() -> None:
    learn = learner()

    class Looks(Callback):
        def after_epoch(self, loop: Loop) -> None:
            learn.lr_find()

    with pytest.raises(UsageError, match="a fit is running"):
        learn.fit(1, callbacks=[Looks()])
