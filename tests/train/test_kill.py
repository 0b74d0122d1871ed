"""A process that is killed while it saves leaves a checkpoint that loads: the one before, or the new one.

ACTOGRAPH_KILLS sets how often (`make torture`).
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from actograph.learner import Learner
from actograph.train.checkpoint_file import read_checkpoint

NUM_KILLS = int(os.environ.get("ACTOGRAPH_KILLS", "10"))
NUM_FEATURES = 600  # 1.4 MB of weights: writing them takes long enough to be hit

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs fork and SIGKILL")


def learner() -> Learner:
    model = nn.Linear(NUM_FEATURES, NUM_FEATURES)
    return Learner(model, ([(torch.zeros(1), torch.zeros(1))], None), nn.functional.mse_loss, defaults=())


def save_for_ever(learn: Learner, path: Path) -> None:
    """Save models whose weights are all equal to the number of the save."""
    for number in range(1, 10**9):
        with torch.no_grad():
            for parameter in learn.model.parameters():
                parameter.fill_(number)
        learn.save_checkpoint(path)


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    learn = learner()
    learn.save_checkpoint(path)  # warm: the children fork from here
    children = multiprocessing.get_context("fork")
    moments = random.Random(0)
    numbers, num_hit = [], 0
    for _ in range(NUM_KILLS):
        child = children.Process(target=save_for_ever, args=(learn, path))
        before = path.stat().st_mtime_ns
        child.start()
        while path.stat().st_mtime_ns == before:
            time.sleep(0.001)  # until the child has saved once
        time.sleep(moments.uniform(0, 0.05))
        child.kill()
        child.join()
        num_hit += (tmp_path / ".last.ckpt.part").exists()
        weights = read_checkpoint(path).weights
        number = weights["bias"][0].item()
        assert all((value == number).all() for value in weights.values())
        learner().load_checkpoint(path)
        numbers.append(number)
    assert all(number >= 1 for number in numbers)
    assert num_hit, "no kill came while a file was being written"
