from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from actograph.callbacks.checkpoint import Checkpoint
from actograph.callbacks.collection import CallbackCollection
from actograph.data.loaders import TensorLoader
from actograph.errors import UsageError
from actograph.learner import Learner
from actograph.testing.callbacks import check_callback
from actograph.train.checkpoint_file import read_checkpoint
from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop
from actograph.train.state import StopFit

X, Y = torch.arange(12.0).reshape(6, 2) / 12, torch.arange(6.0).reshape(6, 1)


def learner(*, is_valid: bool = True, **options: Any) -> Learner:
    valid = TensorLoader(X, Y, 3) if is_valid else None
    loaders = TensorLoader(X, Y, 2), valid
    return Learner(
        nn.Linear(2, 1), loaders, nn.functional.mse_loss, **{"defaults": (), "lr": 0.05, **options}
    )


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def step_of(path: Path) -> int:
    step = read_checkpoint(path).about["step"]
    assert isinstance(step, int)
    return step


def test_it_passes_the_conformance_suite(tmp_path: Path) -> None:
    check_callback(lambda: Checkpoint(tmp_path))


def test_by_default_it_keeps_the_last_and_the_best(tmp_path: Path) -> None:
    learner().fit(3, callbacks=[Checkpoint(tmp_path / "new" / "folder")])
    assert files(tmp_path / "new" / "folder") == ["best.ckpt", "last.ckpt"]
    assert step_of(tmp_path / "new" / "folder" / "last.ckpt") == 9


def test_it_keeps_epochs_and_saves_between_steps(tmp_path: Path) -> None:
    steps = []

    class Watch(Callback):
        stage = Stage.SETUP

        def before_batch(self, loop: Loop) -> None:
            if (tmp_path / "last.ckpt").exists():
                steps.append(step_of(tmp_path / "last.ckpt"))

    keeping = Checkpoint(tmp_path, best=False, every_steps=2, keep_epochs=2)
    learner(is_valid=False).fit(4, callbacks=[keeping, Watch()])
    assert files(tmp_path) == ["epoch2.ckpt", "epoch4.ckpt", "last.ckpt"]
    # before batches 3 to 12: at every second step, and at the ends of epochs (3, 6, 9)
    assert steps == [2, 3, 4, 4, 6, 6, 8, 9, 10, 10]


def test_steps_are_counted_where_gradients_are_gathered(tmp_path: Path) -> None:
    learner(accumulate=2).fit(1, callbacks=[Checkpoint(tmp_path, last=True, best=False, every_steps=1)])
    assert step_of(tmp_path / "last.ckpt") == 2  # the short window at the end makes a step, too


@pytest.mark.parametrize("monitor", ["train_loss", None])
def test_the_best_epoch_is_that_with_the_best_value(tmp_path: Path, monitor: str | None) -> None:
    class Worse(Callback):
        """Spoil the weights from the third epoch on."""

        def before_epoch(self, loop: Loop) -> None:
            if loop.progress.epoch >= 2:
                nn.init.constant_(next(loop.model.parameters()), 100.0)

    saving = Checkpoint(tmp_path, monitor, last=False)
    learn = learner(is_valid=monitor is None)
    learn.fit(4, callbacks=[saving, Worse()])
    assert files(tmp_path) == ["best.ckpt"]
    assert step_of(tmp_path / "best.ckpt") == 6
    learn.load_weights(tmp_path / "best.ckpt")
    assert saving.best_value is not None
    if monitor is None:
        assert learn.validate()["valid_loss"] == saving.best_value


def test_an_epoch_that_is_not_better_is_no_new_best(tmp_path: Path) -> None:
    saving = Checkpoint(tmp_path, last=False)
    learn = learner(lr=0.0)
    learn.fit(2, callbacks=[saving])
    assert step_of(tmp_path / "best.ckpt") == 3
    again = Checkpoint(tmp_path)
    again.load_state_dict(saving.state_dict())
    assert again.best_value == saving.best_value


def test_a_fit_that_ends_before_validation_has_no_best(tmp_path: Path) -> None:
    class Stop(Callback):
        def after_batch(self, loop: Loop) -> None:
            raise StopFit("now")

    learner().fit(1, callbacks=[Checkpoint(tmp_path), Stop()])
    assert files(tmp_path) == ["last.ckpt"]


def test_an_epoch_after_which_the_fit_is_stopped_may_be_the_best(tmp_path: Path) -> None:
    class Stop(Callback):
        def after_epoch(self, loop: Loop) -> None:
            if loop.progress.epoch == 1:
                raise StopFit("good enough")

    saving = Checkpoint(tmp_path)
    learn = learner()
    learn.fit(3, callbacks=[saving, Stop()])
    assert step_of(tmp_path / "best.ckpt") == 6
    assert saving.best_value == learn.loop.values["valid_loss"]


def test_it_comes_after_all_others(tmp_path: Path) -> None:
    class Late(Callback):
        stage = Stage.REPORT

        def after_epoch(self, loop: Loop) -> None:
            loop.progress.step += 100

    learner().fit(1, callbacks=[Checkpoint(tmp_path), Late()])
    assert step_of(tmp_path / "last.ckpt") == 103


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every_steps": 0}, "every_steps is 0"),
        ({"keep_epochs": -1}, "keep_epochs is -1"),
        ({"last": False, "every_steps": 3}, "last is False"),
        ({"last": False, "best": False}, "nothing is to be saved"),
        ({"monitor": "oddity"}, "low or a high 'oddity'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Checkpoint("somewhere", **options)


def test_a_value_that_no_epoch_has_is_refused_before_the_fit(tmp_path: Path) -> None:
    learn = learner(is_valid=False)
    with pytest.raises(UsageError, match="no value 'valid_loss'"):
        learn.fit(1, callbacks=[Checkpoint(tmp_path, "valid_loss")])
    assert learn.loop.progress.step == 0


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot write .*file.*last.ckpt"):
        learner().fit(1, callbacks=[Checkpoint(tmp_path / "file", best=False)])


def test_it_is_found_by_name(tmp_path: Path) -> None:
    saving = Checkpoint(tmp_path)
    assert CallbackCollection([saving])["checkpoint"] is saving
