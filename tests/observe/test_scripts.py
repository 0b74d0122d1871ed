"""Scripts of usual shapes: recording changes nothing, and sees what there is to see."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from actograph.rules.diagnose import diagnose
from actograph.rules.rule import Severity
from actograph.runlog.facts import FactKind
from actograph.runlog.reader import read_run
from actograph.runlog.view import RunView

pytestmark = pytest.mark.xdist_group("scripts")  # one process trains what they share

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "tests" / "scripts"
SEEN = {  # steps, layers, layers with gradients, optimizers, steps whose gradients were measured
    "accumulation": (6, 5, 5, 1, 6),  # two of them functions
    # one of seven was left out by the scaler; the first clip came before the optimizer was known
    "amp": (6, 3, 3, 1, 5),
    "averaged": (6, 4, 4, 1, 6),
    "backward_steps": (6, 3, 3, 4, 6),
    "cnn": (6, 5, 5, 1, 5),
    "contrastive": (9, 7, 7, 2, 5),
    "dcgan": (7, 9, 9, 2, 6),
    "distillation": (12, 10, 10, 2, 6),
    "dqn": (7, 5, 5, 1, 6),
    "folds": (12, 9, 9, 3, 4),
    "gan": (7, 6, 6, 2, 6),  # the first round is two steps: the second optimizer was not known
    "gpt": (6, 20, 20, 1, 5),  # two of them functions
    "gradient_penalty": (7, 6, 6, 2, 6),  # three updates of the critic, then rounds
    "lbfgs": (6, 3, 3, 1, 5),  # its first step began before the model was known
    "lstm": (6, 5, 5, 1, 5),
    "masked_language": (6, 21, 21, 1, 6),
    "meta_learning": (5, 3, 3, 1, 5),
    "mlp": (12, 4, 4, 1, 12),
    "nanogpt": (6, 24, 24, 1, 5),
    "physics": (6, 5, 5, 1, 6),
    "quickstart": (8, 6, 5, 1, 8),
    "recommender": (6, 3, 3, 2, 6),
    "reinforce": (5, 5, 5, 1, 5),
    "reparametrized": (6, 8, 8, 1, 6),
    "scripted_part": (6, 2, 2, 1, 6),
    "seq2seq": (5, 30, 30, 2, 5),
    "style_transfer": (4, 0, 0, 1, 3),
    "transfer": (6, 8, 1, 1, 6),  # no gradient reaches the frozen trunk
    "two_optimizers": (6, 4, 4, 2, 6),
    "vae": (6, 8, 8, 1, 6),
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
    num_steps, num_layers, num_with_gradient, num_optimizers, num_measured = SEEN[name]
    assert view.info.status == "finished"
    assert (view.num_steps, len(view.layers), len(view.gradient_layers)) == (
        num_steps,
        num_layers,
        num_with_gradient,
    )
    assert view.last_steps.tolist() == (list(range(num_steps)) if num_layers else [])
    assert {key for _, key in view.scalars if key.startswith("lr") and "." not in key} == {
        "lr" + (f"@{index}" if index else "") for index in range(num_optimizers)
    }
    assert len(view.scalar("grad_norm")) == num_measured


def losses(output: str) -> list[list[float]]:
    lines = [line.split()[1:] for line in output.splitlines() if line.startswith("loss")]
    return [[float(number) for number in line] for line in lines]


def loaded(name: str, runs: tuple[Path, dict[str, dict[str, str]]]) -> tuple[RunView, np.ndarray]:
    return read_run(runs[0] / name), np.array(losses(runs[1][name]["output"]))


@pytest.mark.parametrize(
    "name",
    [
        "averaged",
        "backward_steps",
        "cnn",
        "dqn",
        "gpt",
        "lstm",
        "masked_language",
        "meta_learning",
        "mlp",
        "physics",
        "quickstart",
        "recommender",
        "reinforce",
        "reparametrized",
        "scripted_part",
        "seq2seq",
        "transfer",
        "two_optimizers",
        "vae",
    ],
)
def test_losses_are_those_that_the_script_prints(
    name: str, runs: tuple[Path, dict[str, dict[str, str]]]
) -> None:
    view, printed = loaded(name, runs)
    np.testing.assert_array_equal(view.scalar("loss").values, printed[:, 0])


def test_losses_under_a_scaler_are_unscaled_and_that_of_an_update_left_out_does_not_count(
    runs: tuple[Path, dict[str, dict[str, str]]],
) -> None:
    view, printed = loaded("amp", runs)
    np.testing.assert_array_equal(view.scalar("loss").values, np.delete(printed[:, 0], 2))
    (skipped,) = view.facts.of(FactKind.SKIPPED_UPDATE)
    assert (skipped.first_step, skipped.number("skipped"), skipped.number("in_a_row")) == (2, 1, 0)
    assert not [f for f in diagnose(view).findings if f.severity > Severity.NOTE]


@pytest.mark.parametrize(("name", "accumulates"), [("accumulation", 4), ("nanogpt", 3)])
def test_micro_batches_are_one_step_and_their_loss_is_what_it_was_before_it_was_divided(
    name: str, accumulates: int, runs: tuple[Path, dict[str, dict[str, str]]]
) -> None:
    view, printed = loaded(name, runs)
    np.testing.assert_allclose(view.scalar("loss").values, printed.reshape(6, accumulates).sum(1), rtol=1e-12)


def test_a_module_called_twice_counts_all_its_micro_batches(
    runs: tuple[Path, dict[str, dict[str, str]]],
) -> None:
    view, _ = loaded("accumulation", runs)
    assert view.moments.num[0].tolist() == [4 * 8 * 6] * 4 + [4 * 8 * 2]


@pytest.mark.parametrize(
    ("name", "stages"), [("contrastive", (5, 4)), ("distillation", (6, 6)), ("folds", (4, 4, 4))]
)
def test_each_stage_of_a_training_has_its_losses_and_its_layers(
    name: str, stages: tuple[int, ...], runs: tuple[Path, dict[str, dict[str, str]]]
) -> None:
    view, printed = loaded(name, runs)
    names = [f"loss@{index}" if index else "loss" for index in range(len(stages))]
    np.testing.assert_array_equal(np.concatenate([view.scalar(one).values for one in names]), printed[:, 0])
    assert [len(view.scalar(one)) for one in names] == list(stages)
    first_ends = stages[0]
    assert (view.moments.num[:first_ends, 0] > 0).all()
    assert (view.moments.num[first_ends:, 0] == 0).all()  # evaluation, no gradients, or gone
    assert (view.moments.num[:first_ends, -1] == 0).all()
    assert (view.moments.num[-stages[-1] :, -1] > 0).all()


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("averaged", "0", "3"),
        ("contrastive", "0", "linear2.model"),
        ("dcgan", "main.0", "generator1.main.4"),
        ("distillation", "features.0", "lightnn1.classifier.2"),
        ("dqn", "layer1", "layer3"),
        ("folds", "0", "sequential2.2"),
        ("nanogpt", "transformer.wte", "lm_head"),
        ("quickstart", "flatten", "linear_relu_stack.4"),
        ("recommender", "users", "items"),
        ("reinforce", "affine1", "value_head"),
        ("reparametrized", "features.0", "head"),
        ("scripted_part", "stem", "head"),
        ("seq2seq", "embedding", "decoderrnn1.log_softmax"),
        ("transfer", "conv1", "fc"),
    ],
)
def test_layers_are_named_as_in_the_model(
    name: str, first: str, last: str, runs: tuple[Path, dict[str, dict[str, str]]]
) -> None:
    layers = loaded(name, runs)[0].layers
    assert (layers[0].name, layers[-1].name) == (first, last)


def test_every_call_in_an_episode_belongs_to_its_step(
    runs: tuple[Path, dict[str, dict[str, str]]],
) -> None:
    view, _ = loaded("reinforce", runs)
    assert view.moments.num[:, -1].tolist() == [3, 4, 5, 6, 7]


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
