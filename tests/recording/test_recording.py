from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from actograph.errors import RunInUseError, UsageError
from actograph.layout.row import Field
from actograph.observe.watch import watch
from actograph.recording import new_run as new_run_module
from actograph.recording.new_run import new_run
from actograph.recording.recording import Recording
from actograph.runlog.reader import read_run
from actograph.testing.reference import numpy_row


def toy() -> tuple[nn.Sequential, torch.optim.Optimizer]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def batches(num: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(num):
        yield torch.randn(16, 4, generator=generator)


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, num: int, recording: Recording | None = None
) -> list[float]:
    losses = []
    for x in batches(num):
        loss = model(x).square().mean()
        if recording is not None:
            recording.loss(loss)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return losses


def num_hooks(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    own = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    return own + len(optimizer._optimizer_step_post_hooks) + len(optimizer._optimizer_step_pre_hooks)


def test_every_step_has_its_rows_its_loss_and_its_rate(tmp_path: Path) -> None:
    model, optimizer = toy()
    with watch(model, optimizer, tmp_path / "run", budget=None) as recording:
        losses = train(model, optimizer, 5, recording)
    view = read_run(tmp_path / "run")
    assert view.last_steps.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(view.scalar("loss").values, losses)
    assert view.scalar("lr").values.tolist() == [0.1] * 5
    assert view.scalar("momentum").values.tolist() == [0.9] * 5
    assert [layer.name for layer in view.layers] == ["0", "1", "2"]
    assert (view.info.status, view.info.cost.steps_seen, view.info.cost.steps_recorded) == ("finished", 5, 5)
    assert num_hooks(model, optimizer) == 0


def test_rows_are_those_of_the_weights_before_the_step() -> None:
    model, optimizer = toy()
    expected = [numpy_row(layer_output.numpy()) for layer_output in by_layers(model, next(batches(1)))]
    with watch(model, optimizer, ":memory:", budget=None) as recording:
        train(model, optimizer, 3, recording)
    rows = recording.view().rows[0].copy()
    rows[1, Field.FLAT] = 0  # the reference was given no region
    np.testing.assert_allclose(rows, expected, rtol=1e-5)


def by_layers(model: nn.Sequential, x: Tensor) -> list[Tensor]:
    outputs = []
    with torch.no_grad():
        for layer in model:
            x = layer(x)
            outputs.append(x)
    return outputs


def test_recording_changes_nothing() -> None:
    plain, watched = toy(), toy()
    state = torch.get_rng_state()
    losses = train(*plain, num=6)
    with watch(*watched, ":memory:", budget=None) as recording:
        assert train(*watched, num=6, recording=recording) == losses
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(plain[0].parameters(), watched[0].parameters(), strict=True):
        assert torch.equal(a, b)


def test_micro_batches_are_one_step() -> None:
    model, optimizer = toy()
    parts = list(batches(4))
    with watch(model, optimizer, ":memory:", budget=None) as recording:
        for x in parts:
            loss = model(x).square().mean()
            recording.loss(loss)
            loss.backward()
        optimizer.step()
    view = recording.view()
    assert view.num_steps == 1
    assert view.moments.num[0].tolist() == [64 * 8, 64 * 8, 64 * 2]
    assert len(view.scalar("loss")) == 1


def test_evaluation_is_not_recorded() -> None:
    model, optimizer = toy()
    with watch(model, optimizer, ":memory:", budget=None) as recording:
        train(model, optimizer, 1, recording)
        with torch.no_grad():
            model(torch.ones(100, 4))
        model.eval()
        model(torch.ones(100, 4))
        recording.phase("valid", epoch=0)
        model.train()
        model(torch.ones(100, 4))
        recording.step(loss=0.25, accuracy=0.5)
        recording.phase("train", epoch=1)
        train(model, optimizer, 1, recording)
    view = recording.view()
    assert view.moments.num[:, 0].tolist() == [16 * 8, 16 * 8]
    assert view.scalar("accuracy", "valid").values.tolist() == [0.5]
    assert view.scalar("accuracy", "valid").steps.tolist() == [0]
    assert [(event.kind, event.step, event.data["name"]) for event in view.events] == [
        ("phase", 1, "valid"),
        ("phase", 1, "train"),
    ]


def test_a_phase_that_is_named_training_is_recorded_in_eval_mode_too() -> None:
    model, optimizer = toy()
    model.eval()  # the mistake of a user who forgot model.train(): it must be seen
    with watch(model, optimizer, ":memory:", budget=None) as recording:
        recording.phase("train")
        train(model, optimizer, 2, recording)
    assert len(recording.view().buckets) == 2


def test_without_an_optimizer_the_caller_ends_the_steps() -> None:
    model, optimizer = toy()
    recording = Recording(new_run("own", ":memory:"), budget=None)
    recording.attach(model)
    for x in batches(3):
        model(x).mean().backward()
        optimizer.step()
        recording.step(error=1.0)
    recording.close()
    view = recording.view()
    assert view.last_steps.tolist() == [0, 1, 2]
    assert view.scalar("error").steps.tolist() == [0, 1, 2]


def test_scalars_belong_to_the_step_that_ended_last() -> None:
    model, optimizer = toy()
    with watch(model, optimizer, ":memory:", budget=None) as recording:
        for _ in range(3):
            train(model, optimizer, 1, recording)
            recording.step(error=2.0)
    assert recording.view().scalar("error").steps.tolist() == [0, 1, 2]


def test_several_models_and_optimizers_keep_their_names_apart() -> None:
    generator, optimizer = toy()
    critic, critic_optimizer = toy()
    with watch(generator, optimizer, ":memory:", budget=None) as recording:
        recording.attach(critic)
        recording.optimizer(critic_optimizer)
        for x in batches(2):
            (generator(x).mean() + critic(x).mean()).backward()
            critic_optimizer.step()
            optimizer.step()
    view = recording.view()
    assert [layer.name for layer in view.layers][3:] == ["sequential1.0", "sequential1.1", "sequential1.2"]
    assert view.num_steps == 2
    assert len(view.scalar("lr@1")) == 2


def test_losses_that_wait_are_stored_at_the_end() -> None:
    model, optimizer = toy()
    with watch(model, optimizer, ":memory:", budget=None) as recording:
        recording.loss(3.5)
        optimizer.step()
        recording.loss(torch.tensor(math.nan))
        optimizer.step()
    series = recording.view().scalar("loss")
    assert series.values[0] == 3.5
    assert series.first_non_finite == 1


def test_a_budget_thins_the_steps_and_says_so() -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.1  # every look at the clock takes a tenth of a second: recorded steps cost some of them
        return now[0]

    model, optimizer = toy()
    recording = Recording(new_run("own", ":memory:"), budget=0.01, clock=clock)
    recording.attach(model)
    recording.optimizer(optimizer)
    train(model, optimizer, 60, recording)
    recording.close()
    cost = recording.view().info.cost
    assert cost.steps_seen == 60
    assert 4 <= cost.steps_recorded < 30
    assert len(recording.view().buckets) == cost.steps_recorded
    assert len(recording.view().scalar("loss")) == 60  # scalars are never thinned


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "failed"), (KeyboardInterrupt, "interrupted"), (None, "finished")]
)
def test_however_it_ends_hooks_go_and_the_run_stays(
    error: type[BaseException] | None, status: str, tmp_path: Path
) -> None:
    model, optimizer = toy()
    recording = watch(model, optimizer, tmp_path / "run", budget=None)
    with contextlib.suppress(ValueError, KeyboardInterrupt), recording:
        train(model, optimizer, 2, recording)
        if error is not None:
            raise error
    assert num_hooks(model, optimizer) == 0
    view = read_run(tmp_path / "run")
    assert (view.info.status, view.num_steps) == (status, 2)


def test_a_closed_recording_is_taken_up_by_attaching_again() -> None:
    model, optimizer = toy()
    recording = watch(model, optimizer, ":memory:", budget=None)
    train(model, optimizer, 2, recording)
    recording.close()
    train(model, optimizer, 2)
    recording.attach(model)
    recording.optimizer(optimizer)
    train(model, optimizer, 2, recording)
    recording.close()
    assert recording.view().last_steps.tolist() == [0, 1, 2, 3]
    assert num_hooks(model, optimizer) == 0


def test_data_parallel_is_refused() -> None:
    model, optimizer = toy()
    several = nn.DataParallel(model)
    several.device_ids = [0, 1]
    with pytest.raises(UsageError, match="DataParallel"):
        watch(several, optimizer, ":memory:")


def test_data_parallel_that_makes_no_copies_is_recorded() -> None:
    model, optimizer = toy()
    alone = nn.DataParallel(model)
    assert not alone.device_ids
    with watch(alone, optimizer, ":memory:", budget=None) as recording:
        alone(torch.ones(2, 4)).sum().backward()
        optimizer.step()
    assert len(recording.view().layers) == len(list(model))


def test_a_setting_that_cannot_be_used_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="matches no layer"):
        watch(*toy(), tmp_path / "run", select="conv*")
    with pytest.raises(UsageError, match="budget=7"):
        watch(*toy(), tmp_path / "run", budget=7)
    assert not (tmp_path / "run").exists()


def test_runs_of_one_second_get_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_run_module, "RUNS", tmp_path)
    writers = [new_run("my net/v2") for _ in range(3)]
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 3
    assert all(re.fullmatch(r"\d{8}-\d{6}-my-net-v2(-\d)?", name) for name in names)
    for writer in writers:
        writer.close("finished")


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    taken = new_run("taken", tmp_path / "run")
    taken.info = replace(taken.info, pid=0)  # of another process
    taken.flush()
    with pytest.raises(RunInUseError, match="choose another"):
        watch(*toy(), tmp_path / "run")
    taken.close("finished")
