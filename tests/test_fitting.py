"""The Learner's ways of fitting: groups, freezing, fine-tuning, and the options of the step."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from actograph.callbacks.activation_stats import ActivationStats
from actograph.callbacks.lr_scheduler import LRScheduler
from actograph.callbacks.recorder import Recorder
from actograph.errors import UsageError
from actograph.learner import Learner
from actograph.train.events import Callback
from actograph.train.loop import Loop
from actograph.train.schedules import one_cycle
from actograph.train.state import StopFit
from actograph.train.step_accumulate import Accumulate
from actograph.train.step_clip import Clip
from actograph.train.step_precision import MixedPrecision
from actograph.train.step_wrapper import find_step

Pair = tuple[Tensor, Tensor]
NUM_BATCHES = 5


class Groups(Callback):
    """Keeps each group's rate, and which parameters are trained, at every step."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []
        self.trained: list[list[str]] = []

    def before_step(self, loop: Loop) -> None:
        self.rates.append([group["lr"] for group in loop.optimizer.param_groups])
        self.trained.append([name for name, p in loop.model.named_parameters() if p.grad is not None])


def batches(sizes: tuple[int, ...] = (8, 8, 8, 8, 3)) -> list[Pair]:
    generator = torch.Generator().manual_seed(3)
    return [
        (torch.randn(n, 4, generator=generator), torch.randint(0, 3, (n,), generator=generator))
        for n in sizes
    ]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 6), nn.Linear(6, 3))


def three_groups(model: nn.Module) -> list[Any]:
    assert isinstance(model, nn.Sequential)
    return [[model[0], model[1]], model[3], model[4]]


def learner(model: nn.Module | None = None, **options: Any) -> Learner:
    options = {"opt_func": sgd, "lr": 0.1, "defaults": (Recorder,), **options}
    train = options.pop("train", batches())
    return Learner(model or network(), (train, batches((4,))), nn.functional.cross_entropy, **options)


def sgd(parameters: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=0.1)


def grouped(**options: Any) -> Learner:
    return learner(splitter=three_groups, **options)


def weights(learn: Learner) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in learn.model.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.mark.parametrize(
    ("lr", "rates"),
    [
        (0.1, [0.1, 0.1, 0.1]),
        (slice(0.001, 0.1), [0.001, 0.01, 0.1]),
        (slice(0.1), [0.01, 0.01, 0.1]),
        ([0.3, 0.2, 0.1], [0.3, 0.2, 0.1]),
    ],
)
def test_groups_have_rates_of_their_own(lr: Any, rates: list[float]) -> None:
    learn = grouped(lr=lr)
    assert [group["lr"] for group in learn.optimizer.param_groups] == pytest.approx(rates)
    assert [len(group["params"]) for group in learn.optimizer.param_groups] == [4, 2, 2]


@pytest.mark.parametrize(
    ("fit", "lr", "rates"),
    [
        ("fit", slice(0.002, 0.2), [0.002, 0.02, 0.2]),
        ("fit", 0.5, [0.005, 0.05, 0.5]),  # the ratios of the optimizer's own
        ("fit_flat_cos", None, [0.001, 0.01, 0.1]),
        ("fit_flat_cos", [0.3, 0.2, 0.1], [0.3, 0.2, 0.1]),
        ("fit_one_cycle", slice(0.5), [0.05, 0.05, 0.5]),
    ],
)
def test_a_fit_drives_each_group_in_its_ratio(fit: str, lr: Any, rates: list[float]) -> None:
    learn, groups = grouped(lr=slice(0.001, 0.1)), Groups()
    getattr(learn, fit)(4, lr, callbacks=[groups])
    assert len(groups.rates) == 4 * NUM_BATCHES
    assert max(groups.rates) == pytest.approx(rates)
    for seen in groups.rates:
        assert [rate / seen[-1] for rate in seen] == pytest.approx([rate / rates[-1] for rate in rates])
    assert [group["lr"] for group in learn.optimizer.param_groups] == pytest.approx([0.001, 0.01, 0.1])


def test_flat_then_cosine() -> None:
    learn = learner()
    learn.fit_flat_cos(4, 0.2)
    lrs = learn.recorder.lrs
    assert lrs[: 3 * NUM_BATCHES + 1].tolist() == [0.2] * (3 * NUM_BATCHES + 1)
    assert (lrs[3 * NUM_BATCHES + 1 :] < 0.2).all()
    assert learn.recorder.momentums.tolist() == [0.9] * len(lrs)


def test_fine_tuning_is_fastais_recipe() -> None:
    """Golden numbers: fastai 2.8's fine_tune(3, 0.01): frozen with slice(0.01), then slice(0.00005, 0.005), div 5."""
    learn, groups = grouped(), Groups()
    before = weights(learn)
    learn.fine_tune(3, 0.01, callbacks=[groups])
    frozen, thawed = groups.rates[:NUM_BATCHES], groups.rates[NUM_BATCHES:]
    assert len(thawed) == 3 * NUM_BATCHES
    shape = one_cycle(0.01, div=25, pct_start=0.99)
    expected = [[rate / 10, rate / 10, rate] for rate in (shape(k / NUM_BATCHES) for k in range(NUM_BATCHES))]
    assert frozen == [pytest.approx(rates) for rates in expected]
    assert thawed[0] == pytest.approx([0.00005 / 5, 0.0005 / 5, 0.005 / 5])
    shape = one_cycle(0.005, div=5, pct_start=0.3)
    assert [rates[-1] for rates in thawed] == pytest.approx([shape(k / 15) for k in range(15)])
    norm_and_head = ["1.weight", "1.bias", "4.weight", "4.bias"]
    everything = [name for name, _ in learn.model.named_parameters()]
    assert groups.trained == [norm_and_head] * NUM_BATCHES + [everything] * 3 * NUM_BATCHES
    assert changed(before, weights(learn)) == set(before)
    assert learn.callbacks[Groups] is groups


def test_a_frozen_fit_leaves_weights_alone_but_for_normalization_whose_statistics_go_on() -> None:
    learn = grouped()
    learn.fit(1)
    before = weights(learn)
    learn.freeze()
    learn.fit(1)
    statistics = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert changed(before, weights(learn)) == {"1.weight", "1.bias", "4.weight", "4.bias", *statistics}
    learn.freeze_to(1)
    learn.fit(1)
    assert torch.equal(learn.model.state_dict()["0.weight"], before["0.weight"])
    assert not torch.equal(learn.model.state_dict()["3.weight"], before["3.weight"])
    learn.unfreeze()
    learn.fit(1)
    assert changed(before, weights(learn)) == set(before)


def test_fine_tuning_may_leave_out_the_frozen_epochs() -> None:
    learn, groups = grouped(), Groups()
    learn.fine_tune(1, freeze_epochs=0, callbacks=[groups])
    assert len(groups.rates) == NUM_BATCHES
    assert max(groups.rates)[-1] == pytest.approx(1e-3, rel=0.05)


class StopAt(Callback):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def after_step(self, loop: Loop) -> None:
        raise self.error


def test_stopping_the_frozen_part_ends_fine_tuning_with_everything_thawed() -> None:
    learn, groups = grouped(), Groups()
    learn.fine_tune(2, callbacks=[groups, StopAt(StopFit("enough"))])
    assert len(groups.rates) == 1
    assert all(parameter.requires_grad for parameter in learn.model.parameters())


def test_after_an_error_in_the_frozen_part_everything_is_thawed_and_fits_again() -> None:
    learn = grouped()
    with pytest.raises(ZeroDivisionError):
        learn.fine_tune(2, callbacks=[StopAt(ZeroDivisionError())])
    assert learn.freezing.num_frozen_groups == 0
    assert [group["lr"] for group in learn.optimizer.param_groups] == [0.1] * 3
    learn.fine_tune(1)


def test_fine_tuning_without_groups_says_how_to_split() -> None:
    with pytest.raises(UsageError, match="splitter="):
        learner().fine_tune(1)


def test_an_optimizer_with_groups_of_its_own_can_be_frozen() -> None:
    def make(parameters: Any, lr: float) -> torch.optim.Optimizer:
        *body, head_weight, head_bias = parameters
        return torch.optim.SGD([{"params": body}, {"params": [head_weight, head_bias]}], lr=lr)

    learn, groups = learner(opt_func=make), Groups()
    learn.freeze()
    learn.fit(1, slice(0.2), callbacks=[groups])
    assert groups.rates[0] == pytest.approx([0.02, 0.2])
    assert groups.trained[0] == ["1.weight", "1.bias", "4.weight", "4.bias"]


@pytest.mark.parametrize(
    ("opt_func", "words"),
    [
        (torch.optim.SGD(network().parameters()), "give SGD itself, or functools.partial"),
        (lambda parameters, lr: torch.optim.SGD(network().parameters(), lr=lr), "holds 8 .* lacks 8 of the model's 8"),
        (lambda parameters, lr: torch.optim.SGD(list(parameters)[:2], lr=lr), "holds 0 .* lacks 6 of the model's 8"),
    ],
)  # fmt: skip
def test_an_optimizer_over_foreign_parameters_is_refused_before_training(opt_func: Any, words: str) -> None:
    learn = learner(opt_func=opt_func)
    before = weights(learn)
    with pytest.raises(UsageError, match=words):
        learn.fit(1)
    assert not changed(before, weights(learn))
    learn.opt_func = functools.partial(torch.optim.SGD, momentum=0.9)
    learn.fit(1)


def test_a_ready_made_optimizer_over_the_model_may_be_handed_over_by_a_function() -> None:
    model = network()
    ready = torch.optim.SGD(model.parameters(), lr=0.3)
    learn = learner(model, opt_func=lambda parameters, lr: ready)
    learn.fit(1)
    assert learn.recorder.lrs.tolist() == [0.3] * NUM_BATCHES


def test_rates_that_do_not_fit_the_groups_are_refused() -> None:
    with pytest.raises(UsageError, match="2 rates were given for 3"):
        grouped().fit(1, [0.1, 0.2])
    with pytest.raises(UsageError, match="not -1"):
        grouped().fit_one_cycle(1, -1)


def test_a_scheduler_and_a_rate_for_the_fit_are_refused_together() -> None:
    def halving(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)

    with pytest.raises(UsageError, match=r"RateCallback in one fit \(ScheduleParams, LRScheduler\)"):
        learner().fit(1, 0.1, callbacks=[LRScheduler(halving)])
    learn = learner()
    learn.fit(2, callbacks=[LRScheduler(halving)])
    assert learn.recorder.lrs.tolist() == [0.1] * NUM_BATCHES + [0.05] * NUM_BATCHES


def test_the_options_of_the_step_are_all_there() -> None:
    learn = learner(accumulate=2, clip_norm=0.5, amp="bf16")
    learn.fit(2)
    assert learn.loop.progress.step == 2 * 3
    assert find_step(learn.loop.step, Accumulate) is not None
    clip = find_step(learn.loop.step, Clip)
    assert clip is not None
    assert clip.last_clip_ratio is not None
    assert 0 < clip.last_clip_ratio.item() <= 1
    assert find_step(learn.loop.step, MixedPrecision) is not None
    assert learn.predict(torch.zeros(2, 4)).dtype == torch.float32


def test_accumulated_batches_follow_a_schedule_as_large_ones_do() -> None:
    small_batches = batches((8, 8, 6, 6))
    large_batches = [
        (torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]]))
        for first, second in (small_batches[:2], small_batches[2:])
    ]
    learners = []
    for train, window in ((large_batches, 1), (small_batches, 2)):
        torch.manual_seed(0)
        learn = learner(nn.Linear(4, 3), train=train, accumulate=window)
        learn.fit_one_cycle(3, 0.3)
        assert learn.loop.progress.step == 6
        learners.append(learn)
    assert learners[1].recorder.lrs[::2].tolist() == learners[0].recorder.lrs.tolist()
    for large, small in zip(*(learn.model.parameters() for learn in learners), strict=True):
        assert torch.allclose(large, small, atol=1e-6)


def test_a_compiled_model_keeps_its_names_and_trains_as_without() -> None:
    torch.compiler.reset()
    plain, compiled = learner(), learner(compile={"backend": "aot_eager"})
    names = list(compiled.model.state_dict())
    plain.fit(2)
    compiled.fit(2)
    assert list(compiled.model.state_dict()) == names == list(plain.model.state_dict())
    for name, value in plain.model.state_dict().items():
        assert torch.allclose(compiled.model.state_dict()[name], value, atol=1e-6), name
    x = torch.randn(3, 4)
    assert torch.allclose(compiled.predict(x), plain.predict(x), atol=1e-6)
    assert compiled.loop.model is compiled.model


def test_the_compiled_code_is_what_runs() -> None:
    seen: list[int] = []

    def backend(graph: torch.fx.GraphModule, example_inputs: list[Tensor]) -> Any:
        def run(*inputs: Tensor) -> Any:
            seen.append(len(inputs))
            return graph.forward(*inputs)

        return run

    torch.compiler.reset()
    learner(compile={"backend": backend}).fit(1)
    assert len(seen) >= NUM_BATCHES


def test_layers_of_compiled_code_are_recorded_in_every_fit_as_without() -> None:
    torch.compiler.reset()
    views = []
    for learn in (learner(), learner(compile={"backend": "aot_eager"})):
        for _ in range(2):
            learn.fit(1, callbacks=[ActivationStats(out=":memory:", budget=None)])
            learn.validate()
        views.append(learn.callbacks[ActivationStats].view)
    plain, compiled = views
    assert compiled.layers == plain.layers
    assert compiled.num_steps == plain.num_steps > 0
    np.testing.assert_allclose(compiled.rows, plain.rows, rtol=1e-4, atol=1e-6)


def test_sparse_adam_on_dense_gradients_is_torchs_own_error() -> None:
    with pytest.raises(RuntimeError, match="SparseAdam does not support dense gradients"):
        learner(opt_func=torch.optim.SparseAdam).fit(1)


@pytest.mark.parametrize(
    "name",
    [
        "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "ASGD", "LBFGS", "NAdam", "RAdam", "RMSprop",
        "Rprop", "SGD",
    ],
)  # fmt: skip
def test_every_dense_optimizer_of_torch_trains(name: str) -> None:
    learn = learner(opt_func=getattr(torch.optim, name), lr=0.01)
    before = weights(learn)
    learn.fit_one_cycle(1)
    trained = {"0.weight", "1.weight", "3.weight", "3.bias", "4.weight", "4.bias"}
    assert changed(before, weights(learn)) >= trained
    assert learn.loop.progress.step == NUM_BATCHES
