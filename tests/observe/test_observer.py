from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import clip_grad
from torch.optim import optimizer as torch_optimizer

from actograph.callbacks.activation_stats import ActivationStats
from actograph.callbacks.gradient_stats import GradientStats
from actograph.hooks import layer_hooks
from actograph.learner import Learner
from actograph.observe.observer import Observer
from actograph.observe.watch import watch
from actograph.recording.new_run import new_run
from actograph.recording.recording import Recording
from actograph.runlog.view import RunView

from .conftest import Program

TOY = """
import torch
from torch import nn

def toy():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

def batches(number=6):
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(16, 4, generator=generator), torch.randn(16, 2, generator=generator)) for _ in range(number)]

model, optimizer = toy()
"""
LOOP = """
for x, y in batches():
    loss = nn.functional.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
"""


def made(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(source, names)
    return names


def watched() -> RunView:
    names = made(TOY)
    with watch(
        names["model"],
        names["optimizer"],
        ":memory:",
        budget=None,
        grad=True,
        gradients=True,
    ) as recording:
        exec(
            LOOP.replace("    loss.backward", "    recording.loss(loss)\n    loss.backward"),
            {**names, "recording": recording},
        )
    return recording.view()


def learned() -> RunView:
    names = made(TOY)
    stats = ActivationStats(budget=None, out=":memory:", grad=True)
    learn = Learner(
        names["model"],
        (names["batches"](), None),
        nn.functional.mse_loss,
        opt_func=lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9),
        lr=0.1,
        defaults=(),
        callbacks=[stats, GradientStats()],
    )
    learn.fit(1)
    return stats.view


def test_the_three_drivers_record_equal_rows(program: Program) -> None:
    assert program.run(TOY + LOOP, options=("--every", "1", "--grad")) == 0
    ran = program.view
    for other in (watched(), learned()):
        assert [layer.name for layer in ran.layers] == [layer.name for layer in other.layers]
        np.testing.assert_array_equal(ran.rows, other.rows)
        for mine, theirs in zip(ran.buckets, other.buckets, strict=True):
            np.testing.assert_array_equal(mine.hist, theirs.hist)
        np.testing.assert_array_equal(ran.gradients.rows, other.gradients.rows)
        for name in ("loss", "lr", "momentum", "grad_norm"):
            np.testing.assert_array_equal(ran.scalar(name).values, other.scalar(name).values)
        for ours, others in zip(ran.parameters.buckets, other.parameters.buckets, strict=True):
            np.testing.assert_array_equal(ours.rows, others.rows)


def places() -> list[object]:
    return [
        torch.autograd.backward,
        torch.nn.utils.clip_grad_norm_,
        torch.nn.utils.clip_grad_value_,
        clip_grad.clip_grad_norm_,
        clip_grad.clip_grad_value_,
        torch.amp.GradScaler.scale,
        torch.amp.GradScaler.step,
        torch.jit._recursive.create_script_module,
    ]


def num_global_hooks() -> int:
    return (
        len(torch_module._global_forward_pre_hooks)
        + len(torch_module._global_forward_hooks)
        + len(torch_optimizer._global_optimizer_pre_hooks)
        + len(torch_optimizer._global_optimizer_post_hooks)
    )


@pytest.mark.parametrize(
    "end", ["", "raise ValueError('boom')", "raise SystemExit(3)", "raise KeyboardInterrupt"]
)
def test_nothing_is_left_behind_however_the_script_ends(program: Program, end: str) -> None:
    before = places()
    program.run(TOY + LOOP + "from torch.nn.utils import clip_grad_norm_\n" + end)
    assert places() == before
    assert num_global_hooks() == 0
    model = vars(sys.modules["__main__"])["model"]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    kept = vars(sys.modules["__main__"])["clip_grad_norm_"]
    model(torch.ones(1, 4)).sum().backward()
    assert kept(model.parameters(), 1.0) > 0


def observer(complaints: list[str]) -> Observer:
    recording = Recording(new_run("test", ":memory:"), budget=None)
    return Observer(recording, gradients=True, complain=complaints.append)


@pytest.mark.parametrize(
    "method", ["attach", "optimizer", "begin_update", "end_update", "end_step", "see_loss", "note_losses"]
)
def test_a_failing_recording_does_not_reach_the_training(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of ink")

    plain = made(TOY + LOOP)
    monkeypatch.setattr(Recording, method, fail)
    complaints: list[str] = []
    with observer(complaints):
        names = made(TOY + LOOP)
    assert [line for line in complaints if "RuntimeError: out of ink" in line] == complaints
    assert len(complaints) == 1
    assert torch.equal(names["model"][0].weight, plain["model"][0].weight)


@pytest.mark.parametrize(
    "target", ["LeafHook._observe", "_GradientHook.__call__.observe_output", "observe_input"]
)
def test_a_failing_layer_hook_does_not_reach_the_training(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of ink")

    training = TOY.replace("ReLU", "GELU") + LOOP
    assert training != TOY + LOOP
    plain = made(training)
    where = layer_hooks.LeafHook if target == "LeafHook._observe" else layer_hooks
    monkeypatch.setattr(where, target.rpartition(".")[2], fail)
    complaints: list[str] = []
    recording = Recording(new_run("test", ":memory:"), budget=None, grad=True)
    with Observer(recording, gradients=True, complain=complaints.append):
        names = made(training)
    (line,) = complaints
    assert "RuntimeError: out of ink" in line
    assert torch.equal(names["model"][0].weight, plain["model"][0].weight)


def test_a_forked_child_is_not_recorded(program: Program) -> None:
    fork = """
import os
child = os.fork()
if child == 0:
    assert not any(m._forward_hooks for m in model.modules())
    for x, y in batches(9):
        model(x).sum().backward()
        optimizer.step()
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    assert program.run(TOY + LOOP + fork + LOOP) == 0
    assert program.view.num_steps == 12


def test_a_forked_child_that_comes_to_the_end_says_nothing(
    program: Program, capfd: pytest.CaptureFixture[str]
) -> None:
    source = "import os\nchild = os.fork()\n" + TOY + LOOP + "\nif child: os.waitpid(child, 0)\n"
    parent = os.getpid()
    try:
        program.run(source)
    finally:
        if os.getpid() != parent:
            os._exit(0)
    assert capfd.readouterr().err.count("Nothing wrong was found") == 1
    assert program.view.num_steps == 6


def test_workers_of_a_loader_are_not_recorded(program: Program) -> None:
    source = (
        TOY
        + """
from torch.utils.data import DataLoader

class Data(torch.utils.data.Dataset):
    def __len__(self): return 12
    def __getitem__(self, index):
        with torch.enable_grad():
            return model(torch.full((4,), float(index))).detach()

for x in DataLoader(Data(), batch_size=4, num_workers=1, multiprocessing_context="fork"):
    model(torch.cat([x, x], dim=1)).sum().backward()
    optimizer.step()
"""
    )
    assert program.run(source) == 0
    assert program.view.num_steps == 3
    assert program.view.moments.num[:, 2].tolist() == [8, 8, 8]


def test_a_compiled_model_is_recorded(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    compiled = """
compiled = torch.compile(model, backend="eager", fullgraph=True)
with torch.no_grad():
    compiled(torch.ones(4, 4))  # compiled without hooks
"""
    expected = watched()
    assert program.run(TOY + compiled + LOOP.replace("model(x)", "compiled(x)")) == 0
    assert "not recorded" not in capsys.readouterr().err
    assert [layer.name for layer in program.view.layers] == [layer.name for layer in expected.layers]
    np.testing.assert_allclose(program.view.rows, expected.rows, rtol=1e-4, atol=1e-6)


def test_a_model_first_seen_inside_a_trace_is_not_recorded_and_the_run_says_so(
    program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = """
inner = torch.compile(lambda x: model(x).sum(), backend="eager", fullgraph=True)
for x, y in batches():
    inner(x).backward()
    optimizer.step()
"""
    assert program.run(TOY + inner) == 0
    said = capsys.readouterr().err
    assert "compiled code was run, and no layer in it was recorded" in said
    assert "no layer was recorded" in said
    assert (program.view.num_steps, len(program.view.layers)) == (6, 0)
    assert len(program.view.scalar("loss")) == 6


def test_a_graph_module_is_never_a_root(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    traced = "model = torch.fx.symbolic_trace(model)\nhead = nn.Linear(2, 1)\n"
    assert program.run(TOY + traced + LOOP.replace("model(x), y", "head(model(x)), y[:, :1]")) == 0
    assert [layer.kind for layer in program.view.layers] == ["Linear"]
    assert "is not recorded: a traced graph" in capsys.readouterr().err


def test_steps_inside_a_step_belong_to_the_outer_optimizer(program: Program) -> None:
    source = (
        TOY
        + """
class Outer(torch.optim.Optimizer):
    def __init__(self, inner):
        super().__init__(inner.param_groups[0]["params"], {})
        self.inner, self.param_groups = inner, inner.param_groups
    def step(self, closure=None):
        self.inner.step()
        self.inner.step()

optimizer = Outer(optimizer)
"""
    )
    assert program.run(source + LOOP) == 0
    assert program.view.num_steps == 6
    assert sorted(name for phase, name in program.view.scalars if phase == "train") == [
        "loss",
        "lr",
        "momentum",
    ]


def test_a_second_optimizer_goes_on_where_the_first_has_ended(program: Program) -> None:
    second = "optimizer = torch.optim.Adam(model.parameters(), lr=0.01)\n"
    assert program.run(TOY + LOOP + second + LOOP) == 0
    view = program.view
    assert view.num_steps == 12
    assert view.moments.num[:, 2].tolist() == [32] * 12
    assert len(view.scalar("loss")) + len(view.scalar("loss@1")) == 12


def test_a_second_clip_finds_gradients_that_were_measured(program: Program) -> None:
    clip = "    nn.utils.clip_grad_norm_(model.parameters(), 1e-3)\n"
    clipped_twice = LOOP.replace("    optimizer.step", 2 * clip + "    optimizer.step")
    assert program.run(TOY + clipped_twice, options=("--every", "1", "--grad")) == 0
    norms, ratios = (program.view.scalar(name).values for name in ("grad_norm", "clip_ratio"))
    assert (norms > 0.1).all()
    np.testing.assert_allclose(norms * ratios, 1e-3, rtol=1e-3)


def test_gradients_clipped_in_an_optimizer_s_closure_are_measured_before(program: Program) -> None:
    source = (
        TOY
        + """
for x, y in batches():
    def closure():
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        return loss
    optimizer.step(closure)
"""
    )
    assert program.run(source, options=("--every", "1", "--grad")) == 0
    assert program.view.info.status == "finished"
    norms, ratios = (program.view.scalar(name).values for name in ("grad_norm", "clip_ratio"))
    assert len(norms) == 5
    assert (norms > 0.1).all()
    np.testing.assert_allclose(norms * ratios, 1e-3, rtol=1e-3)


def test_a_reentrant_backward_is_no_loss(program: Program) -> None:
    source = (
        TOY
        + """
from torch.utils.checkpoint import checkpoint
losses = []
for x, y in batches():
    x.requires_grad_()
    loss = checkpoint(lambda x: model(x).sum(), x, use_reentrant=True) * 2
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
"""
    )
    assert program.run(source) == 0
    losses = vars(sys.modules["__main__"])["losses"]
    np.testing.assert_array_equal(program.view.scalar("loss").values, losses)


def test_what_is_thawed_for_a_second_optimizer_is_recorded_from_then_on(program: Program) -> None:
    source = (
        TOY
        + """
frozen = nn.Linear(4, 4).requires_grad_(False)
def loop():
    for x, y in batches():
        nn.functional.mse_loss(model(frozen(x)), y).backward()
        optimizer.step()
loop()
frozen.requires_grad_()
optimizer = torch.optim.SGD([*model.parameters(), *frozen.parameters()], lr=0.1)
loop()
"""
    )
    assert program.run(source) == 0
    assert [layer.name for layer in program.view.layers] == ["0", "1", "2", "linear1.model"]
    assert program.view.moments.num[:, 3].tolist() == [0] * 7 + [64] * 5


def test_the_files_are_where_they_were_asked_for_when_the_script_changes_its_folder(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(program.folder)
    program.out = Path("run")
    with contextlib.chdir(program.folder):
        assert program.run(f"import os\nos.chdir({os.fspath(program.folder.parent)!r})\n" + TOY + LOOP) == 0
    assert program.view.num_steps == 6


def test_gradients_under_a_scaler_are_those_without_it(program: Program) -> None:
    options = ("--every", "1", "--grad")
    scaled = LOOP.replace("loss.backward()", "scaler.scale(loss).backward()")
    scaled = scaled.replace("optimizer.step()", "scaler.step(optimizer)\n    scaler.update()")
    scaler = "scaler = torch.amp.GradScaler('cpu', init_scale=1024.0)\n"
    assert program.run(TOY + LOOP, options=options) == 0
    plain, program.out = program.view, program.folder / "scaled"
    assert program.run(TOY + scaler + scaled, options=options) == 0
    view = program.view
    np.testing.assert_array_equal(view.gradients.rows, plain.gradients.rows)
    np.testing.assert_array_equal(view.scalar("loss").values, plain.scalar("loss").values)
    np.testing.assert_array_equal(view.scalar("grad_norm").values, plain.scalar("grad_norm").values)


def test_a_loss_made_from_a_scaled_one_is_not_noted(program: Program) -> None:
    scaled = LOOP.replace("loss.backward()", "(scaler.scale(loss) + 0).backward()")
    scaler = "scaler = torch.amp.GradScaler('cpu', init_scale=1024.0)\n"
    assert program.run(TOY + scaler + scaled) == 0
    assert program.view.num_steps == 6
    assert ("train", "loss") not in program.view.scalars


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_recorded_model_can_be_scripted_traced_and_goes_on_being_recorded(
    program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    written_down = """
import copy
x = torch.ones(3, 4)
for other in (torch.jit.script(model), torch.jit.script(copy.deepcopy(model)), torch.jit.trace(model, x)):
    assert torch.equal(other(x), model(x))
"""
    assert program.run(TOY + LOOP + written_down + LOOP) == 0
    assert program.view.num_steps == 12
    assert program.view.moments.num[:, 2].tolist() == [32] * 6 + [32 + 3 * 6] + [32] * 5
    assert "RecursiveScriptModule is not recorded: TorchScript does not call hooks" in capsys.readouterr().err


def test_models_trained_at_once_on_threads_of_their_own_do_not_end_the_recording(
    program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    at_once = """
import threading
def train(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(30):
        model(torch.ones(4, 4)).sum().backward()
        optimizer.step()
models = [nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1)) for _ in range(4)]
threads = [threading.Thread(target=train, args=(model,)) for model in models]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        assert program.run(TOY + at_once) == 0
    finally:
        sys.setswitchinterval(interval_s)
    assert "recording has failed" not in capsys.readouterr().err
    assert len(program.view.layers) == 4 * 3
