"""Two processes record into one run: it says what one process on the joined batches would have recorded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from actograph.errors import RunNotFoundError, UsageError
from actograph.layout.parameter import ParameterField
from actograph.layout.row import Field
from actograph.observe.watch import watch
from actograph.runlog.reader import closed_run, find_runs, read_run
from actograph.runlog.view import RunView
from actograph.show import words
from actograph.show.find import find_run
from actograph.testing.reference import numpy_fired, numpy_histogram, numpy_row
from tests.distributed.program import EVERY, SHORT, STEPS, WORLD_SIZE, batches, make_model, train

ROOT = Path(__file__).parents[2]
COUNTS = [
    Field.NEG_COUNT, Field.POS_COUNT, Field.ZEROS, Field.NEAR_ZERO, Field.NAN, Field.INF, Field.FLAT,
    Field.MIN, Field.MAX, Field.FIRST_NON_FINITE, Field.NEAR_ZERO_NEG, Field.INF_NEG,
]  # fmt: skip
MEASURED = 1e-6  # relative: the C back end adds up in float32; what merging adds to that is in tests/runlog/test_merging.py
MOMENTS = [Field.NEG_MEAN, Field.NEG_M2, Field.POS_MEAN, Field.POS_M2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "WORLD_SIZE": str(WORLD_SIZE),
    }
    command = [sys.executable, "-W", "error", "-m", "tests.distributed.program", str(folder)]
    processes = [
        subprocess.Popen(
            command, cwd=ROOT, env=environment | {"RANK": str(rank)}, stderr=subprocess.PIPE, text=True
        )
        for rank in range(WORLD_SIZE)
    ]
    try:
        complaints = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], complaints
    return folder


@pytest.fixture(scope="module")
def joined() -> RunView:
    """Train the same in one process, on the joined batches."""
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with watch(model, optimizer, out=":memory:", budget=None, gradients=True) as recording:
        train(model, optimizer, recording, batches(STEPS))
    return recording.view()


def outputs(folder: Path, name: str) -> dict[str, np.ndarray]:
    """Return what the program's own hooks kept: both ranks' outputs by layer, (steps, samples, units)."""
    parts = [torch.load(folder / f"{name}{rank}.pt") for rank in range(WORLD_SIZE)]
    return {layer: torch.cat([part[layer] for part in parts], dim=1).numpy() for layer in parts[0]}


def check_rows(view: RunView, kept: dict[str, np.ndarray]) -> None:
    assert [layer.name for layer in view.layers] == list(kept)
    for index, layer in enumerate(view.layers):
        for step, values in enumerate(kept[layer.name]):
            row = numpy_row(values, None, layer.flat)
            np.testing.assert_array_equal(view.rows[step, index, COUNTS], row[COUNTS])
            np.testing.assert_allclose(view.rows[step, index, MOMENTS], row[MOMENTS], rtol=MEASURED)
            np.testing.assert_array_equal(view.buckets[step].hist[index], numpy_histogram(values))
            if layer.flat is not None:
                fired = numpy_fired(values, layer.flat, channel_axis=1)
                np.testing.assert_array_equal(view.fired(index)[step], fired)


def test_the_rows_of_two_ddp_ranks_are_those_of_the_joined_batch(folder: Path) -> None:
    check_rows(read_run(folder / "ddp"), outputs(folder, "ddp"))


def test_two_ddp_ranks_say_what_one_process_says(folder: Path, joined: RunView) -> None:
    view = read_run(folder / "ddp")
    assert [layer.name for layer in view.layers] == [layer.name for layer in joined.layers]
    assert view.num_recorded.tolist() == joined.num_recorded.tolist()
    counted = [Field.ZEROS, Field.NEAR_ZERO, Field.FLAT, Field.NEG_COUNT, Field.POS_COUNT]
    # the weights differ in the last digits: DDP adds the gradients up in another order
    np.testing.assert_allclose(view.rows[:, :, counted], joined.rows[:, :, counted])
    for name in ("mean", "std", "min", "max"):
        np.testing.assert_allclose(view.column(name), joined.column(name), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(view.scalar("loss").values, joined.scalar("loss").values, rtol=1e-5)


def test_each_ddp_rank_has_the_gradients_of_the_joined_batch(folder: Path, joined: RunView) -> None:
    parameters = read_run(folder / "ddp").parameters
    assert parameters.names == joined.parameters.names
    for name in ("grad_norm", "weight_norm", "update_norm"):
        np.testing.assert_allclose(parameters.column(name), joined.parameters.column(name), rtol=1e-4)
    assert not any(parameter.is_shard for parameter in parameters.parameters)


def test_gradients_by_outputs_are_of_each_ranks_own_loss(folder: Path) -> None:
    gradients = read_run(folder / "ddp").gradients
    last = outputs(folder, "ddp")["4"]
    samples = last.shape[1] // WORLD_SIZE  # of one rank
    expected = 2 * last.astype(np.float64) / samples
    np.testing.assert_allclose(gradients.column("mean")[:, -1], expected.mean(axis=(1, 2)), rtol=1e-5)


def test_fsdp2_rows_are_those_of_the_joined_batch(folder: Path) -> None:
    check_rows(read_run(folder / "fsdp"), outputs(folder, "fsdp"))


def test_norms_of_shards_are_put_together_when_read(folder: Path, joined: RunView) -> None:
    view = read_run(folder / "fsdp")
    assert all(parameter.is_shard for parameter in view.parameters.parameters)
    order = [view.parameters.index(name) for name in joined.parameters.names]
    for name in ("grad_norm", "weight_norm", "update_norm", "grad_max"):
        expected = joined.parameters.column(name)
        np.testing.assert_allclose(view.parameters.column(name)[:, order], expected, rtol=1e-4, err_msg=name)
    for name in ("grad_norm", "clip_ratio"):
        np.testing.assert_allclose(view.scalar(name).values, joined.scalar(name).values, rtol=1e-4)
    one = read_run(folder / "fsdp" / "run.db").parameters
    assert (one.column("weight_norm")[0] < joined.parameters.column("weight_norm")[0])[
        :-2
    ].all()  # rank 0 has all of the last layer, of one unit


def test_ranks_that_record_other_steps_are_merged_on_the_coarser_axis(folder: Path) -> None:
    view = read_run(folder / "thinned")
    own, other = (read_run(folder / "thinned" / name) for name in ("run.db", "run.rank1.db"))
    assert view.last_steps.tolist() == [0, 3, 6, 9]
    assert view.first_steps.tolist() == [0, 1, 4, 7]
    assert view.num_recorded.tolist() == [1, EVERY, EVERY, EVERY]
    total = [Field.NEG_COUNT, Field.POS_COUNT, Field.ZEROS]
    np.testing.assert_array_equal(
        view.rows[..., total].sum(axis=0),
        own.rows[..., total].sum(axis=0) + other.rows[..., total].sum(axis=0),
    )
    assert view.info.cost.steps_recorded == 4


def test_the_cost_is_that_of_all_ranks(folder: Path) -> None:
    view = read_run(folder / "ddp")
    costs = [rank.info.cost for rank in view.ranks]
    assert len(costs) == WORLD_SIZE
    assert view.info.cost.recorder_s == sum(cost.recorder_s for cost in costs)
    assert view.info.cost.elapsed_s == sum(cost.elapsed_s for cost in costs)
    assert (view.info.cost.steps_seen, view.info.cost.steps_recorded) == (STEPS, STEPS)
    assert words.ranks(view) == "Merged from 2 ranks."


def test_a_rank_that_dies_leaves_a_run_that_says_so(folder: Path) -> None:
    view = read_run(folder / "short")
    assert view.num_steps == 2 * SHORT
    assert [rank.num_steps for rank in view.ranks] == [2 * SHORT, SHORT]
    values = view.moments.num[:, 0]
    assert values[0] == 2 * values[-1] > 0  # both ranks at the beginning, one at the end
    assert values.sum() == 9 * 6 * (2 * SHORT + SHORT)
    assert words.ranks(view) == "Merged from 2 ranks. Rank 1 has 100 of 200 steps (died)."


def test_a_rank_that_recorded_nothing_is_missing(folder: Path) -> None:
    view = read_run(folder / "alone")
    assert view.missing_ranks == [1]
    assert words.ranks(view) == "Merged from 1 of 2 ranks. There is nothing of rank 1."


def test_a_run_is_read_without_its_first_rank(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(folder / "ddp" / "run.rank1.db", run)
    assert find_runs(tmp_path) == [run]
    view = read_run(find_run(run))
    assert view.missing_ranks == [0]
    (run / "run.db").write_bytes(b"half a page")
    assert read_run(run).missing_ranks == [0]
    (run / "run.rank1.db").write_bytes(b"")
    with pytest.raises(RunNotFoundError, match=r"run\.db is not a readable run"):
        read_run(run)


def test_files_of_another_start_are_left_alone(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "ddp", run)
    shutil.copy(folder / "fsdp" / "run.rank1.db", run)
    assert read_run(run).missing_ranks == [1]


def test_ranks_agree_on_a_run_directory(folder: Path) -> None:
    runs = find_runs(folder / "runs")
    assert len(runs) == 2
    assert [len(read_run(run).ranks) for run in runs] == [2, 2]


def test_a_directory_that_is_taken_is_refused_on_all_ranks(folder: Path) -> None:
    said = {(folder / f"taken{rank}.txt").read_text() for rank in range(WORLD_SIZE)}
    assert len(said) == 1
    assert "RunInUseError" in said.pop()


def test_several_processes_without_a_store_are_told_to_give_a_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UsageError, match="give an output folder, or start them with torchrun"):
        watch(model, optimizer)
    with watch(model, optimizer, tmp_path / "run") as recording:
        train(model, optimizer, recording, batches(2))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.rank1.db"]


def test_who_waits_for_ranks_gives_up(folder: Path) -> None:
    assert closed_run(folder / "alone", timeout_s=0.0).missing_ranks == [1]


def test_merged_parameters_count_the_steps_of_all_ranks(folder: Path) -> None:
    rows = read_run(folder / "ddp").parameters.rows
    assert (rows[..., ParameterField.STEPS] == WORLD_SIZE).all()
