from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from actograph.errors import UsageError
from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop
from actograph.train.metrics import Accuracy
from actograph.train.state import Batch, Phase, SkipBatch, SkipStep, StopFit
from actograph.train.step import Supervised

from .stop_table import small_loop


class At(Callback):
    """Calls a function in one event of the train phase."""

    def __init__(self, event: str, action: Callable[[Loop], None]) -> None:
        self.event, self.action = event, action

    def before_fit(self, loop: Loop) -> None:
        self.call(loop, "before_fit")

    def before_batch(self, loop: Loop) -> None:
        self.call(loop, "before_batch")

    def after_loss(self, loop: Loop) -> None:
        self.call(loop, "after_loss")

    def before_step(self, loop: Loop) -> None:
        self.call(loop, "before_step")

    def after_step(self, loop: Loop) -> None:
        self.call(loop, "after_step")

    def after_batch(self, loop: Loop) -> None:
        self.call(loop, "after_batch")

    def after_epoch(self, loop: Loop) -> None:
        self.call(loop, "after_epoch")

    def cleanup_fit(self, loop: Loop) -> None:
        self.call(loop, "cleanup_fit")

    def call(self, loop: Loop, event: str) -> None:
        if event == self.event:
            self.action(loop)


def raising(error: BaseException) -> Callable[[Loop], None]:
    def action(loop: Loop) -> None:
        raise error

    return action


def notes_of(error: BaseException) -> str:
    return "\n".join(error.__notes__)


def test_a_callback_that_raises_gets_a_note_with_its_name_the_event_and_the_place() -> None:
    with pytest.raises(ZeroDivisionError) as error:
        small_loop().fit(2, [At("after_loss", lambda loop: 1 // 0)])  # type: ignore[arg-type]
    assert "raised by the callback at in after_loss" in notes_of(error.value)
    assert "epoch 0 of 2, train batch 0, step 0" in notes_of(error.value)


def test_an_error_in_the_model_gets_a_note_with_the_place() -> None:
    loop = small_loop()
    loop.train_loader = [(torch.zeros(4, 2), torch.zeros(4, 1)), (torch.zeros(4, 3), torch.zeros(4, 1))]
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as error:
        loop.fit(1)
    assert "train batch 1, step 1" in notes_of(error.value)


def test_every_cleanup_runs_although_others_fail_in_reverse_order() -> None:
    ran: list[str] = []

    class Cleaning(Callback):
        def __init__(self, name: str) -> None:
            self.name = name

        def cleanup_fit(self, loop: Loop) -> None:
            ran.append(self.name)
            raise ValueError(self.name)

    with pytest.raises(ValueError, match="first") as error:
        small_loop().fit(
            1, [Cleaning("first"), Cleaning("second"), At("after_loss", raising(OSError("disk")))]
        )
    assert ran == ["second", "first"]
    assert isinstance(error.value.__context__, ValueError)
    assert isinstance(error.value.__context__.__context__, OSError)
    assert "cleaning in cleanup_fit" in notes_of(error.value)


def test_cleanup_runs_for_a_callback_whose_before_fit_was_never_reached() -> None:
    ran: list[str] = []
    later = At("cleanup_fit", lambda loop: ran.append("later"))
    with pytest.raises(OSError, match="disk"):
        small_loop().fit(1, [At("before_fit", raising(OSError("disk"))), later])
    assert ran == ["later"]


def test_the_first_reason_to_stop_is_kept() -> None:
    loop = small_loop()
    callbacks = [At("after_step", raising(StopFit("first"))), At("after_epoch", raising(StopFit("second")))]
    loop.fit(3, callbacks)
    assert loop.stop_reason == "first"
    loop.fit(1)
    assert loop.stop_reason is None


def test_an_event_reaches_every_callback_before_a_request_is_obeyed() -> None:
    seen: list[int] = []
    stop = At("after_epoch", raising(StopFit("enough")))
    small_loop().fit(3, [stop, At("after_epoch", lambda loop: seen.append(loop.progress.epoch))])
    assert seen == [0]


@pytest.mark.parametrize("order", [1, -1])
def test_the_strongest_request_of_one_event_is_obeyed(order: int) -> None:
    loop = small_loop()
    requests = [SkipBatch(), StopFit("enough")][::order]
    loop.fit(3, [At("after_loss", raising(request)) for request in requests])
    assert loop.stop_reason == "enough"
    assert loop.progress.epoch == 0


@pytest.mark.parametrize(
    ("event", "request_"),
    [
        ("after_epoch", SkipBatch()),
        ("after_batch", SkipBatch()),
        ("after_loss", SkipStep()),
        ("before_fit", SkipStep()),
    ],
)
def test_a_request_in_the_wrong_event_is_an_error(event: str, request_: Exception) -> None:
    with pytest.raises(
        UsageError, match=f"{type(request_).__name__} was raised by the callback at in {event}"
    ):
        small_loop().fit(1, [At(event, raising(request_))])


def test_a_skipped_step_leaves_the_weights_and_drops_the_gradients() -> None:
    loop = small_loop()
    before = [parameter.clone() for parameter in loop.model.parameters()]
    loop.fit(2, [At("before_step", raising(SkipStep()))])
    assert loop.progress.step == 0
    for old, new in zip(before, loop.model.parameters(), strict=True):
        assert torch.equal(old, new)
        assert new.grad is None


def test_a_skipped_batch_counts_in_no_mean() -> None:
    loop = small_loop()
    loop.valid_loader = None

    def skip_first(loop: Loop) -> None:
        if loop.progress.batch == 0:
            raise SkipBatch

    seen: list[float] = []
    loop.fit(
        1, [At("after_loss", skip_first), At("after_step", lambda loop: seen.append(loop.batch.loss.item()))]
    )
    assert loop.train_loss.compute() == pytest.approx(seen[0])


def test_what_a_callback_writes_is_used() -> None:
    loop = small_loop()
    loop.valid_loader = None

    class Writer(Callback):
        def before_batch(self, loop: Loop) -> None:
            loop.batch.x = torch.zeros_like(loop.batch.x)

        def after_forward(self, loop: Loop) -> None:
            assert torch.equal(loop.batch.pred, loop.model(torch.zeros(4, 2)))
            loop.batch.pred = loop.batch.pred * 0

        def after_loss(self, loop: Loop) -> None:
            assert loop.batch.loss.item() == pytest.approx(loop.batch.y.square().mean().item())
            loop.batch.loss = loop.batch.loss + 1000

    loop.fit(1, [Writer()])
    assert loop.values["train_loss"] > 1000


def test_gradients_are_there_from_the_step_to_its_end_and_none_afterwards() -> None:
    def gradient(loop: Loop) -> Tensor | None:
        assert isinstance(loop.model, nn.Linear)
        return loop.model.weight.grad

    seen: list[bool] = []
    events = ("before_batch", "before_step", "after_step", "after_batch")
    loop = small_loop()
    loop.valid_loader = None
    loop.model.weight.grad = torch.ones(1, 2)  # left from before
    loop.fit(1, [At(event, lambda loop: seen.append(gradient(loop) is not None)) for event in events])
    assert seen == [False, True, True, False] * 2


class Modes(Callback):
    def __init__(self) -> None:
        self.seen: list[tuple[Phase, bool, bool]] = []

    def after_forward(self, loop: Loop) -> None:
        self.seen.append((loop.progress.phase, loop.model.training, loop.batch.pred.requires_grad))


def test_the_model_is_in_the_mode_of_the_phase_and_validation_has_no_gradients() -> None:
    modes = Modes()
    small_loop().fit(1, [modes])
    assert modes.seen == [(Phase.TRAIN, True, True)] * 2 + [(Phase.VALID, False, False)]


@pytest.mark.parametrize("error", [None, ValueError("broken"), KeyboardInterrupt(), StopFit("enough")])
def test_every_training_flag_comes_back(error: BaseException | None) -> None:
    loop = small_loop()
    loop.model = nn.Sequential(loop.model, nn.Dropout(0.1))
    loop.model[1].eval()
    loop.step = Supervised(loop.model, nn.functional.mse_loss, loop.optimizer)
    callbacks = [] if error is None else [At("after_loss", raising(error))]
    with contextlib.suppress(ValueError, KeyboardInterrupt):
        loop.fit(1, callbacks)
    assert [module.training for module in loop.model.modules()] == [True, True, False]
    assert torch.is_grad_enabled()


def test_a_fit_inside_a_fit_is_refused_and_the_loop_can_run_again() -> None:
    loop = small_loop()
    with pytest.raises(UsageError, match="running already"):
        loop.fit(1, [At("after_step", lambda loop: loop.fit(1))])
    loop.fit(1)


def test_a_refused_validation_inside_a_fit_leaves_the_epochs_values() -> None:
    loop = small_loop()
    values: list[dict[str, float]] = []

    def validate(loop: Loop) -> None:
        values.append(loop.values)
        with pytest.raises(UsageError, match="running already"):
            loop.validate()
        values.append(loop.values)

    loop.fit(1, [At("after_epoch", validate)])
    assert values[0] == values[1] != {}


def test_values_are_those_of_the_epoch_weighted_by_batch_size() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    batches = [(torch.randn(n, 3), torch.randint(0, 4, (n,))) for n in (8, 8, 3)]
    step = Supervised(model, nn.functional.cross_entropy, optimizer)
    loop = Loop(model, optimizer, step, batches, batches, metrics=[Accuracy()])
    assert loop.values == {}
    rows: list[dict[str, float]] = []
    loop.fit(2, [At("after_epoch", lambda loop: rows.append(loop.values))])
    x, y = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    loss = nn.functional.cross_entropy(model(x), y).item()
    right = (model(x).argmax(dim=1) == y).float().mean().item()
    assert rows[0] == rows[1]
    assert rows[0] == pytest.approx({"train_loss": loss, "valid_loss": loss, "accuracy": right}, rel=1e-6)


@pytest.mark.parametrize("form", ["tuple", "dict"])
def test_x_may_be_nested(form: str) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def forward(self, x: Any) -> Tensor:
            left, right = x.values() if isinstance(x, dict) else x
            return self.layer(left + right)  # type: ignore[no-any-return]

    parts = (torch.randn(4, 2), torch.randn(4, 2))
    x = {"left": parts[0], "right": parts[1]} if form == "dict" else parts
    model = Both()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loop = Loop(
        model, optimizer, Supervised(model, nn.functional.mse_loss, optimizer), [(x, torch.zeros(4, 1))]
    )
    loop.fit(2)
    assert loop.progress.step == 2


def test_the_last_batch_is_let_go_after_the_fit() -> None:
    loop = small_loop()
    loop.fit(1)
    assert loop.batch.x is None
    assert not loop.batch.has_loss


@pytest.mark.parametrize("epochs", [0, -1])
def test_a_fit_without_epochs_is_refused(epochs: int) -> None:
    with pytest.raises(UsageError, match=f"at least 1, not {epochs}"):
        small_loop().fit(epochs)


def test_validation_without_a_valid_loader_is_refused() -> None:
    loop = small_loop()
    loop.valid_loader = None
    with pytest.raises(UsageError, match="no valid loader"):
        loop.validate()


def test_an_empty_valid_loader_is_an_error_before_anything_is_trained() -> None:
    loop = small_loop()
    loop.valid_loader = []
    with pytest.raises(UsageError, match="valid loader is empty: it has 0 batches; give None"):
        loop.fit(1)
    assert loop.progress.step == 0


def test_a_used_up_valid_loader_is_an_error() -> None:
    loop = small_loop()
    loop.valid_loader = iter([(torch.zeros(4, 2), torch.zeros(4, 1))])
    with pytest.raises(UsageError, match="valid loader gave no batch in epoch 1"):
        loop.fit(2)


def test_a_loss_that_is_no_scalar_stops_the_fit_with_its_shape() -> None:
    loop = small_loop()
    loop.step = Supervised(loop.model, nn.MSELoss(reduction="none"), loop.optimizer)
    with pytest.raises(UsageError, match=r"its shape is \(4, 1\)"):
        loop.fit(1)


class EveryOther(Supervised):
    """A step that gathers two batches, to see that the loop has room for it."""

    gathered = 0
    lasts: list[bool]

    def complete(self, *, is_last: bool) -> bool:
        type(self).gathered += 1
        type(self).lasts.append(is_last)
        return self.gathered % 2 == 0 or is_last

    def update(self) -> bool:
        super().update()
        return self.gathered != 2


def test_a_step_may_gather_batches_and_may_decline_to_move() -> None:
    EveryOther.lasts, EveryOther.gathered = [], 0
    loop = small_loop()
    loop.train_loader = [(torch.randn(4, 2), torch.randn(4, 1)) for _ in range(5)]
    loop.valid_loader = None
    loop.step = EveryOther(loop.model, nn.functional.mse_loss, loop.optimizer)
    events: list[str] = []
    names = ("after_loss", "before_step", "after_step", "after_batch")
    loop.fit(1, [At(name, lambda loop, name=name: events.append(name)) for name in names])  # type: ignore[misc]
    gather, step = ["after_loss", "after_batch"], ["after_loss", "before_step", "after_step", "after_batch"]
    declined = ["after_loss", "before_step", "after_batch"]
    assert events == gather + declined + gather + step + step
    assert EveryOther.lasts == [False, False, False, False, True]
    assert loop.progress.step == 2


def test_observers_see_the_batch_that_others_have_changed() -> None:
    class Watcher(At):
        stage = Stage.MEASURE

    class Changer(At):
        stage = Stage.CHANGE

    def change(loop: Loop) -> None:
        loop.batch.loss = loop.batch.loss * 0

    seen: list[float] = []
    watch = Watcher("after_loss", lambda loop: seen.append(loop.batch.loss.item()))
    small_loop().fit(1, [watch, Changer("after_loss", change)])
    assert seen == [0.0] * 3


def test_a_batch_holds_only_its_own_fields() -> None:
    with pytest.raises(AttributeError):
        Batch(None, None).pred_ = 1  # type: ignore[attr-defined]
