"""Ten scripts of usual shapes: recording changes nothing, and sees what there is to see."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from actograph.runlog.reader import read_run
from actograph.runlog.view import RunView

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "tests" / "scripts"
SEEN = {  # steps, layers, optimizers, steps whose gradients were measured
    "accumulation": (6, 5, 1, 6),  # two of them functions
    "amp": (
        6,
        3,
        1,
        5,
    ),  # one of seven was left out by the scaler; the first clip came before the optimizer was known
    "cnn": (6, 5, 1, 5),
    "gan": (7, 6, 2, 6),  # the first round is two steps: the second optimizer was not known
    "gpt": (6, 20, 1, 5),  # two of them functions
    "lbfgs": (6, 3, 1, 5),  # its first step began before the model was known
    "lstm": (6, 5, 1, 5),
    "mlp": (12, 4, 1, 12),
    "two_optimizers": (6, 4, 2, 6),
    "vae": (6, 8, 1, 6),
}


def python(*args: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, check=False, cwd=cwd, env=environment
    )


def run_all(folder: str) -> dict[str, dict[str, str]]:
    done = python("-m", "tests.observe.harness", folder, *(str(SCRIPTS / f"{name}.py") for name in SEEN))
    assert done.returncode == 0, done.stderr
    left: dict[str, dict[str, str]] = json.loads(done.stdout)
    return left


@pytest.fixture(scope="module")
def plain() -> dict[str, dict[str, str]]:
    return run_all("-")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("runs")
    return folder, run_all(str(folder))


def test_there_is_an_expectation_for_each_script() -> None:
    assert set(SEEN) == {path.stem for path in SCRIPTS.glob("*.py")} - {"conftest"}


@pytest.mark.parametrize("name", SEEN)
def test_output_weights_and_random_states_are_the_same_to_the_bit(
    name: str, plain: dict[str, dict[str, str]], runs: tuple[Path, dict[str, dict[str, str]]]
) -> None:
    assert "loss" in plain[name]["output"]
    assert runs[1][name] == plain[name]


@pytest.mark.parametrize("name", SEEN)
def test_steps_layers_and_optimizers_are_seen(
    name: str, runs: tuple[Path, dict[str, dict[str, str]]]
) -> None:
    view = read_run(runs[0] / name)
    num_steps, num_layers, num_optimizers, num_measured = SEEN[name]
    assert view.info.status == "finished"
    assert (view.num_steps, len(view.layers), len(view.gradient_layers)) == (
        num_steps,
        num_layers,
        num_layers,
    )
    assert view.last_steps.tolist() == list(range(num_steps))
    assert {key for _, key in view.scalars if key.startswith("lr") and "." not in key} == {
        "lr" + (f"@{index}" if index else "") for index in range(num_optimizers)
    }
    assert len(view.scalar("grad_norm")) == num_measured


def losses(output: str) -> list[list[float]]:
    lines = [line.split()[1:] for line in output.splitlines() if line.startswith("loss")]
    return [[float(number) for number in line] for line in lines]


def loaded(name: str, runs: tuple[Path, dict[str, dict[str, str]]]) -> tuple[RunView, np.ndarray]:
    return read_run(runs[0] / name), np.array(losses(runs[1][name]["output"]))


@pytest.mark.parametrize("name", ["cnn", "gpt", "lstm", "mlp", "two_optimizers", "vae"])
def test_losses_are_those_that_the_script_prints(
    name: str, runs: tuple[Path, dict[str, dict[str, str]]]
) -> None:
    view, printed = loaded(name, runs)
    np.testing.assert_array_equal(view.scalar("loss").values, printed[:, 0])


def test_losses_under_a_scaler_are_unscaled_and_a_step_left_out_joins_the_next(
    runs: tuple[Path, dict[str, dict[str, str]]],
) -> None:
    view, printed = loaded("amp", runs)
    values = view.scalar("loss").values
    assert np.isinf(values[2])
    np.testing.assert_array_equal(np.delete(values, 2), np.delete(printed[:, 0], [2, 3]))


def test_micro_batches_are_one_step_with_their_mean_loss(
    runs: tuple[Path, dict[str, dict[str, str]]],
) -> None:
    view, printed = loaded("accumulation", runs)
    np.testing.assert_allclose(view.scalar("loss").values, printed.reshape(6, 4).mean(1), rtol=1e-12)
    assert view.moments.num[0].tolist() == [4 * 8 * 6] * 4 + [4 * 8 * 2]


def test_each_optimizer_of_a_gan_has_its_loss_and_a_step_is_a_round(
    runs: tuple[Path, dict[str, dict[str, str]]],
) -> None:
    view, printed = loaded("gan", runs)
    np.testing.assert_allclose(view.scalar("loss").values, printed[:, :2].mean(1), rtol=1e-12)
    np.testing.assert_array_equal(view.scalar("loss@1").values, printed[:, 2])
    # discriminator on real, fake and generated samples; generator once
    assert view.moments.num[-1].tolist() == [3 * 256, 3 * 256, 3 * 16, 256, 256, 32]


def test_clip_ratio_is_what_clipping_leaves(runs: tuple[Path, dict[str, dict[str, str]]]) -> None:
    view, _ = loaded("cnn", runs)
    clipped = view.scalar("grad_norm").values * view.scalar("clip_ratio").values
    np.testing.assert_allclose(clipped, 0.5, rtol=1e-5)


def test_the_command_prints_findings_on_stderr_and_the_script_s_output_on_stdout(tmp_path: Path) -> None:
    plainly = python(str(SCRIPTS / "gpt.py"), cwd=tmp_path)
    done = python("-m", "actograph", "run", str(SCRIPTS / "gpt.py"), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, plainly.stdout)
    assert "Nothing wrong was found." in done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert f"actograph report {run}" in done.stderr
    assert [path.name for path in run.iterdir()] == ["run.db"]
