from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from actograph.callbacks.collection import CallbackCollection, CallbackNotFoundError
from actograph.callbacks.progress import Progress
from actograph.callbacks.recorder import Recorder
from actograph.callbacks.schedule import ScheduleParams
from actograph.data import Loaders
from actograph.errors import UsageError
from actograph.learner import Learner
from actograph.train.events import Callback
from actograph.train.loop import Loop
from actograph.train.metrics import Accuracy
from actograph.train.schedules import cosine_peak, one_cycle
from actograph.train.state import StopFit

Pair = tuple[Tensor, Tensor]
OptimizerMaker = Callable[..., torch.optim.Optimizer]


class Counted(Callback):
    def __init__(self) -> None:
        self.num_steps = 0

    def after_step(self, loop: Loop) -> None:
        self.num_steps += 1


def sgd(parameters: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=1e-3)


def data(num_batches: int = 7) -> list[Pair]:
    generator = torch.Generator().manual_seed(3)
    sizes = [16] * (num_batches - 1) + [5]  # the last batch is uneven
    return [
        (torch.randn(n, 1, 8, 8, generator=generator), torch.randint(0, 4, (n,), generator=generator))
        for n in sizes
    ]


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(36, 4),
    )


def learner(**options: Any) -> Learner:
    options = {"lr": 0.05, "defaults": (Recorder,), **options}
    return Learner(network(), (data(), data(2)), nn.functional.cross_entropy, **options)


def hand_written(
    make_optimizer: OptimizerMaker,
    epochs: int,
    set_rates: Callable[[torch.optim.Optimizer, float], None] | None = None,
) -> tuple[nn.Module, list[float], list[float]]:
    """Train as a PyTorch user would by hand."""
    model, batches, valid = network(), data(), data(2)
    optimizer = make_optimizer(model.parameters(), lr=0.05)
    losses, valid_losses = [], []
    torch.manual_seed(7)
    for epoch in range(epochs):
        model.train()
        for index, (x, y) in enumerate(batches):
            if set_rates is not None:
                set_rates(optimizer, (epoch + index / len(batches)) / epochs)
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        model.eval()
        with torch.no_grad():
            sums = [nn.functional.cross_entropy(model(x), y).item() * len(y) for x, y in valid]
        valid_losses.append(sum(sums) / sum(len(y) for _, y in valid))
    return model, losses, valid_losses


def assert_equal_states(ours: nn.Module, theirs: nn.Module) -> None:
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name


@pytest.mark.parametrize("make_optimizer", [sgd, torch.optim.AdamW])
@pytest.mark.parametrize("defaults", [(), (Recorder,), (Recorder, Progress)])
def test_the_learner_equals_a_hand_written_loop_bit_for_bit(
    make_optimizer: OptimizerMaker, defaults: tuple[type[Callback], ...]
) -> None:
    model, losses, valid_losses = hand_written(make_optimizer, epochs=3)
    learn = learner(opt_func=make_optimizer, defaults=defaults, metrics=[Accuracy()])
    torch.manual_seed(7)
    learn.fit(3)
    assert_equal_states(learn.model, model)
    if defaults:
        assert learn.recorder.losses.tolist() == losses
        ours = [row["valid_loss"] for row in learn.recorder.epochs]
        assert ours == pytest.approx(valid_losses, rel=1e-12)


@pytest.mark.parametrize("make_optimizer", [sgd, torch.optim.AdamW])
def test_one_cycle_equals_a_hand_written_loop_that_sets_the_same_rates(
    make_optimizer: OptimizerMaker,
) -> None:
    rate, momentum = one_cycle(0.3), cosine_peak(0.95, 0.85, 0.95)

    def set_rates(optimizer: torch.optim.Optimizer, progress: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate(progress)
            if "betas" in group:
                group["betas"] = (momentum(progress), group["betas"][1])
            else:
                group["momentum"] = momentum(progress)

    model, losses, _ = hand_written(make_optimizer, 3, set_rates)
    learn = learner(opt_func=make_optimizer)
    torch.manual_seed(7)
    learn.fit_one_cycle(3, 0.3)
    assert_equal_states(learn.model, model)
    assert learn.recorder.losses.tolist() == losses


def test_two_fits_go_on_with_one_optimizer_and_equal_one_long_fit() -> None:
    long, parts = learner(opt_func=sgd), learner(opt_func=sgd)
    torch.manual_seed(7)
    long.fit(3)
    torch.manual_seed(7)
    parts.fit(1)
    optimizer = parts.optimizer
    parts.fit(2)
    assert parts.optimizer is optimizer
    assert_equal_states(parts.model, long.model)
    assert parts.recorder.steps.tolist() == list(range(21))
    assert [row["step"] for row in parts.recorder.epochs] == [7, 14, 21]
    assert parts.loop.progress.step == 21


def test_the_optimizer_is_made_once_on_first_need() -> None:
    made: list[float] = []

    def make(parameters: Any, lr: float) -> torch.optim.Optimizer:
        made.append(lr)
        return torch.optim.SGD(parameters, lr=lr)

    learn = learner(opt_func=make)
    assert made == []
    learn.fit(1)
    learn.fit(1)
    assert made == [0.05]


def test_one_cycle_without_a_rate_peaks_at_the_optimizers_own_and_gives_it_back() -> None:
    learn = learner(opt_func=sgd)
    learn.fit_one_cycle(4)
    lrs, momentums = learn.recorder.lrs, learn.recorder.momentums
    assert lrs[0] == pytest.approx(0.05 / 25)
    assert lrs.max() == pytest.approx(0.05)
    assert lrs.argmax() == momentums.argmin() == 7
    assert lrs[-1] < 0.05 / 25
    assert momentums[0] == pytest.approx(0.95)
    assert momentums.min() == pytest.approx(0.85)
    assert learn.optimizer.param_groups[0]["lr"] == 0.05
    assert learn.optimizer.param_groups[0]["momentum"] == 0.9
    learn.fit_one_cycle(4)
    assert learn.recorder.lrs.tolist() == lrs.tolist() * 2


def test_one_cycle_keeps_the_ratios_of_the_groups() -> None:
    seen: list[list[float]] = []

    class Rates(Callback):
        def after_step(self, loop: Loop) -> None:
            seen.append([group["lr"] for group in loop.optimizer.param_groups])

    def groups(parameters: Any, lr: float) -> torch.optim.Optimizer:
        first, *rest = parameters
        return torch.optim.AdamW([{"params": [first], "lr": lr / 10}, {"params": rest}], lr=lr)

    learner(opt_func=groups).fit_one_cycle(2, lr_max=1.0, callbacks=[Rates()])
    assert len(seen) == 14
    assert max(seen[3]) > max(seen[0])
    for small, large in seen:
        assert small == pytest.approx(large / 10)


def test_an_optimizer_without_momentum_stays_without() -> None:
    learn = learner(opt_func=lambda parameters, lr: torch.optim.SGD(parameters, lr=lr))
    learn.fit_one_cycle(1)
    assert bool((learn.recorder.momentums != learn.recorder.momentums).all())  # NaN
    assert learn.optimizer.param_groups[0]["momentum"] == 0


def test_a_rate_given_to_fit_holds_for_that_fit() -> None:
    learn = learner()
    learn.fit(1, 0.5)
    learn.fit(1)
    assert learn.recorder.lrs.tolist() == [0.5] * 7 + [0.05] * 7


def endless() -> Iterator[Pair]:
    while True:
        yield from data()


def test_an_iterable_without_length_needs_steps() -> None:
    learn = Learner(network(), (endless(), None), nn.functional.cross_entropy, defaults=(Recorder,))
    with pytest.raises(UsageError, match="steps="):
        learn.fit(1)
    learn.fit(2, steps=5)
    learn.fit_one_cycle(1, steps=3)
    assert learn.recorder.steps.tolist() == list(range(13))
    assert set(learn.recorder.epochs[0]) == {"epoch", "step", "train_loss", "time_s"}


def test_a_generator_goes_on_where_the_last_epoch_stopped() -> None:
    firsts: list[Tensor] = []

    class First(Callback):
        def before_batch(self, loop: Loop) -> None:
            firsts.append(loop.batch.x)

    learn = Learner(network(), (endless(), None), nn.functional.cross_entropy, defaults=())
    learn.fit(2, steps=4, callbacks=[First()])
    for seen, given in zip(firsts, [*data(), data()[0]], strict=True):
        assert torch.equal(seen, given[0])


def test_loaders_may_be_the_dataclass_or_a_pair() -> None:
    train, valid = data(), data(2)
    for loaders in (Loaders(train, valid), (train, valid)):
        learn = Learner(network(), loaders, nn.functional.cross_entropy, defaults=())
        assert (learn.train_loader, learn.valid_loader) == (train, valid)


def test_anything_else_as_loaders_is_refused() -> None:
    wrong: Any = {"train": data()}
    with pytest.raises(UsageError, match=r"a pair \(train, valid\), valid possibly None, not dict"):
        Learner(network(), wrong, nn.functional.cross_entropy)


def test_validate_gives_losses_and_metrics_and_changes_nothing() -> None:
    learn = learner(metrics=[Accuracy()])
    before = {name: tensor.clone() for name, tensor in learn.model.state_dict().items()}
    values = learn.validate()
    assert set(values) == {"valid_loss", "accuracy"}
    learn.model.eval()
    x, y = (torch.cat(parts) for parts in zip(*data(2), strict=True))
    assert values["valid_loss"] == pytest.approx(
        nn.functional.cross_entropy(learn.model(x), y).item(), rel=1e-6
    )
    for name, tensor in learn.model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert learn.recorder.epochs == []


def test_predict_is_in_eval_mode_without_gradients_and_restores_the_flags() -> None:
    learn = learner()
    x = torch.randn(3, 1, 8, 8)
    output = learn.predict(x)
    assert not output.requires_grad
    assert learn.model.training
    learn.model.eval()
    assert torch.equal(output, learn.model(x))


def test_callbacks_are_found_by_class_and_by_name() -> None:
    counted = Counted()
    learn = learner(callbacks=[counted])
    assert learn.callbacks[Counted] is counted
    assert learn.callbacks["counted"] is counted
    assert learn.callbacks[Recorder] is learn.recorder
    assert Counted in learn.callbacks
    assert "progress" not in learn.callbacks
    assert counted in learn.callbacks
    assert 3 not in learn.callbacks


def test_a_callback_of_one_fit_stays_reachable_and_runs_no_more() -> None:
    learn, counted = learner(), Counted()
    learn.fit(1, callbacks=[counted])
    learn.fit(1)
    assert learn.callbacks[Counted] is counted
    assert counted.num_steps == 7
    learn.fit(1, callbacks=[Counted()])
    assert learn.callbacks[Counted] is not counted
    assert len(learn.callbacks) == 2


def test_a_callback_of_a_failed_fit_stays_reachable() -> None:
    class Failing(Callback):
        def after_step(self, loop: Loop) -> None:
            raise OSError("disk")

    learn, counted = learner(), Counted()
    with pytest.raises(OSError, match="disk"):
        learn.fit(1, callbacks=[counted, Failing()])
    assert learn.callbacks[Counted].num_steps == 1


@pytest.mark.parametrize("key", [Counted, "counted"])
def test_an_unknown_look_up_names_what_is_there(key: Any) -> None:
    with pytest.raises(KeyError) as error:
        learner().callbacks[key]
    assert isinstance(error.value, CallbackNotFoundError)
    assert str(error.value).lower().startswith("no callback counted here; there are: recorder")


def test_an_empty_collection_says_none() -> None:
    with pytest.raises(CallbackNotFoundError, match="there are: none"):
        CallbackCollection()[Recorder]
    assert repr(CallbackCollection([Counted()])) == "CallbackCollection(counted)"


def test_a_given_callback_takes_the_place_of_the_default_of_its_class() -> None:
    mine = Recorder()
    learn = learner(callbacks=[mine])
    assert learn.recorder is mine
    assert len(learn.callbacks) == 1


def test_two_of_a_unique_class_are_refused_before_anything_happens() -> None:
    with pytest.raises(UsageError, match="2 callbacks of class Recorder"):
        learner(callbacks=[Recorder(), Recorder()])
    learn = learner()
    with pytest.raises(UsageError, match="2 callbacks of class Recorder"):
        learn.fit(1, callbacks=[Recorder(), Counted()])
    assert Counted not in learn.callbacks
    assert len(learn.recorder.steps) == 0


def test_two_schedules_in_one_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="ScheduleParams"):
        learner().fit_one_cycle(1, callbacks=[ScheduleParams()])


def test_the_plan_names_defaults_and_extras() -> None:
    plan = learner().plan([Counted()])
    assert plan.rows["after_step"] == ("counted",)
    assert plan.rows["after_loss"] == ("recorder",)


def test_the_learner_can_fit_again_after_every_way_to_stop() -> None:
    class Stopping(Callback):
        def __init__(self, error: BaseException) -> None:
            self.error = error

        def after_backward(self, loop: Loop) -> None:
            raise self.error

    learn = learner(opt_func=sgd)
    for error in (StopFit("enough"), ValueError("broken"), KeyboardInterrupt()):
        with contextlib.suppress(ValueError, KeyboardInterrupt):
            learn.fit_one_cycle(1, 0.3, callbacks=[Stopping(error)])
        assert learn.optimizer.param_groups[0]["lr"] == 0.05
    learn.fit(1)
    assert learn.loop.progress.step == 7


def test_the_model_and_the_loss_go_to_the_device_once() -> None:
    model, loss = nn.Linear(2, 3), nn.CrossEntropyLoss(weight=torch.ones(3))
    batches = [(torch.zeros(4, 2), torch.zeros(4, dtype=torch.long))]
    learn = Learner(model, (batches, None), loss, device="meta", defaults=())
    assert model.weight.device.type == "cpu"
    learn.fit(1)
    assert model.weight.device.type == "meta"
    assert loss.weight is not None
    assert loss.weight.device.type == "meta"
    assert learn.predict(torch.zeros(2, 2)).device.type == "meta"


def test_without_a_device_the_models_own_is_used() -> None:
    learn = Learner(nn.Linear(2, 3, device="meta"), (data(), None), nn.functional.mse_loss)
    assert learn.device == torch.device("meta")
