from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from actograph.callbacks.activation_stats import ActivationStats
from actograph.callbacks.guard import Guard, in_words
from actograph.errors import UsageError
from actograph.rules.diagnose import diagnose
from actograph.rules.rule import Diagnosis, Finding, Remedy, Severity
from actograph.runlog.reader import read_run
from actograph.testing.callbacks import tiny_loop, weights
from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop
from actograph.train.state import Phase
from actograph.train.step import Supervised
from actograph.train.waiting import MAX_WAITING as BLOCK


class BadLoss(Callback):
    """Make the loss of one training batch, by number, a value."""

    stage = Stage.CHANGE

    def __init__(self, at: int, value: float = math.nan) -> None:
        self.at, self.value = at, value
        self.num_batches = 0

    def after_loss(self, loop: Loop) -> None:
        if loop.progress.phase is Phase.TRAIN:
            self.num_batches += 1
            if self.num_batches - 1 == self.at:
                loop.batch.loss = loop.batch.loss * self.value


class OnAccelerator(Callback):
    """Let a Guard think that reading a loss is slow."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard

    def before_epoch(self, loop: Loop) -> None:
        self.guard._reads_at_once = False


@pytest.mark.parametrize(("value", "word"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_a_loss_that_is_no_number_ends_the_fit_before_the_weights_are_touched(
    value: float, word: str
) -> None:
    healthy, loop = tiny_loop(), tiny_loop()
    torch.manual_seed(0)
    loop.fit(3, [Guard(), BadLoss(4, value)])
    assert loop.stop_reason == f"the loss is {word} at step 4 (epoch 1, batch 1)"
    assert loop.progress.step == 4
    assert all(math.isfinite(number) for tensor in weights(loop.model) for number in tensor)
    healthy.fit(3, [Guard()])
    assert healthy.stop_reason is None


def test_the_step_that_a_bad_loss_ended_is_kept_for_the_diagnosis() -> None:
    torch.manual_seed(0)
    loop = tiny_loop()
    stats = ActivationStats(out=":memory:", budget=None)
    loop.fit(3, [stats, BadLoss(4), Guard()])
    assert math.isnan(stats.view.scalar("loss").values[-1])
    assert stats.view.num_steps == 5
    assert any(
        found.rule == "non-finite-loss" and found.first_step == 4 for found in diagnose(stats.view).findings
    )


def test_a_warning_comes_once_in_a_fit() -> None:
    class Always(Callback):
        def after_loss(self, loop: Loop) -> None:
            loop.batch.loss = loop.batch.loss * math.nan

    guard, loop = Guard("warn"), tiny_loop()
    for _ in range(2):
        with pytest.warns(
            RuntimeWarning, match=r"the loss is nan at step \d \(epoch 0, batch 0\); .*stop"
        ) as told:
            loop.fit(2, [guard, Always()])
        assert len(told) == 1
        assert loop.stop_reason is None
    loop.fit(1, [Guard("ignore"), Always()])  # warnings are errors here


def test_losses_of_an_accelerator_are_looked_at_in_blocks_and_named_exactly() -> None:
    loop, guard = tiny_loop(), Guard()
    batch = next(iter(loop.train_loader))
    loop.train_loader = [batch] * (BLOCK + 10)
    loop.fit(2, [guard, BadLoss(7), OnAccelerator(guard)])
    assert loop.stop_reason == "the loss is nan at step 7 (epoch 0, batch 7)"
    assert loop.progress.step == BLOCK - 1
    loop = tiny_loop()
    loop.train_loader = [batch] * (BLOCK + 10)
    loop.fit(2, [guard, BadLoss(BLOCK + 3), OnAccelerator(guard)])
    assert loop.stop_reason is not None
    assert f"(epoch 0, batch {BLOCK + 3})" in loop.stop_reason  # at the end of the phase
    assert (loop.progress.phase, loop.progress.batch) == (Phase.TRAIN, BLOCK + 9)
    assert guard._waiting.take() == []


def test_a_bad_loss_in_validation_is_not_the_guards() -> None:
    class Bad(Callback):
        def after_loss(self, loop: Loop) -> None:
            if loop.progress.phase is Phase.VALID:
                loop.batch.loss = loop.batch.loss * math.nan

    loop = tiny_loop()
    loop.fit(1, [Guard(), Bad()])
    assert loop.stop_reason is None


class DropBias(Callback):
    """Kill all units of the first layer before a step."""

    stage = Stage.CHANGE

    def __init__(self, at: int) -> None:
        self.at = at

    def before_batch(self, loop: Loop) -> None:
        if loop.progress.step == self.at:
            layer = loop.model.get_submodule("0")
            assert isinstance(layer, nn.Linear)
            with torch.no_grad():
                layer.bias.fill_(-20.0)


def easy_loop(num_batches: int = 40) -> Loop:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    centers = torch.randn(3, 8) * 1.5
    targets = [torch.randint(0, 3, (32,)) for _ in range(num_batches)]
    batches = [(centers[y] + torch.randn(32, 8), y) for y in targets]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    return Loop(model, optimizer, Supervised(model, nn.functional.cross_entropy, optimizer), batches)


def test_a_finding_ends_the_fit_and_the_run_on_disk_says_the_same(tmp_path: Path) -> None:
    stats = ActivationStats(budget=None, out=tmp_path / "run")
    guard, loop = Guard(stop_on="warning"), easy_loop()
    loop.fit(10, [stats, guard, DropBias(0)])
    (found,) = guard.diagnosis.findings
    assert found.rule == "dead-units"
    assert found.layer == "1"
    assert found.first_step == 0
    assert loop.stop_reason == in_words(found)
    assert loop.stop_reason.startswith(f"dead-units in 1, steps {found.first_step} to ")
    assert "First remedy: " in loop.stop_reason
    assert loop.progress.step < 400
    assert diagnose(read_run(tmp_path / "run")).findings == guard.diagnosis.findings


def test_a_cause_is_warned_of_once_and_the_fit_goes_on(tmp_path: Path) -> None:
    stats = ActivationStats(budget=None, out=":memory:")
    guard, loop = Guard(every=10), easy_loop()
    with pytest.warns(RuntimeWarning) as told:
        loop.fit(5, [stats, guard, DropBias(0)])
    assert loop.stop_reason is None
    assert loop.progress.step == 200
    assert [str(warning.message).split(",")[0] for warning in told] == ["dead-units in 1"]
    assert guard.diagnosis == diagnose(stats.view)


def test_a_healthy_run_is_left_alone_until_the_end() -> None:
    stats = ActivationStats(budget=None, out=":memory:")
    guard, loop = Guard(stop_on="warning"), easy_loop()
    loop.fit(5, [stats, guard])
    assert loop.stop_reason is None
    assert guard.diagnosis == diagnose(stats.view)


class Checks(Guard):
    """A Guard that notes after which step it diagnosed, and finds what it is told to."""

    def __init__(self, *findings: Finding, **settings: Any) -> None:
        super().__init__(**settings)
        self.at: list[int] = []
        self.script = findings

    def _diagnose(self) -> None:
        self.at.append(self._num_steps)
        super()._diagnose()


@pytest.mark.parametrize(
    ("num_batches", "epochs", "every", "at"),
    [
        (40, 6, None, [40, 80, 120, 160, 200, 240]),
        (950, 1, None, [100, 200, 400, 800, 950]),
        (7, 3, 10, [10, 20, 21]),
        (1, 30, None, [*range(1, 12), *range(13, 21, 2), 21, 24, 27, 30]),
    ],
)
def test_it_looks_at_growing_intervals(
    num_batches: int, epochs: int, every: int | None, at: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actograph.callbacks.guard.diagnose", lambda view, rules: Diagnosis())
    loop = tiny_loop(is_valid=False)
    loop.train_loader = [next(iter(loop.train_loader))] * num_batches
    guard = Checks(every=every)
    loop.fit(epochs, [ActivationStats(out=":memory:"), guard])
    assert guard.at == at


def finding(rule: str, severity: Severity, layer: str | None = None) -> Finding:
    return Finding(rule, severity, layer, 1, 1, {"n": 1.0}, f"{rule} it is.", (Remedy("stop", "it"),))


def scripted(
    monkeypatch: pytest.MonkeyPatch, *findings: Finding
) -> Callable[[Guard], tuple[Loop, list[str]]]:
    """Return a function that fits with a Guard whose rules find these things each time they look."""
    monkeypatch.setattr("actograph.callbacks.guard.diagnose", lambda view, rules: Diagnosis(findings))

    def fit(guard: Guard) -> tuple[Loop, list[str]]:
        loop = tiny_loop()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            loop.fit(3, [ActivationStats(out=":memory:"), guard])
        return loop, [str(warning.message) for warning in told]

    return fit


def test_what_ends_the_fit_and_what_is_only_told(monkeypatch: pytest.MonkeyPatch) -> None:
    error, warning = finding("bad", Severity.ERROR), finding("odd", Severity.WARNING, "fc")
    fit = scripted(monkeypatch, error, warning, finding("fine", Severity.NOTE))
    loop, told = fit(Guard(stop_on="error"))
    assert loop.stop_reason == "bad, at step 1: bad it is. First remedy: stop (it)."
    assert told == ["odd in fc, at step 1: odd it is. First remedy: stop (it)."]
    loop, told = fit(Guard())
    assert loop.stop_reason is None
    assert [message.split(",")[0] for message in told] == ["bad", "odd in fc"]
    loop, told = scripted(monkeypatch, warning)(Guard(stop_on="error"))
    assert loop.stop_reason is None
    assert len(told) == 1
    loop, told = scripted(monkeypatch, warning)(Guard(rules=()))
    assert told == []


def test_a_warned_cause_that_gets_worse_ends_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = Guard(stop_on="error")
    _, told = scripted(monkeypatch, finding("bad", Severity.WARNING))(guard)
    assert len(told) == 1
    loop, _ = scripted(monkeypatch, finding("bad", Severity.ERROR))(guard)
    assert loop.stop_reason is not None


def test_it_goes_on_from_its_saved_state(monkeypatch: pytest.MonkeyPatch) -> None:
    class Load(Callback):
        def before_epoch(self, loop: Loop) -> None:
            second.load_state_dict(state)

    fit = scripted(monkeypatch, finding("bad", Severity.WARNING))
    first, second = Guard(), Guard()
    fit(first)
    state = first.state_dict()
    assert state == {"num_steps": 9, "checked_at": 9, "warned": ["bad "], "is_loss_bad": False}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny_loop().fit(1, [ActivationStats(out=":memory:"), second, Load()])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"non_finite": "raise"}, "non_finite='raise': choose 'stop', 'warn' or 'ignore'"),
        ({"stop_on": "note"}, "stop_on='note': choose 'error', 'warning' or None"),
        ({"every": 0}, "every=0: .* at least 1"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Guard(**settings)


def test_settings_that_would_be_ignored_are_refused() -> None:
    with pytest.raises(
        UsageError, match=r"Guard\(stop_on='error'\) judges what ActivationStats records.* none"
    ):
        tiny_loop().fit(1, [Guard(stop_on="error")])
    with pytest.raises(UsageError, match=r"Guard\(every=5\)"):
        tiny_loop().fit(1, [Guard(every=5)])
    with pytest.raises(UsageError, match="no rules"):
        tiny_loop().fit(1, [ActivationStats(out=":memory:"), Guard(every=5, rules=())])
    with pytest.raises(UsageError, match="2 callbacks of class Guard"):
        tiny_loop().fit(1, [Guard(), Guard()])


def test_a_loss_stays_a_tensor_for_others() -> None:
    class Seen(Callback):
        stage = Stage.REPORT
        loss: Tensor | None = None

        def after_loss(self, loop: Loop) -> None:
            Seen.loss = loop.batch.loss

    tiny_loop(is_valid=False).fit(1, [Guard(), Seen()])
    assert Seen.loss is not None
    assert Seen.loss.requires_grad
