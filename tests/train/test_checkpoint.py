"""What a checkpoint refuses, and that nothing is lost when it does."""

from __future__ import annotations

import io
import json
import random
import sqlite3
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from actograph.callbacks.activation_stats import ActivationStats
from actograph.callbacks.checkpoint import Checkpoint
from actograph.data.loaders import TensorLoader
from actograph.errors import UsageError
from actograph.learner import Learner
from actograph.runlog.backup import open_bytes
from actograph.train.checkpoint_file import read_checkpoint
from actograph.train.events import Callback
from actograph.train.loop import Loop

X, Y = torch.arange(12.0).reshape(6, 2), torch.arange(6.0).reshape(6, 1)


class Tied(nn.Module):
    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2, bias=False)
        self.second = nn.Linear(2, 1)
        self.again = nn.Linear(2, 2, bias=False)
        self.again.weight = self.first.weight
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        return self.second(self.again(self.first(x)))  # type: ignore[no-any-return]


class WithExtraState(nn.Linear):
    def get_extra_state(self) -> str:
        return "text"


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from zip(X, Y, strict=True)


class Do(Callback):
    """Do something in one event."""

    def __init__(self, event: str, action: Callable[[Loop], object]) -> None:
        self.event, self.action = event, action

    def before_batch(self, loop: Loop) -> None:
        self._do("before_batch", loop)

    def after_batch(self, loop: Loop) -> None:
        self._do("after_batch", loop)

    def after_phase(self, loop: Loop) -> None:
        self._do("after_phase", loop)

    def _do(self, event: str, loop: Loop) -> None:
        if event == self.event:
            self.action(loop)


def make(model: nn.Module | None = None, loader: Any = None, **options: Any) -> Learner:
    model = nn.Linear(2, 1) if model is None else model
    loader = TensorLoader(X, Y, 2) if loader is None else loader
    return Learner(model, (loader, None), nn.functional.mse_loss, **{"defaults": (), "lr": 1e-3, **options})


def saved(path: Path, **options: Any) -> Path:
    learn = make(**options)
    learn.fit(1, callbacks=[Checkpoint(path)])
    return path / "last.ckpt"


def everything(learn: Learner) -> str:
    """Return all of a learner's state that loading may change, as text."""
    state = {name: value.tolist() for name, value in learn.model.state_dict().items()}
    return str((state, learn.optimizer.state_dict(), learn.loop.progress, learn.loop.resume))


def assert_refused(learn: Learner, path: Path, *words: str) -> None:
    before = everything(learn), torch.get_rng_state(), random.getstate()
    with pytest.raises(UsageError) as caught:
        learn.load_checkpoint(path)
    for word in words:
        assert word in str(caught.value)
    after = everything(learn), torch.get_rng_state(), random.getstate()
    assert before[0] == after[0]
    assert torch.equal(before[1], after[1])
    assert before[2] == after[2]


def test_the_weights_can_be_read_by_any_safetensors_reader(tmp_path: Path) -> None:
    learn = make(Tied())
    learn.save_checkpoint(tmp_path / "a.ckpt")
    with zipfile.ZipFile(tmp_path / "a.ckpt") as archive:
        weights = safetensors.torch.load(archive.read("model.safetensors"))
        about = json.loads(archive.read("about.json"))
    assert weights.keys() == {"first.weight", "second.weight", "second.bias"}  # the tied one once
    assert torch.equal(weights["first.weight"], learn.model.state_dict()["again.weight"])
    assert about["model"] == "Tied"


def test_tied_weights_stay_tied_and_go_on(tmp_path: Path) -> None:
    whole = make(Tied())
    torch.manual_seed(1)
    whole.load_weights(saved(tmp_path, model=Tied()))
    learn = make(Tied())
    learn.load_checkpoint(tmp_path / "last.ckpt")
    model = learn.model
    assert isinstance(model, Tied)
    assert model.again.weight is model.first.weight
    assert everything(learn).split("}")[0] == everything(whole).split("}")[0]


def test_buffers_that_are_in_no_state_dict_go_on(tmp_path: Path) -> None:
    learn = make(Tied())
    learn.fit(1, callbacks=[Checkpoint(tmp_path)])
    other = make(Tied())
    other.load_checkpoint(tmp_path / "last.ckpt")
    with pytest.warns(UserWarning, match="callback checkpoint"):
        other.fit(1)
    assert other.model.get_buffer("calls").item() == 3.0


def test_load_weights_takes_nothing_but_weights(tmp_path: Path) -> None:
    path = saved(tmp_path)
    learn = make(opt_func=torch.optim.SGD)  # another optimizer does not matter
    learn.load_weights(path)
    learn.fit(3)  # a fit of its own
    assert learn.loop.progress.step == 9


def test_another_model_is_refused_with_all_names(tmp_path: Path) -> None:
    path = saved(tmp_path, model=nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)))
    other = nn.Sequential(nn.Linear(2, 4), nn.Sequential(nn.Linear(4, 1)))
    words = (
        "missing: 1.0.weight, 1.0.bias",
        "unexpected: 1.bias, 1.weight",
        "0.weight (3, 2) instead of (4, 2)",
    )
    assert_refused(make(other), path, *words)
    many = nn.Sequential(*(nn.Linear(2, 2) for _ in range(5)))
    assert_refused(make(many), path, "3.bias, 4.weight and 1 more")


def test_an_untied_model_is_another_model(tmp_path: Path) -> None:
    class Untied(Tied):
        def __init__(self) -> None:
            super().__init__()
            self.again = nn.Linear(2, 2, bias=False)

    assert_refused(make(Untied()), saved(tmp_path, model=Tied()), "missing: again.weight")
    assert_refused(make(Tied()), saved(tmp_path, model=Untied()), "unexpected: again.weight")


def test_another_optimizer_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    assert_refused(make(opt_func=torch.optim.SGD), path, "optimizer AdamW, not SGD")
    groups = make(splitter=lambda model: [[model.weight], [model.bias]])
    assert_refused(groups, path, "groups of [2] parameters", "[1, 1]")


def test_a_loader_of_another_length_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    assert_refused(make(loader=TensorLoader(X, Y, 3)), path, "[3] batches", "[2]")


def test_a_loader_of_another_kind_is_refused(tmp_path: Path) -> None:
    data = TensorDataset(X, Y)
    plain = make(loader=DataLoader(data, 2, shuffle=True))
    assert_refused(plain, saved(tmp_path), "another kind of loader than DataLoader")
    path = saved(tmp_path, loader=DataLoader(data, 2, shuffle=True, generator=torch.Generator()))
    assert_refused(plain, path, "has 0 random generators of its own, but had 1")
    assert_refused(make(), path, "another kind of loader than TensorLoader")


def test_a_loader_of_other_batches_is_refused(tmp_path: Path) -> None:
    other = TensorLoader(X, Y, 2, seed=1)
    assert_refused(make(loader=other), saved(tmp_path), "a loader with seed 0, but this one has 1")
    make().save_checkpoint(tmp_path / "between.ckpt")
    assert_refused(make(loader=other), tmp_path / "between.ckpt", "a loader with seed 0, but this one has 1")


@pytest.mark.parametrize("calls", [None, torch.zeros(2)])
def test_other_buffers_that_are_in_no_state_dict_are_refused(tmp_path: Path, calls: Tensor | None) -> None:
    path, other = saved(tmp_path, model=Tied()), Tied()
    other.register_buffer("calls", calls, persistent=False)
    assert_refused(make(other), path, "of another model or loss function: calls (in no")


def test_mixed_precision_takes_up_a_checkpoint_without(tmp_path: Path) -> None:
    make(accumulate=2).save_checkpoint(tmp_path / "a.ckpt")
    learn = make(accumulate=2, amp="fp16")
    learn.load_checkpoint(tmp_path / "a.ckpt")
    learn.fit(1)


def test_another_fit_is_refused_and_the_right_one_still_goes_on(tmp_path: Path) -> None:
    learn = make()
    learn.fit(3, callbacks=[Checkpoint(tmp_path, keep_epochs=1)])
    other = make()
    other.load_checkpoint(tmp_path / "epoch1.ckpt")
    with pytest.raises(UsageError, match=r"fit of 3 epochs of 3 batches, but this\s+fit has 2 of 3"):
        other.fit(2)
    other.model.requires_grad_(requires_grad=False)
    with pytest.raises(UsageError, match="0 parameters frozen, but now 2"):
        other.fit(3)
    other.model.requires_grad_(requires_grad=True)
    with pytest.warns(UserWarning, match="callback checkpoint"):
        other.fit(3)
    assert everything(other).split("}")[0] == everything(learn).split("}")[0]
    other.load_checkpoint(tmp_path / "epoch1.ckpt")
    other.load_weights(tmp_path / "epoch1.ckpt")
    other.fit(2)  # a fit of its own


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data[: len(data) // 2], "truncated, damaged or foreign"),
        (lambda data: b"", "truncated, damaged or foreign"),
        (lambda data: b"hello", "truncated, damaged or foreign"),
        (lambda data: data[:3000] + bytes(300) + data[3300:], "truncated, damaged or foreign"),
    ],
)
def test_a_spoiled_file_is_refused(tmp_path: Path, spoil: Callable[[bytes], bytes], words: str) -> None:
    path = saved(tmp_path)
    path.write_bytes(spoil(path.read_bytes()))
    assert_refused(make(), path, str(path), words)
    make().load_checkpoint(tmp_path / "best.ckpt")  # the earlier one still works


def rewritten(path: Path, **members: bytes) -> Path:
    """Replace members of the file, by their names without suffix."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, members.get(name.split(".")[0], data))
    return path


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("code was run",)


def test_nothing_that_could_run_code_is_unpickled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"optimizer": Evil()}, tmp_path / "evil.pt")
    path = rewritten(saved(tmp_path), state=(tmp_path / "evil.pt").read_bytes())
    assert_refused(make(), path, "cannot be read safely")
    assert "code was run" not in capsys.readouterr().out


def test_other_versions_and_formats_are_refused(tmp_path: Path) -> None:
    about = dict(read_checkpoint(saved(tmp_path)).about)
    for change, words in (
        ({"version": 99}, "of version 99"),
        ({"format": "other"}, "no checkpoint of actograph"),
    ):
        path = rewritten(saved(tmp_path), about=json.dumps({**about, **change}).encode())
        assert_refused(make(), path, words)
    assert_refused(make(), rewritten(saved(tmp_path), about=b"[1]"), "no checkpoint of actograph")
    assert_refused(make(), rewritten(saved(tmp_path), model=b"short"), "no readable weights")


def as_state(value: object) -> bytes:
    data = io.BytesIO()
    torch.save(value, data)
    return data.getvalue()


def test_a_file_without_what_going_on_needs_is_refused(tmp_path: Path) -> None:
    file = read_checkpoint(saved(tmp_path))
    assert_refused(make(), rewritten(file.path, state=as_state([1])), "its state is a list")
    lacking = {name: value for name, value in file.state.items() if name != "parts"}
    assert_refused(
        make(), rewritten(file.path, state=as_state(lacking)), "no whole checkpoint: it lacks parts;"
    )
    head = json.dumps({"format": "actograph checkpoint", "version": 1}).encode()
    path = rewritten(saved(tmp_path), about=head)
    assert_refused(make(), path, "it lacks optimizer, lengths, position;")
    make().load_weights(path)  # they are there


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    assert_refused(make(), tmp_path / "none.ckpt", "no checkpoint", "none.ckpt")
    assert_refused(make(), tmp_path, "is a folder", "best.ckpt, last.ckpt")
    with pytest.raises(UsageError, match=r"is a folder; give the name of a file"):
        make().save_checkpoint(tmp_path)


@pytest.mark.parametrize("event", ["before_batch", "after_phase"])
def test_a_checkpoint_is_refused_where_something_is_under_way(tmp_path: Path, event: str) -> None:
    learn = make()
    with pytest.raises(UsageError, match=f"cannot be saved in {event}"):
        learn.fit(1, callbacks=[Do(event, lambda loop: learn.save_checkpoint(tmp_path / "a.ckpt"))])
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_is_refused_while_gradients_are_gathered(tmp_path: Path) -> None:
    learn = make(accumulate=2)
    with pytest.raises(UsageError, match="gradients are being gathered"):
        learn.fit(1, callbacks=[Do("after_batch", lambda loop: learn.save_checkpoint(tmp_path / "a.ckpt"))])


def test_no_checkpoint_is_loaded_while_a_fit_runs(tmp_path: Path) -> None:
    path, learn = saved(tmp_path), make()
    with pytest.raises(UsageError, match="while a fit runs"):
        learn.fit(1, callbacks=[Do("after_batch", lambda loop: learn.load_checkpoint(path))])


@pytest.mark.parametrize(
    ("loader", "steps", "words"),
    [
        (lambda: iter([(X, Y)] * 9), 2, "list_iterator can be read only once"),
        (lambda: DataLoader(Stream(), 2), 2, "DataLoader has no length"),
        (
            lambda: DataLoader(TensorDataset(X, Y), 2, num_workers=1, persistent_workers=True),
            None,
            "persistent_workers=False",
        ),
    ],
)
def test_a_loader_that_cannot_be_replayed_is_refused_at_the_beginning(
    tmp_path: Path, loader: Callable[[], Any], steps: int | None, words: str
) -> None:
    learn = make(loader=loader())
    with pytest.raises(UsageError, match=words):
        learn.fit(1, callbacks=[Checkpoint(tmp_path)], steps=steps)
    assert learn.loop.progress.step == 0


def test_state_that_could_not_be_read_back_is_refused_by_its_place(tmp_path: Path) -> None:
    class Odd(Callback):
        def __init__(self, values: Any) -> None:
            self.values = values

        def state_dict(self) -> dict[str, Any]:
            return {"values": self.values}

        def load_state_dict(self, state: Any) -> None: ...

    with pytest.raises(
        UsageError, match=r"\['callback odd'\]\['values'\]\[1\]\['inner'\] is a numpy.float64"
    ):
        make(callbacks=[Odd([1, {"inner": np.float64(2.0)}])]).save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(UsageError, match=r"\['callback odd'\]\['values'\] is a collections.defaultdict"):
        make(callbacks=[Odd(defaultdict(int))]).save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(UsageError, match="_extra_state of WithExtraState is no tensor"):
        make(WithExtraState(2, 1)).save_checkpoint(tmp_path / "a.ckpt")
    assert not list(tmp_path.iterdir())


def test_two_callbacks_of_a_class_keep_their_own_state(tmp_path: Path) -> None:
    class Counter(Callback):
        def __init__(self) -> None:
            self.count = 0

        def state_dict(self) -> dict[str, int]:
            return {"count": self.count}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.count = state["count"]

    first, second = Counter(), Counter()
    first.count, second.count = 3, 4
    make(callbacks=[first, second]).save_checkpoint(tmp_path / "a.ckpt")
    others = Counter(), Counter()
    make(callbacks=others).load_checkpoint(tmp_path / "a.ckpt")
    assert [other.count for other in others] == [3, 4]


def test_a_checkpoint_holds_the_run_as_a_database(tmp_path: Path) -> None:
    learn = make(callbacks=[ActivationStats(budget=None, out=tmp_path / "run")])
    learn.fit(2)
    learn.save_checkpoint(tmp_path / "a.ckpt")
    state = read_checkpoint(tmp_path / "a.ckpt").state
    run = state["parts"]["callback activation_stats"]["recording"]["run"]
    connection: sqlite3.Connection = open_bytes(run.numpy().tobytes())
    assert connection.execute("SELECT count(*) FROM bucket WHERE view = 'recent'").fetchone() == (6,)
    connection.close()


def test_saving_changes_nothing(tmp_path: Path) -> None:
    results = []
    for callbacks in ([], [Checkpoint(tmp_path, every_steps=1)]):
        torch.manual_seed(0)
        random.seed(0)
        learn = make(nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.Linear(4, 1)))
        learn.fit(2, callbacks=callbacks)
        results.append((everything(learn), torch.get_rng_state().tolist(), random.random()))
    assert results[0] == results[1]
