"""The command line as a stranger uses it, in processes of its own where that matters."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from actograph.cli.main import main
from actograph.data.digits import digits
from actograph.runlog.reader import read_run

QUICK = ("--epochs", "1", "--batch-size", "256")


def actograph(*args: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-m", "actograph", *map(str, args)],
        capture_output=True, text=True, check=False, cwd=cwd, env=environment, timeout=300,
    )  # fmt: skip


class Here:
    """Runs the command in this process: importing torch takes longer than most of what is tested."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capsys, self.monkeypatch = capsys, monkeypatch
        monkeypatch.setenv("COLUMNS", "100")

    def __call__(self, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        self.monkeypatch.chdir(cwd)
        self.monkeypatch.setattr(sys, "argv", ["actograph", *args])
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = self.capsys.readouterr()
        return subprocess.CompletedProcess(args, int(stopped.value.code or 0), printed.out, printed.err)


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    return Here(capsys, monkeypatch)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    cwd = tmp_path_factory.mktemp("trained")
    return cwd, actograph(
        "train", "mnist", "--epochs", "2", "--batch-size", "64", "--lr", "0.02", "--out", "run", cwd=cwd
    )


def test_training_prints_epochs_findings_and_where_the_report_is(
    trained: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    cwd, done = trained
    assert done.returncode == 0, done.stderr
    assert "30,282 parameters" in done.stdout
    rows = re.findall(r"^ +\d +\d\.\d{4} +\d\.\d{4} +(0\.\d{4}) +\d", done.stdout, re.MULTILINE)
    assert len(rows) == 2
    assert float(rows[-1]) > 0.85
    assert "Nothing wrong was found" in done.stdout
    assert str(Path("run") / "report.html") in done.stdout
    assert "\x1b" not in done.stdout  # no control codes when it is not a terminal
    assert (cwd / "run" / "report.html").stat().st_size < 10e6


def test_every_layer_is_recorded_at_every_step(
    trained: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    view = read_run(trained[0] / "run")
    cost = view.info.cost
    assert cost.steps_seen == cost.steps_recorded == view.num_steps == 2 * 63
    assert [layer.kind for layer in view.layers].count("Conv2d") == 5
    assert [layer.kind for layer in view.layers].count("ReLU") == 4
    lr = view.scalar("lr").values
    assert lr[0] == pytest.approx(0.02 / 25)
    assert lr.max() == pytest.approx(0.02, rel=1e-3)
    assert lr[-1] < 1e-4
    assert view.info.config["model"] == "simple_cnn"


def test_a_run_can_be_listed_shown_diagnosed_and_reported(
    trained: tuple[Path, subprocess.CompletedProcess[str]], here: Here
) -> None:
    cwd = trained[0]
    assert "run" in here("ls", ".", cwd=cwd).stdout
    shown = here("show", "run", cwd=cwd)
    assert "block5.conv" in shown.stdout
    diagnosed = here("diagnose", "run", "--json", cwd=cwd)
    assert diagnosed.returncode == 0, diagnosed.stdout + diagnosed.stderr
    assert json.loads(diagnosed.stdout)["findings"] == []
    assert here("report", "run", "--out", "again.html", cwd=cwd).returncode == 0
    assert (cwd / "again.html").is_file()


def test_a_run_classifies_images_with_its_model(
    trained: tuple[Path, subprocess.CompletedProcess[str]], here: Here
) -> None:
    cwd, done = trained
    assert f"Model:   {Path('run') / 'model.safetensors'}, for actograph predict run IMAGE" in done.stdout
    data = digits(batch_size=40)
    assert data.normalization is not None
    x, y = next(iter(data.valid or ()))
    pixels = (x * data.normalization.std[0] + data.normalization.mean[0]) * 255
    images = [f"{number}.png" for number in range(len(y))]
    for image, one in zip(images, pixels.round().byte().numpy(), strict=True):
        Image.fromarray(one[0]).save(cwd / image)
    found = json.loads(here("predict", "run", *images, "--json", cwd=cwd).stdout)
    assert [entry["image"] for entry in found] == images
    assert sum(entry["class"] == str(int(digit)) for entry, digit in zip(found, y, strict=True)) >= 34


def test_the_same_seed_gives_the_same_run(tmp_path: Path, here: Here) -> None:
    for name in ("a", "b"):
        assert here("train", "mnist", *QUICK, "--out", name, cwd=tmp_path).returncode == 0
    first, second = (read_run(tmp_path / name) for name in ("a", "b"))
    np.testing.assert_array_equal(first.rows, second.rows)
    np.testing.assert_array_equal(first.scalar("loss").values, second.scalar("loss").values)


def picture_folder(root: Path, num: int = 12) -> Path:
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        (root / name).mkdir(parents=True)
        for index in range(num):
            pixels = np.clip(rng.normal(level, 20, (20, 24, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


def test_a_folder_of_images_trains(tmp_path: Path, here: Here) -> None:
    picture_folder(tmp_path / "pictures")
    done = here("train", "pictures", "--epochs", "2", "--batch-size", "4", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 classes, images 3 × 20 × 20" in done.stdout


def test_an_npz_file_trains_a_wider_residual_network(tmp_path: Path, here: Here) -> None:
    x = np.random.default_rng(0).integers(0, 256, (40, 9, 7), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(40) % 2)
    network = ("--model", "resnet", "--width", "0.25", "--act", "silu")
    done = here("train", "data.npz", *network, "--epochs", "1", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 classes, images 1 × 9 × 7" in done.stdout
    told = read_run(tmp_path / "run").info.config
    assert (told["model"], told["width"], told["act"]) == ("resnet", 0.25, "silu")


def broken_image(root: Path) -> None:
    (root / "dark" / "3.png").write_bytes(b"not an image")


def empty_class(root: Path) -> None:
    (root / "none").mkdir()


@pytest.mark.parametrize(("spoil", "message"), [(broken_image, r"3\.png"), (empty_class, r"\bnone\b")])
def test_bad_folders_are_one_line_and_leave_nothing(
    spoil: object, message: str, tmp_path: Path, here: Here
) -> None:
    root = picture_folder(tmp_path / "pictures")
    assert callable(spoil)
    spoil(root)
    done = here("train", "pictures", "--out", "run", cwd=tmp_path)
    assert done.returncode == 2
    assert re.search(message, done.stderr)
    assert done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("train", "mnits"), "give 'mnist' or a folder"),
        (("train", "mnist", "--epochs", "0"), "--epochs is 0"),
        (("train", "mnist", "--lr", "-1"), "--lr is -1"),
        (("train", "mnist", "--label-smoothing", "1"), "--label-smoothing is 1"),
        (("train", "mnist", "--budget", "7"), "budget=7"),
        (("train", "mnist", "--device", "quantum"), "device 'quantum' cannot be used here"),
        (("train", "mnist", "--model", "simple_cn"), "did you mean 'simple_cnn'"),
        (("train", "mnist", "--batch-size", "0"), "batch_size"),
        (("train", "mnist", "--width", "0"), "width is 0.0; give a factor above 0"),
        (("train", "mnist", "--act", "reul"), "did you mean 'relu'"),
        (("train", "mnist", "--model", "mlp", "--norm", "batch"), "its options are in_features"),
        (("train",), "Missing argument"),
        (("report", "nowhere"), "nowhere"),
        (("diagnose", "nowhere"), "nowhere"),
        (("show", "nowhere"), "nowhere"),
        (("ls", "nowhere"), "nowhere"),
        (("shapes", "simple_cnm"), "did you mean 'simple_cnn'"),
    ],
)
def test_mistakes_are_told_with_exit_code_2(
    args: tuple[str, ...], message: str, tmp_path: Path, here: Here
) -> None:
    done = here(*args, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_in_use_is_refused(tmp_path: Path, here: Here) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.db").write_text("mine")
    done = here("train", "mnist", *QUICK, "--out", "run", cwd=tmp_path)
    assert done.returncode == 2
    assert "already holds a run" in done.stderr
    assert (tmp_path / "run" / "run.db").read_text() == "mine"
    assert len(list((tmp_path / "run").iterdir())) == 1


def test_ctrl_c_keeps_what_was_recorded(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "actograph", "train", "mnist", "--epochs", "1000", "--out", "run"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"},
        # a shell's background job ignores Ctrl-C, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - this process has no threads
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (tmp_path / "run" / "run.db").is_file() and read_run(tmp_path / "run").num_steps > 20:
            break
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    try:
        stdout, stderr = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, stderr
    assert "interrupted" in stdout
    assert read_run(tmp_path / "run").info.status == "interrupted"
    assert (tmp_path / "run" / "report.html").is_file()


def test_the_version_is_told(tmp_path: Path, here: Here) -> None:
    assert here("--version", cwd=tmp_path).stdout.startswith("actograph 0.")


def test_gradients_are_recorded_on_request(tmp_path: Path, here: Here) -> None:
    done = here("train", "mnist", *QUICK, "--grad", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    view = read_run(tmp_path / "run")
    assert [layer.name for layer in view.gradients.layers] == [layer.name for layer in view.layers]
    assert view.parameters.names[0] == "block1.conv.weight"
    assert 'id="gradient-norm"' in (tmp_path / "run" / "report.html").read_text()
