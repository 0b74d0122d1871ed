from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad

from actograph.errors import RunInUseError, UsageError
from actograph.observe.watch import watch
from actograph.recording.recording import Recording
from actograph.rules.diagnose import diagnose
from actograph.rules.rule import Severity
from actograph.runlog.facts import FactKind
from actograph.runlog.reader import read_run

PLACES = [
    (torch.autograd, "backward"),
    (clip_grad, "clip_grad_norm_"),
    (functional, "cross_entropy"),
    (torch.amp.grad_scaler.GradScaler, "scale"),
    (torch.amp.grad_scaler.GradScaler, "step"),
]


def toy() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 6, **extra: Any) -> list[float]:
    losses = []
    for _ in range(steps):
        loss = functional.cross_entropy(model(torch.randn(16, 4)), torch.randint(3, (16,)))
        losses.append(loss.item())
        loss.backward()  # type: ignore[no-untyped-call]
        if "max_norm" in extra:
            torch.nn.utils.clip_grad_norm_(model.parameters(), extra["max_norm"])
        optimizer.step()
        optimizer.zero_grad()
    return losses


def test_losses_and_clipping_are_seen_where_nobody_says_them() -> None:
    model, optimizer = toy()
    with watch(model, optimizer, ":memory:", budget=None, gradients=True) as recording:
        losses = train(model, optimizer, max_norm=1e-3)
    view = recording.view()
    np.testing.assert_array_equal(view.scalar("loss").values, losses)
    norms, ratios = view.scalar("grad_norm").values, view.scalar("clip_ratio").values
    np.testing.assert_allclose(norms * ratios, 1e-3, rtol=1e-2)


def scaled_losses(factors: list[float]) -> Recording:
    """Train under a scaler with losses times these factors: an infinite one makes it leave out the update."""
    model, optimizer = toy()
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    with watch(model, optimizer, ":memory:", budget=None) as recording:
        for factor in factors:
            loss = model(torch.randn(16, 4)).square().mean() * factor
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    return recording


def test_updates_that_a_scaler_leaves_out_are_facts_and_no_alarm_once_training_goes_on() -> None:
    view = scaled_losses([1.0, 1.0, math.inf, math.inf, 1.0, math.inf, 1.0]).view()
    (fact,) = view.facts.of(FactKind.SKIPPED_UPDATE)
    assert fact.data == {"skipped": 3.0, "in_a_row": 0.0, "longest": 2.0, "scale": 16.0, "steps": [2.0, 3.0]}
    assert np.isfinite(view.scalar("loss").values).all()
    assert len(view.scalar("loss")) == 4
    assert not [one for one in diagnose(view).findings if one.severity > Severity.NOTE]


def test_a_training_whose_updates_a_scaler_leaves_out_for_good_shows_its_last_loss() -> None:
    view = scaled_losses([1.0, *[math.inf] * 3]).view()
    assert np.isinf(view.scalar("loss").values[-1])
    assert [one.rule for one in diagnose(view).at_least(Severity.ERROR)] == ["non-finite-loss"]
    assert view.facts.of(FactKind.SKIPPED_UPDATE)[0].number("longest") == 3.0


def test_losses_under_a_scaler_are_seen_unscaled_and_let_go() -> None:
    model, optimizer = toy()
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    losses = []
    with watch(model, optimizer, ":memory:", budget=None) as recording:
        for _ in range(3):
            loss = model(torch.randn(16, 4)).square().mean()
            losses.append(loss.item())
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        loss = model(torch.randn(16, 4)).square().mean()
        losses.append(loss.item())
        loss.backward()  # without the scaler, once
        optimizer.step()
    np.testing.assert_array_equal(recording.view().scalar("loss").values, losses)
    assert not optimizer._optimizer_step_post_hooks


def test_losses_are_seen_in_evaluation_mode_too() -> None:
    model, optimizer = toy()
    model.eval()
    with watch(model, optimizer, ":memory:", budget=None) as recording:
        losses = train(model, optimizer, 4)
    np.testing.assert_array_equal(recording.view().scalar("loss").values, losses)
    assert "eval-mode-in-training" in [finding.rule for finding in diagnose(recording.view()).findings]


def test_losses_that_are_said_replace_those_that_are_seen() -> None:
    model, optimizer = toy()
    with watch(model, optimizer, ":memory:", budget=None) as recording:
        for step in range(4):
            loss = model(torch.randn(16, 4)).square().mean()
            loss.backward()
            recording.loss(float(step))
            optimizer.step()
            optimizer.zero_grad()
    assert recording.view().scalar("loss").values.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_loss_scale_that_is_said_is_not_overwritten() -> None:
    model, optimizer = toy()
    with watch(model, optimizer, ":memory:", budget=None) as recording:
        recording.loss_scale = 8.0
        (8.0 * model(torch.randn(16, 4)).square().mean()).backward()
        assert recording.loss_scale == 8.0


def test_a_cell_run_twice_closes_the_recording_that_was_open(tmp_path: Path) -> None:
    model, optimizer = toy()
    first = watch(model, optimizer, tmp_path / "run", budget=None)
    train(model, optimizer, 3)
    with pytest.warns(UserWarning) as warned:  # noqa: PT030 the texts are compared below
        second = watch(model, optimizer, tmp_path / "run", budget=None)
    assert "3 steps" in str(warned[0].message)
    assert "run-2" in str(warned[1].message)
    train(model, optimizer, 5)
    second.close()
    assert first.path is not None
    assert second.path is not None
    assert (read_run(first.path).info.status, read_run(first.path).num_steps) == ("stopped", 3)
    assert (read_run(second.path).info.status, read_run(second.path).num_steps) == ("finished", 5)
    assert not model._forward_pre_hooks


def test_a_run_that_is_over_is_not_written_over(tmp_path: Path) -> None:
    model, optimizer = toy()
    watch(model, optimizer, tmp_path / "run").close()
    with pytest.raises(RunInUseError, match="already holds a run"):
        watch(model, optimizer, tmp_path / "run")


def test_nested_recordings_of_one_model_both_see_all() -> None:
    model, optimizer = toy()
    with watch(model, optimizer, ":memory:", budget=None) as outer:
        train(model, optimizer, 2)
        with watch(model, optimizer, ":memory:", budget=None, select=nn.Linear) as inner:
            train(model, optimizer, 3)
        train(model, optimizer, 1)
    assert (outer.num_steps, inner.num_steps) == (6, 3)
    assert (len(outer.view().scalar("loss")), len(inner.view().scalar("loss"))) == (6, 3)


@pytest.mark.parametrize("first", [0, 1])
def test_torch_is_as_before_in_whatever_order_recordings_are_closed(first: int) -> None:
    before = [getattr(owner, name) for owner, name in PLACES]
    recordings = [watch(*toy(), out=":memory:") for _ in range(2)]
    assert torch.autograd.backward is not before[0]
    recordings[first].close()
    recordings[1 - first].close()
    assert [getattr(owner, name) for owner, name in PLACES] == before


def test_several_models_and_optimizers_are_recorded_into_one_run() -> None:
    (maker, first), (judge, second) = toy(), toy()
    with watch([maker, judge], [first, second], ":memory:", budget=None) as recording:
        for _ in range(4):
            output: Tensor = maker(torch.randn(16, 4))
            (output.mean() + judge(torch.randn(16, 4)).mean()).backward()
            second.step()
            first.step()
            first.zero_grad()
            second.zero_grad()
    view = recording.view()
    assert view.num_steps == 4
    assert [info.name for info in view.layers][-1] == "sequential1.3"
    assert len(view.scalar("lr@1")) == 4
    assert not diagnose(view).at_least(Severity.WARNING)


def test_nothing_to_watch_is_refused() -> None:
    with pytest.raises(UsageError, match="0 models"):
        watch([], toy()[1])


def test_a_missing_zero_grad_is_seen_without_a_word() -> None:
    model, optimizer = toy()
    with watch(model, optimizer, ":memory:", budget=None) as recording:
        for _ in range(8):
            loss = functional.cross_entropy(model(torch.randn(16, 4)), torch.randint(3, (16,)))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    rules = [finding.rule for finding in diagnose(recording.view()).findings]
    assert "missing-zero-grad" in rules


def test_a_phase_that_is_said_tells_evaluation_from_training() -> None:
    model, optimizer = toy()
    with watch(model, optimizer, ":memory:", budget=None) as recording:
        for _ in range(3):
            recording.phase("train")
            train(model, optimizer, 2)
            recording.phase("valid")
            with torch.no_grad():
                model(torch.randn(16, 4))
            recording.step(accuracy=0.5)
    view = recording.view()
    (finding,) = (one for one in diagnose(view).findings if one.rule == "train-mode-in-evaluation")
    assert (finding.layer, finding.first_step) == ("1", 2)
    assert isinstance(recording, Recording)


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
def test_functions_that_call_a_patched_place_can_still_be_scripted_and_compiled() -> None:
    def loss(output: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(output, y)

    output, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    with watch(*toy(), out=":memory:"):
        scripted = torch.jit.script(nn.CrossEntropyLoss())
        compiled = torch.compile(loss, backend="eager", fullgraph=True)
        assert scripted(output, y) == compiled(output, y) == loss(output, y)
