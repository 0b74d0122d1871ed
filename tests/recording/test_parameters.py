from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from actograph.layout.parameter import ParameterField
from actograph.observe.watch import watch
from actograph.recording.facts.recorder import FactRecorder
from actograph.recording.new_run import new_run
from actograph.recording.recording import Recording
from actograph.runlog.reader import read_run
from actograph.runlog.view import RunView
from actograph.train import waiting

from .test_recording import batches, num_hooks, toy, train

STATISTICS = ("grad_norm", "grad_max", "weight_norm", "update_norm")


def by_hand(num: int, clip: float = math.inf) -> dict[str, np.ndarray]:
    """Train the toy model and gather (steps, parameters) of each statistic in float64 numpy."""
    model, optimizer = toy()
    parameters = list(model.parameters())
    gathered: dict[str, list[list[float]]] = {name: [] for name in (*STATISTICS, "clip_ratio")}
    for x in batches(num):
        loss = model(x).square().mean()
        gradients = [g.double().numpy() for g in torch.autograd.grad(loss, parameters, retain_graph=True)]
        loss.backward()
        before = [p.detach().double().numpy().copy() for p in parameters]
        nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        optimizer.zero_grad()
        after = [p.detach().double().numpy() for p in parameters]
        gathered["grad_norm"].append([float(np.linalg.norm(g)) for g in gradients])
        gathered["grad_max"].append([float(np.abs(g).max()) for g in gradients])
        gathered["weight_norm"].append([float(np.linalg.norm(w)) for w in before])
        gathered["update_norm"].append(
            [float(np.linalg.norm(a - b)) for a, b in zip(after, before, strict=True)]
        )
        total = math.sqrt(sum(float(np.square(g).sum()) for g in gradients))
        gathered["clip_ratio"].append([min(1.0, clip / total)])
    return {name: np.array(rows) for name, rows in gathered.items()}


def assert_equal(view: RunView, expected: dict[str, np.ndarray]) -> None:
    for name in STATISTICS:
        np.testing.assert_allclose(
            view.parameters.column(name), expected[name], rtol=1e-5, atol=1e-8, err_msg=name
        )


@pytest.mark.parametrize("num", [5, 2 * waiting.MAX_WAITING + 3])
def test_every_step_equals_a_hand_written_one(num: int, tmp_path: Path) -> None:
    model, optimizer = toy()
    with watch(model, optimizer, tmp_path / "run", budget=None, gradients=True) as recording:
        train(model, optimizer, num, recording)
    view = read_run(tmp_path / "run")
    expected = by_hand(num)
    assert view.parameters.names == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert view.parameters.last_steps.tolist() == list(range(num))
    assert_equal(view, expected)
    np.testing.assert_allclose(
        view.parameters.column("update_ratio"), expected["update_norm"] / expected["weight_norm"], rtol=1e-4
    )
    totals = np.sqrt(np.square(expected["grad_norm"]).sum(axis=1))
    np.testing.assert_allclose(view.scalar("grad_norm").values, totals, rtol=1e-5)
    assert len(view.scalar("clip_ratio")) == 0
    assert num_hooks(model, optimizer) == 0


def test_gradients_are_those_before_clipping_where_the_caller_says_when() -> None:
    model, optimizer = toy()
    with watch(model, optimizer, ":memory:", budget=None, gradients=True) as recording:
        for x in batches(6):
            model(x).square().mean().backward()
            recording.gradients()
            nn.utils.clip_grad_norm_(model.parameters(), 0.2)
            optimizer.step()
            optimizer.zero_grad()
    expected = by_hand(6, clip=0.2)
    assert_equal(recording.view(), expected)
    ratios = recording.view().scalar("clip_ratio").values
    assert ratios.min() < 0.9
    np.testing.assert_allclose(ratios, expected["clip_ratio"][:, 0], rtol=1e-5)


def test_recording_gradients_changes_nothing() -> None:
    plain, watched = toy(), toy()
    losses = train(*plain, num=6)
    state = torch.get_rng_state()
    with watch(*watched, ":memory:", budget=None, grad=True, gradients=True) as recording:
        assert train(*watched, num=6, recording=recording) == losses
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(plain[0].parameters(), watched[0].parameters(), strict=True):
        assert torch.equal(a, b)


def test_accumulated_gradients_are_measured_once_and_whole() -> None:
    model, optimizer = toy()
    with watch(model, optimizer, ":memory:", budget=None, grad=True, gradients=True) as recording:
        for x in batches(4):
            model(x).square().mean().backward()
        gradients = [p.grad.double().clone() for p in model.parameters() if p.grad is not None]
        recording.gradients()
        optimizer.step()
    view = recording.view()
    assert len(view.parameters.buckets) == 1
    np.testing.assert_allclose(
        view.parameters.column("grad_norm")[0], [g.norm().item() for g in gradients], rtol=1e-5
    )
    assert view.gradients.moments.num[0].tolist() == [64 * 8, 64 * 8, 64 * 2]


def test_a_step_that_was_skipped_leaves_no_trace() -> None:
    model, optimizer = toy()
    with watch(model, optimizer, ":memory:", budget=None, gradients=True) as recording:
        first, second = batches(2)
        (model(first).square().mean() * math.inf).backward()
        recording.gradients()  # a scaler would see the overflow and not step
        optimizer.zero_grad()
        model(second).square().mean().backward()
        recording.gradients()
        optimizer.step()
    view = recording.view()
    assert len(view.parameters.buckets) == 1
    assert view.parameters.column("non_finite").sum() == 0
    assert view.scalar("grad_norm").first_non_finite is None


def test_an_optimizer_that_computes_gradients_itself_is_measured_afterwards() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.tensor([4.0, 3.0]))
    model = nn.Linear(2, 1, bias=False)
    model.weight = nn.Parameter(weight.detach()[None])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def closure() -> float:
        optimizer.zero_grad()
        loss = model.weight.square().sum() / 2
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    with watch(model, optimizer, ":memory:", budget=None, gradients=True) as recording:
        optimizer.step(closure)
        optimizer.step(closure=closure)
    view = recording.view().parameters
    np.testing.assert_allclose(view.column("grad_norm")[:, 0], [5.0, 4.5])
    np.testing.assert_allclose(view.column("weight_norm")[:, 0], [5.0, 4.5])
    np.testing.assert_allclose(view.column("update_norm")[:, 0], [0.5, 0.45], rtol=1e-6)


def test_gradients_that_an_optimizer_computes_again_are_those_measured_first() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)
    x = torch.randn(8, 3)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = model(x).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with watch(model, optimizer, ":memory:", budget=None, gradients=True) as recording:
        closure()
        expected = [p.grad.norm().item() for p in model.parameters() if p.grad is not None]
        recording.gradients()
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    view = recording.view()
    np.testing.assert_allclose(view.parameters.column("grad_norm")[0], expected, rtol=1e-6)
    assert (view.parameters.column("update_norm") > 0).all()
    assert len(view.scalar("clip_ratio")) == 0


def test_several_optimizers_and_models_have_rows_of_their_own() -> None:
    generator, optimizer = toy()
    critic, critic_optimizer = toy()
    recording = Recording(new_run("gan", ":memory:"), budget=None)
    recording.attach(generator)
    recording.attach(critic)
    recording.optimizer(optimizer, gradients=True)
    recording.optimizer(critic_optimizer, gradients=True)
    for x in batches(2):
        for _ in range(3):
            critic(x).mean().backward()
            critic_optimizer.step()
            critic_optimizer.zero_grad()
        generator(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    recording.close()
    parameters = recording.view().parameters
    assert parameters.names[::4] == ["0.weight", "sequential1.0.weight"]
    assert parameters.last_steps.tolist() == [0, 1]
    assert parameters.rows[:, ::4, ParameterField.STEPS].tolist() == [[1, 3], [1, 3]]
    assert len(recording.view().scalar("grad_norm@1")) == 2


def test_tied_weights_are_one_parameter_and_later_groups_are_taken_up() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
    )
    model[1].weight = model[0].weight
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    with watch(model, optimizer, ":memory:", budget=None, gradients=True) as recording:
        train(model, optimizer, 2, recording)
        optimizer.add_param_group({"params": [model[2].weight, nn.Parameter(torch.zeros(2))]})
        train(model, optimizer, 2, recording)
    parameters = recording.view().parameters
    assert parameters.names == ["0.weight", "2.weight", "parameter.2"]
    assert parameters.column("missing")[:, 1].tolist()[2:] == [0, 0]
    assert np.isnan(parameters.column("grad_norm")[:2, 1]).all()
    assert parameters.column("missing")[-1].tolist() == [0, 0, 1]


def test_the_budget_thins_parameters_as_well() -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.1
        return now[0]

    model, optimizer = toy()
    recording = Recording(new_run("own", ":memory:"), budget=0.01, clock=clock, layers=False)
    recording.attach(model)
    recording.optimizer(optimizer, gradients=True)
    train(model, optimizer, 60, recording)
    recording.close()
    view = recording.view()
    assert view.layers == ()
    assert 4 <= view.info.cost.steps_recorded < 30
    assert view.parameters.num_recorded.sum() == view.info.cost.steps_recorded
    assert len(view.scalar("loss")) == 60


def test_an_optimizer_given_again_without_gradients_is_measured_no_more() -> None:
    model, optimizer = toy()
    with watch(model, optimizer, ":memory:", budget=None, gradients=True) as recording:
        train(model, optimizer, 2, recording)
        recording.optimizer(optimizer)
        recording.gradients()
        train(model, optimizer, 2, recording)
        assert recording.number_of(optimizer) not in recording._parameters.watched
    assert recording.view().parameters.last_steps.tolist() == [0, 1]
    assert recording.view().num_steps == 4


def test_what_measuring_parameters_takes_is_counted() -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0  # each look at the clock takes a second
        return now[0]

    costs = []
    for gradients in (False, True):
        model, optimizer = toy()
        recording = Recording(new_run("own", ":memory:"), budget=None, clock=clock, layers=False)
        recording.attach(model)
        recording.optimizer(optimizer, gradients=gradients)
        model(next(batches(1))).mean().backward()
        if gradients:
            recording.gradients()
        optimizer.step()
        recording.close()
        costs.append(recording.view().info.cost.recorder_s)
    # once where gradients are complete and once when the optimizer ends; when it begins something is measured anyway
    assert costs[1] - costs[0] == 2


def test_numbers_come_from_the_device_when_the_run_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: list[int] = []
    take = waiting.Waiting.take

    def counted(self: waiting.Waiting[object], *, waits: bool = True) -> object:
        copies.append(len(self._notes))
        return take(self, waits=waits)

    monkeypatch.setattr(waiting.Waiting, "take", counted)
    monkeypatch.setattr(FactRecorder, "drain", lambda facts, *, waits: None)  # facts wait on their own
    model, optimizer = toy()
    with watch(model, optimizer, ":memory:", budget=None, gradients=True) as recording:
        recording._writer._clock = lambda: 0.0  # no flush is due
        train(model, optimizer, waiting.MAX_WAITING + 5)
        assert [num for num in copies if num] == [waiting.MAX_WAITING]
        recording._writer._clock = lambda: 1e9
        train(model, optimizer, 1)
        assert [num for num in copies if num] == [waiting.MAX_WAITING, 6]


def test_activation_gradients_have_the_names_of_their_layers(tmp_path: Path) -> None:
    model, optimizer = toy()
    with watch(model, optimizer, tmp_path / "run", budget=None, grad=True) as recording:
        train(model, optimizer, 3, recording)
    for view in (recording.view(), read_run(tmp_path / "run")):
        names = [layer.name for layer in view.layers]
        assert names == [layer.name for layer in view.gradients.layers] == ["0", "1", "2"]
        assert view.rows.shape == view.gradients.rows.shape
        assert view.fired("1").shape == (3, 8)
        assert view.gradients.fired("1").shape == (3, 0)
        assert not np.array_equal(view.column("std"), view.gradients.column("std"))
    np.testing.assert_array_equal(recording.view().gradients.rows, read_run(tmp_path / "run").gradients.rows)


def test_the_loss_scale_is_taken_out_of_gradients_by_outputs() -> None:
    views = []
    for scale in (1.0, 1024.0):
        model, optimizer = toy()
        with watch(model, optimizer, ":memory:", budget=None, grad=True) as recording:
            recording.loss_scale = scale
            assert recording.loss_scale == scale
            x: Tensor = next(batches(1))
            (model(x).square().mean() * scale).backward()
            optimizer.step()
        views.append(recording.view().gradients)
    np.testing.assert_array_equal(views[0].rows, views[1].rows)
