from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from actograph.errors import UsageError
from actograph.train.events import Callback
from actograph.train.loop import Loop
from actograph.train.state import Batch, SkipBatch, SkipStep, StopFit
from actograph.train.step import Supervised, TrainStep
from actograph.train.step_accumulate import Accumulate
from actograph.train.step_build import wrapped
from actograph.train.step_clip import Clip
from actograph.train.step_closure import Reevaluate
from actograph.train.step_precision import MixedPrecision
from actograph.train.step_wrapper import StepWrapper, find_step

Wrap = Callable[[TrainStep, torch.optim.Optimizer], TrainStep]
NUM_SAMPLES = 24


class Gradients(Callback):
    """Keeps the gradients that each step is about to be made with."""

    def __init__(self) -> None:
        self.seen: list[list[Tensor]] = []

    def before_step(self, loop: Loop) -> None:
        self.seen.append([p.grad.clone() for p in loop.model.parameters() if p.grad is not None])


class Raise(Callback):
    """Raises a request in the batches given, in one of three events."""

    def __init__(self, event: str, request: type[Exception], *batches: int) -> None:
        self.event, self.request, self.batches = event, request, batches

    def after_loss(self, loop: Loop) -> None:
        self.at("after_loss", loop)

    def after_backward(self, loop: Loop) -> None:
        self.at("after_backward", loop)

    def before_step(self, loop: Loop) -> None:
        self.at("before_step", loop)

    def at(self, event: str, loop: Loop) -> None:
        if event == self.event and loop.progress.batch in self.batches:
            raise self.request("on purpose")


class ClipByHand(Callback):
    def __init__(self, limit: float) -> None:
        self.limit = limit

    def before_step(self, loop: Loop) -> None:
        nn.utils.clip_grad_norm_(loop.model.parameters(), self.limit)


def make_loop(
    sizes: list[int],
    wrap: Wrap = lambda step, optimizer: step,
    dtype: torch.dtype = torch.float64,
    lr: float = 0.1,
) -> Loop:
    """Return a loop over the same samples in batches of these sizes."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(NUM_SAMPLES, 4, generator=generator, dtype=dtype)
    y = torch.randint(0, 3, (NUM_SAMPLES,), generator=generator)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    num = sum(sizes)
    batches = list(zip(torch.split(x[:num], sizes), torch.split(y[:num], sizes), strict=True))
    step = Supervised(model, nn.functional.cross_entropy, optimizer)
    return Loop(model, optimizer, wrap(step, optimizer), batches)


def accumulating(num_batches: int) -> Wrap:
    return lambda step, optimizer: Accumulate(step, optimizer, num_batches)


def weights(loop: Loop) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in loop.model.parameters()])


def assert_same_weights(ours: Loop, theirs: Loop, tolerance: float = 1e-14) -> None:
    assert torch.allclose(weights(ours), weights(theirs), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("small", "window", "large"),
    [
        ([6, 6, 6, 6], 2, [12, 12]),
        ([6, 5, 9, 4], 2, [11, 13]),  # uneven batches
        ([4, 4, 4, 4, 4], 2, [8, 8, 4]),  # a short last window
        ([5, 4, 7, 3, 5], 3, [16, 8]),  # both
        ([1, 20, 3], 5, [24]),  # less than a window in the whole epoch
    ],
)
def test_accumulated_gradients_equal_those_of_the_large_batch(
    small: list[int], window: int, large: list[int]
) -> None:
    ours, theirs = make_loop(small, accumulating(window)), make_loop(large)
    gathered, whole = Gradients(), Gradients()
    ours.fit(3, [gathered])
    theirs.fit(3, [whole])
    assert ours.progress.step == theirs.progress.step == 3 * len(large)
    for mine, other in zip(gathered.seen, whole.seen, strict=True):
        for gradient, expected in zip(mine, other, strict=True):
            assert torch.allclose(gradient, expected, rtol=1e-12, atol=1e-15)
    assert_same_weights(ours, theirs)
    assert ours.train_loss.compute() == pytest.approx(theirs.train_loss.compute())


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(1, 5))
def test_any_sizes_and_windows_equal_the_large_batches(sizes: list[int], window: int) -> None:
    large = [sum(sizes[start : start + window]) for start in range(0, len(sizes), window)]
    ours, theirs = make_loop(sizes, accumulating(window)), make_loop(large)
    ours.fit(2)
    theirs.fit(2)
    assert_same_weights(ours, theirs)


def test_what_has_no_gradient_is_left_alone() -> None:
    ours, theirs = make_loop([5, 6, 7], accumulating(2)), make_loop([11, 7])
    for loop in (ours, theirs):
        next(loop.model.parameters()).requires_grad_(False)
        loop.fit(2)
    assert_same_weights(ours, theirs)


def test_a_window_of_one_batch_is_the_plain_step_bit_for_bit() -> None:
    ours, theirs = make_loop([6, 6, 3], accumulating(1)), make_loop([6, 6, 3])
    ours.fit(2)
    theirs.fit(2)
    assert torch.equal(weights(ours), weights(theirs))


@pytest.mark.parametrize(("left_out", "large"), [(0, [4, 5, 6, 3]), (1, [3, 5, 6, 3]), (3, [3, 4, 5, 3])])
def test_a_batch_left_out_does_not_count_for_the_window(left_out: int, large: list[int]) -> None:
    """Windows of two: the batches that remain fill them, wherever the skipped one was."""
    sizes = [3, 4, 5, 6, 3]
    ours = make_loop(sizes, accumulating(2))
    ours.fit(1, [Raise("after_loss", SkipBatch, left_out)])
    theirs = make_loop(sizes, accumulating(2))
    del theirs.train_loader[left_out]  # type: ignore[attr-defined]
    theirs.fit(1)
    assert [len(y) for _, y in theirs.train_loader] == large
    assert torch.equal(weights(ours), weights(theirs))
    assert ours.progress.step == 2


def test_the_last_batch_left_out_still_ends_the_window() -> None:
    ours, theirs = make_loop([6, 6, 6], accumulating(2)), make_loop([12, 6])
    theirs.train_loader = [theirs.train_loader[0]]  # type: ignore[index]
    both = make_loop([6, 6, 6, 6], accumulating(2))
    ours.fit(2, [Raise("after_loss", SkipBatch, 2)])
    theirs.fit(2)
    assert_same_weights(ours, theirs)
    both.fit(1, [Raise("after_loss", SkipBatch, 3)])
    assert both.progress.step == 2
    assert both.progress.num_gathered == 0


def test_a_loader_that_ends_early_still_ends_the_window() -> None:
    class Short:
        def __init__(self, items: list[Any]) -> None:
            self.items = items

        def __len__(self) -> int:
            return 4

        def __iter__(self) -> Any:
            return iter(self.items)

    ours, theirs = make_loop([8, 8, 8], accumulating(2)), make_loop([16, 8])
    ours.train_loader = Short(ours.train_loader)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="gave 3 batches, not 4"):
        ours.fit(1)
    theirs.fit(1)
    assert_same_weights(ours, theirs)


def test_skip_step_drops_the_whole_window_and_a_new_one_begins() -> None:
    ours = make_loop([6, 6, 6, 6], accumulating(2))
    ours.fit(1, [Raise("after_backward", SkipStep, 1)])
    theirs = make_loop([12, 12])
    theirs.train_loader = [theirs.train_loader[1]]  # type: ignore[index]
    theirs.fit(1)
    assert_same_weights(ours, theirs)
    assert (ours.progress.step, ours.progress.num_skipped_steps) == (1, 1)
    assert ours.progress.dropped_fraction == 0.5


def test_a_fit_that_is_stopped_within_a_window_drops_it() -> None:
    ours, theirs = make_loop([12, 12], accumulating(2)), make_loop([24])
    start = weights(ours)
    ours.fit(1, [Raise("after_backward", StopFit, 0)])
    assert torch.equal(weights(ours), start)
    ours.fit(1)
    theirs.fit(1)
    assert_same_weights(ours, theirs)


@pytest.mark.parametrize("num_batches", [0, -1])
def test_a_window_needs_a_batch(num_batches: int) -> None:
    with pytest.raises(UsageError, match=f"at least 1, not {num_batches}"):
        make_loop([24], accumulating(num_batches))


def test_batches_are_gathered_in_one_place_only() -> None:
    def twice(step: TrainStep, optimizer: torch.optim.Optimizer) -> TrainStep:
        clipped = Clip(Accumulate(step, optimizer, 2), optimizer, norm=1.0)
        return Accumulate(clipped, optimizer, 2)

    with pytest.raises(UsageError, match="gathers batches already"):
        make_loop([24], twice)


def test_clipping_by_norm_equals_torchs_and_events_see_what_was_before() -> None:
    limit = 0.05
    ours = make_loop([12, 12], lambda step, optimizer: Clip(step, optimizer, norm=limit))
    theirs, seen = make_loop([12, 12]), Gradients()
    theirs.fit(1, [ClipByHand(limit)])
    ours.fit(1, [seen])
    assert torch.equal(weights(ours), weights(theirs))
    norms = [float(torch.cat([g.flatten() for g in step]).norm()) for step in seen.seen]
    assert all(norm > limit for norm in norms)
    clip = ours.step
    assert isinstance(clip, Clip)
    assert clip.last_clip_ratio is not None
    assert clip.last_clip_ratio.item() == pytest.approx(limit / norms[-1])


def test_clipping_by_value_cuts_entries_off() -> None:
    limit = 0.02
    loop = make_loop([24], lambda step, optimizer: Clip(step, optimizer, value=limit), lr=1.0)
    start, seen = weights(loop), Gradients()
    loop.fit(1, [seen])
    before = torch.cat([gradient.flatten() for gradient in seen.seen[0]])
    after = before.clamp(-limit, limit)
    assert not torch.equal(before, after)
    assert torch.allclose(weights(loop), start - after)
    assert isinstance(loop.step, Clip)
    assert loop.step.last_clip_ratio is not None
    assert loop.step.last_clip_ratio.item() == pytest.approx((after.norm() / before.norm()).item())


@pytest.mark.parametrize("limit", [{"norm": 1e6}, {"value": 1e6}])
def test_gradients_below_the_limit_have_the_ratio_one(limit: dict[str, float]) -> None:
    loop = make_loop([24], lambda step, optimizer: Clip(step, optimizer, **limit))
    assert isinstance(loop.step, Clip)
    assert loop.step.last_clip_ratio is None
    loop.fit(1)
    assert loop.step.last_clip_ratio == 1.0


@pytest.mark.parametrize("limit", [{"norm": 1.0}, {"value": 1.0}])
def test_gradients_of_zero_are_not_clipped(limit: dict[str, float]) -> None:
    loop = make_loop([24], lambda step, optimizer: Clip(step, optimizer, **limit))
    for parameter in loop.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    loop.step.update()
    assert isinstance(loop.step, Clip)
    assert loop.step.last_clip_ratio == 1.0


@pytest.mark.parametrize("limits", [{}, {"norm": 1.0, "value": 1.0}, {"norm": 0.0}, {"value": -1.0}])
def test_clipping_needs_one_positive_limit(limits: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"either by norm or by value|must be positive"):
        make_loop([24], lambda step, optimizer: Clip(step, optimizer, **limits))


def half(amp: Any, scaler: torch.amp.GradScaler | None = None) -> Wrap:
    return lambda step, optimizer: MixedPrecision(step, optimizer, amp, scaler)


def scaler_of(scale: float) -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", init_scale=scale)


@pytest.mark.parametrize(("amp", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_mixed_precision_equals_torchs_recipe_bit_for_bit(amp: str, dtype: torch.dtype) -> None:
    ours, theirs = (make_loop([12, 12], wrap, torch.float32) for wrap in (half(amp), accumulating(1)))
    scaler = torch.amp.GradScaler("cpu", enabled=amp == "fp16")
    ours.fit(3)
    for _ in range(3):
        for x, y in theirs.train_loader:
            with torch.autocast("cpu", dtype):
                loss = nn.functional.cross_entropy(theirs.model(x), y)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.step(theirs.optimizer)
            scaler.update()
            theirs.optimizer.zero_grad()
    assert torch.equal(weights(ours), weights(theirs))
    assert isinstance(ours.step, MixedPrecision)
    assert ours.step.scale == (65536.0 if amp == "fp16" else 1.0)


def test_outputs_come_in_float32_and_other_things_as_they_are() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> dict[str, Any]:
            out = self.inner(x)
            assert out.dtype == torch.bfloat16
            return {"out": (out, out.argmax(1)), "name": "two"}

    model = Two()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = MixedPrecision(Supervised(model, nn.functional.mse_loss, optimizer), optimizer, "bf16")
    pred = step.forward(Batch(torch.zeros(2, 4), None))
    assert pred["out"][0].dtype == torch.float32
    assert pred["out"][1].dtype == torch.int64
    assert pred["name"] == "two"


class Scales(Callback):
    """Keeps the scale after each batch, and counts the events around steps."""

    def __init__(self) -> None:
        self.scales: list[float] = []
        self.num_before = self.num_after = 0

    def before_step(self, loop: Loop) -> None:
        self.num_before += 1

    def after_step(self, loop: Loop) -> None:
        self.num_after += 1

    def after_batch(self, loop: Loop) -> None:
        step = loop.step
        assert isinstance(step, MixedPrecision)
        self.scales.append(step.scale)


def test_the_loss_is_computed_under_autocast_too() -> None:
    seen: list[torch.dtype] = []

    def contrastive(pred: Tensor, target: Tensor) -> Tensor:
        similarities = pred @ pred.T
        seen.append(similarities.dtype)
        return similarities.mean()

    loop = make_loop([24], dtype=torch.float32)
    step = Supervised(loop.model, contrastive, loop.optimizer)
    loop.step = MixedPrecision(step, loop.optimizer, "bf16")
    loop.fit(1)
    assert seen == [torch.bfloat16]


def test_an_overflow_skips_the_step_halves_the_scale_and_is_counted() -> None:
    """The gradient of the output is about 1/16 of the scale, and a float16 ends at 2^16."""
    loop, scales = make_loop([8, 8, 8], half("fp16", scaler_of(2.0**22)), torch.float32), Scales()
    start = weights(loop)
    loop.fit(2, [scales])
    num_skipped = loop.progress.num_skipped_steps
    assert 1 <= num_skipped < 6
    assert loop.progress.step == 6 - num_skipped
    assert (scales.num_before, scales.num_after) == (6, 6 - num_skipped)
    assert scales.scales == [2.0 ** (22 - min(k + 1, num_skipped)) for k in range(6)]
    assert not torch.equal(weights(loop), start)
    assert bool(weights(loop).isfinite().all())


ORDERS = list(itertools.permutations(["accumulate", "clip", "half"]))


@pytest.mark.parametrize("order", ORDERS)
def test_wrappers_may_stand_around_each_other_in_any_order(order: tuple[str, ...]) -> None:
    """Unscaled first, clipped last, whoever is outside."""
    limit = 0.05

    def wrap(step: TrainStep, optimizer: torch.optim.Optimizer) -> TrainStep:
        for name in order:
            if name == "accumulate":
                step = Accumulate(step, optimizer, 2)
            elif name == "clip":
                step = Clip(step, optimizer, norm=limit)
            else:
                step = MixedPrecision(step, optimizer, "fp16", scaler_of(1024.0))
        return step

    ours, seen = make_loop([6, 6, 7], wrap, torch.float32), Gradients()
    ours.fit(2, [seen])
    theirs, plain = make_loop([12, 7], half("fp16", scaler_of(1024.0)), torch.float32), Gradients()
    theirs.fit(2, [plain, ClipByHand(limit)])
    for mine, other in zip(seen.seen, plain.seen, strict=True):
        for gradient, expected in zip(mine, other, strict=True):
            assert torch.allclose(gradient, expected, rtol=0, atol=2e-3)  # a float16 has 11 bits
            assert float(gradient.abs().max()) < 1.0  # not scaled
    assert torch.allclose(weights(ours), weights(theirs), rtol=0, atol=1e-3)


@pytest.mark.parametrize("event", ["after_backward", "before_step"])
def test_skip_step_leaves_the_scaler_ready_for_the_next_window(event: str) -> None:
    loop = make_loop([8, 8, 8], half("fp16"), torch.float32)
    loop.fit(2, [Raise(event, SkipStep, 1)])
    assert loop.progress.step == 4
    assert loop.progress.num_skipped_steps == 2


def test_an_error_between_unscaling_and_the_step_leaves_the_scaler_ready_for_the_next_fit() -> None:
    loop = make_loop([8, 8, 8], half("fp16"), torch.float32)
    with pytest.raises(ZeroDivisionError):
        loop.fit(1, [Raise("before_step", ZeroDivisionError, 1)])
    loop.fit(1)
    assert loop.progress.step == 4


def test_the_scale_is_saved_and_taken_up() -> None:
    loop = make_loop([12, 12], half("fp16", scaler_of(256.0)), torch.float32)
    loop.fit(1)
    other = make_loop([12, 12], lambda step, optimizer: wrapped(step, optimizer, amp="fp16", accumulate=2))
    assert isinstance(loop.step, MixedPrecision)
    assert isinstance(other.step, Accumulate)
    other.step.load_state_dict(loop.step.state_dict())
    inner = find_step(other.step, MixedPrecision)
    assert inner is not None
    assert inner.scale == 256.0
    assert inner.scaler.state_dict()["_growth_tracker"] == 2
    assert other.step.state_dict() == loop.step.state_dict()
    inner.load_state_dict({"scaler": {}, "inner": {}})
    assert inner.scale == 256.0


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UsageError, match='"bf16" or "fp16", not \'fp8\''):
        make_loop([24], half("fp8"))


def lbfgs_loop(**options: Any) -> Loop:
    loop = make_loop([24])
    optimizer = torch.optim.LBFGS(loop.model.parameters(), lr=0.5, max_iter=4)
    step = Supervised(loop.model, nn.functional.cross_entropy, optimizer)
    return Loop(loop.model, optimizer, wrapped(step, optimizer, **options), loop.train_loader)


def test_lbfgs_equals_a_hand_written_closure_bit_for_bit() -> None:
    ours, theirs = lbfgs_loop(), lbfgs_loop()
    ours.fit(3)
    ((x, y),) = theirs.train_loader

    def closure() -> Tensor:
        theirs.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(theirs.model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    for _ in range(3):
        theirs.optimizer.step(closure)  # type: ignore[arg-type]
    assert torch.equal(weights(ours), weights(theirs))
    assert ours.progress.step == 3
    assert isinstance(ours.step, Reevaluate)


@pytest.mark.parametrize(
    "options", [{"accumulate": 2}, {"clip_norm": 1.0}, {"clip_value": 1.0}, {"amp": "fp16"}]
)
def test_what_a_closure_cannot_have_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="LBFGS computes loss and gradients itself"):
        lbfgs_loop(**options)


def test_lbfgs_works_under_autocast_to_bfloat16() -> None:
    loop = lbfgs_loop(amp="bf16")
    first = loop.train_loader[0]  # type: ignore[index]
    loop.train_loader = [(first[0].float(), first[1])]
    loop.model.float()
    loop.fit(3)
    assert loop.values["train_loss"] < 1.0


def test_without_options_the_step_is_as_it_was() -> None:
    loop = make_loop([24], wrapped)
    assert isinstance(loop.step, Supervised)
    assert find_step(loop.step, StepWrapper) is None


def test_options_make_a_pile_in_which_each_wrapper_is_found() -> None:
    loop = make_loop(
        [24], lambda step, optimizer: wrapped(step, optimizer, accumulate=2, clip_value=1.0, amp="bf16")
    )
    for cls in (Accumulate, Clip, MixedPrecision, Supervised):
        assert find_step(loop.step, cls) is not None


def test_a_step_of_ones_own_with_a_state_keeps_it_under_a_wrapper() -> None:
    class Counting(StepWrapper):
        num_steps = 0

        def update(self) -> bool:
            self.num_steps += 1
            return super().update()

        def state_dict(self) -> dict[str, Any]:
            return {"num_steps": self.num_steps}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.num_steps = state["num_steps"]

    loop = make_loop(
        [12, 12],
        lambda step, optimizer: wrapped(Counting(step), optimizer, clip_norm=1.0, amp="bf16"),
        torch.float32,
    )
    loop.fit(1)
    assert isinstance(loop.step, Clip)
    state = loop.step.state_dict()
    assert state == {"scaler": {}, "inner": {"num_steps": 2}}
    loop.fit(1)
    loop.step.load_state_dict(state)
    assert loop.step.state_dict() == state


def test_a_step_without_a_state_has_none_under_a_wrapper() -> None:
    loop = make_loop([24], accumulating(2))
    assert isinstance(loop.step, Accumulate)
    assert loop.step.state_dict() == {}
    loop.step.load_state_dict({})
