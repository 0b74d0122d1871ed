"""``torchrun -m actograph``: the commands of the README, with two processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from actograph.data.digits import digits
from actograph.data.loaders import Loaders, TensorLoader
from actograph.errors import UsageError
from actograph.inference.export import load_model
from actograph.runlog.reader import read_run
from actograph.train.distributed import BatchParts, Rank, data_parallel, shared_out, this_rank

TRAIN = ("train", "mnist", "--epochs", "1", "--batch-size", "256", "--model", "mlp")
SCRIPT = """
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group("gloo")
torch.manual_seed(dist.get_rank())
model = DistributedDataParallel(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(5):
    loss = model(torch.randn(6, 4)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
dist.destroy_process_group()
"""


def torchrun(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "COLUMNS": "200"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, "-m", "actograph", *args],
        capture_output=True, text=True, check=False, cwd=cwd, env=environment, timeout=300,
    )  # fmt: skip


def test_train_under_torchrun_gives_what_one_process_gives(tmp_path: Path) -> None:
    done = torchrun(*TRAIN, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Report:") == done.stdout.count("valid_loss") == 1
    assert "in 2 processes" in done.stdout
    assert "Merged from 2 ranks." in done.stdout
    (run,) = (tmp_path / "runs").iterdir()
    assert {path.name for path in run.iterdir()} == {
        "run.db",
        "run.rank1.db",
        "report.html",
        "model.safetensors",
    }
    both = read_run(run)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "actograph", *TRAIN, "--out", "one"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=300)
    one = read_run(tmp_path / "one")
    np.testing.assert_array_equal(both.moments.num, one.moments.num)
    np.testing.assert_allclose(both.column("std"), one.column("std"), rtol=1e-3)
    np.testing.assert_allclose(both.scalar("loss").values, one.scalar("loss").values, rtol=1e-3)
    models = [load_model(path / "model.safetensors") for path in (run, tmp_path / "one")]
    for mine, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-3)


def test_a_script_under_torchrun_leaves_one_run(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    done = torchrun("run", "--every", "1", "train.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Report:") == 1
    (run,) = (tmp_path / "runs").iterdir()
    view = read_run(run)
    assert [layer.name for layer in view.layers] == ["0", "1", "2"]
    assert view.moments.num[:, 0].tolist() == [2 * 6 * 8] * 5
    assert len(view.scalar("loss")) == 5


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_ranks_parts_are_the_batches_of_one_process(world_size: int) -> None:
    def loader() -> TensorLoader:
        return TensorLoader(torch.arange(23.0), torch.arange(23), 6, shuffle=True, seed=5)

    whole, last = list(loader()), 5 // world_size * world_size
    parts = [BatchParts(loader(), Rank(rank, world_size)) for rank in range(world_size)]
    batches = [list(part) for part in parts]
    assert {len(part) for part in parts} == {len(one) for one in batches} == {4}
    for number, (x, _) in enumerate(whole):
        shared = [one[number][0] for one in batches]
        assert len({len(part) for part in shared}) == 1
        kept = x if number < 3 else x[:last]
        assert torch.cat(shared).sort().values.equal(kept.sort().values)


def test_batches_are_shared_out_where_that_can_be_done() -> None:
    data = digits(batch_size=2)
    assert shared_out(data, Rank()) is data
    with pytest.raises(UsageError, match="batch_size is 2 for 3 processes"):
        shared_out(data, Rank(0, 3))
    with pytest.raises(UsageError, match="train loader is a list"):
        shared_out(Loaders([]), Rank(0, 2))


def test_a_last_batch_too_small_for_all_is_left_out() -> None:
    parts = BatchParts(TensorLoader(torch.arange(5.0), torch.arange(5), 4), Rank(0, 2))
    assert len(parts) == len(list(parts)) == 1
    state = parts.state_dict()
    parts.load_state_dict(state)


@pytest.mark.parametrize(
    ("rank", "world_size", "expected"),
    [("1", "4", Rank(1, 4)), ("", "", Rank()), ("4", "4", Rank()), ("one", "2", Rank())],
)
def test_the_environment_tells_the_rank(
    monkeypatch: pytest.MonkeyPatch, rank: str, world_size: str, expected: Rank
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world_size)
    assert this_rank() == expected


def test_a_data_parallel_step_needs_a_process_group() -> None:
    model = nn.Linear(2, 1)
    with pytest.raises(UsageError, match="process group is not there"):
        data_parallel(model, nn.functional.mse_loss, torch.optim.SGD(model.parameters()))


def test_only_the_first_rank_writes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from actograph.callbacks.checkpoint import Checkpoint  # noqa: PLC0415
    from actograph.callbacks.csv_log import CSVLog  # noqa: PLC0415
    from actograph.learner import Learner  # noqa: PLC0415

    batches = [(torch.ones(4, 2), torch.ones(4, 1))]
    learn = Learner(nn.Linear(2, 1), (batches, None), nn.functional.mse_loss)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    learn.fit(1, callbacks=[Checkpoint(tmp_path), CSVLog(tmp_path / "log.csv")])
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("RANK", "0")
    learn.fit(1, callbacks=[Checkpoint(tmp_path), CSVLog(tmp_path / "log.csv")])
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", "best.ckpt", "log.csv"}
