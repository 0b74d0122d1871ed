"""The real trainers under ``actograph run``, and with our adapters: nothing changes, and the record is what they report.

Each runs in a process of its own: they set up warnings, logging and random states as they like. ``PEERS`` names the python
of another environment that has them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from actograph.rules.diagnose import diagnose
from actograph.runlog.reader import read_run
from actograph.runlog.view import RunView

pytestmark = pytest.mark.xdist_group("peers")  # one process trains what they share

ROOT = Path(__file__).parents[2]
SCRIPTS = {
    "skorch": "skorch_net",
    "accelerate": "accelerate_loop",
    "lightning": "lightning_module",
    "transformers": "transformers_trainer",
    "fastai": "fastai_learner",
    "keras": "keras_model",
}
FOREIGN = {"fastai", "keras"}  # their optimizers are not torch's: nothing is seen of them without an adapter
ADAPTERS = {"skorch", "lightning", "transformers", *FOREIGN}


@dataclass(frozen=True)
class Fit:
    """What a script has printed, and the runs it has left."""

    left: dict[str, dict[str, str]]  # by the way in which it was run
    folder: Path
    name: str

    @property
    def observed(self) -> dict[str, str]:
        return self.left["observed"]

    @property
    def view(self) -> RunView:
        return read_run(self.folder / self.name)

    def adapted(self, way: str) -> RunView:
        """The run of the script's last fit with an adapter in it."""
        if way == "joined":
            return read_run(self.folder / "joined" / self.name)
        return read_run(sorted(self.folder.glob("adapter*"))[-1])

    def printed(self, key: str) -> list[list[float]]:
        lines = [line.split() for line in self.observed["output"].splitlines()]
        return [[float(number) for number in line[1:]] for line in lines if line and line[0] == key]

    @property
    def losses(self) -> list[float]:
        return [line[0] for line in self.printed("loss")]

    def scalar(self, name: str) -> np.ndarray:
        return self.view.scalar(name).values


def fit(library: str, folder: Path) -> Fit:
    python = os.environ.get("PEERS", sys.executable)
    command = [python, "-m", "tests.peers.both", library, str(folder)]
    with_adapter = ["adapter"] if library in ADAPTERS else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [*command, str(ROOT / "tests" / "peers" / "scripts" / f"{SCRIPTS[library]}.py"), *with_adapter],
        capture_output=True, text=True, check=False, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    left = json.loads(done.stdout.splitlines()[-1])
    if left is None:
        pytest.skip(f"{library} is not installed: make test-peers")
    return Fit(left, folder, SCRIPTS[library])


@pytest.fixture(scope="module", params=SCRIPTS)
def any_fit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Fit]:
    return request.param, fit(request.param, tmp_path_factory.mktemp(request.param))


def test_a_trainer_does_what_it_does_and_its_record_is_what_it_reports(any_fit: tuple[str, Fit]) -> None:
    library, done = any_fit
    assert done.losses
    assert done.observed == done.left["plain"]
    if library == "keras":
        assert not (done.folder / done.name).exists()
        return
    assert done.view.info.status == "finished"
    assert done.view.last_steps.tolist() == list(range(done.view.num_steps))
    CHECKS[library](done)


@pytest.mark.parametrize("way", ["adapter", "joined"])
def test_an_adapter_changes_nothing_and_tells_phases_epochs_and_what_validation_found(
    any_fit: tuple[str, Fit], way: str
) -> None:
    library, done = any_fit
    if library not in ADAPTERS:
        pytest.skip("it has no callbacks: its loop is the script's own")
    assert done.left[way] == done.left["plain"]
    view = done.adapted(way)
    assert view.info.status == "finished"
    assert view.layers[-1].name.split(".")[-1] == LAST_LAYER[library]
    assert (view.last_steps == np.arange(view.num_steps)).all()
    told = [(event.data["name"], event.data["epoch"]) for event in view.events if event.kind == "phase"]
    assert told[-4:] == [("train", 0), ("valid", 0), ("train", 1), ("valid", 1)]
    assert np.diff(view.scalar("loss", phase="valid").steps[-2:]) == [STEPS_OF_EPOCH[library]]
    np.testing.assert_allclose(view.scalar("loss", phase="valid").values[-2:], VALID_LOSSES[library](done))
    assert diagnose(view).findings == ()


def test_the_steps_of_fastai_and_keras_are_those_of_their_optimizers(any_fit: tuple[str, Fit]) -> None:
    library, done = any_fit
    if library not in FOREIGN:
        pytest.skip("its optimizers are torch's")
    view = read_run(done.folder / "adapter")
    rates = done.printed("rates")[0] if library == "fastai" else 0.05 * 0.5 ** np.arange(8.0)
    np.testing.assert_allclose(view.scalar("lr").values, rates, rtol=1e-6)
    joined = done.adapted("joined")  # without the losses of fastai's rate finder
    np.testing.assert_array_equal(joined.scalar("loss").values, view.scalar("loss").values)
    if library == "fastai":  # Keras clips by itself
        norms = view.scalar("grad_norm").values
        clipped = norms * view.scalar("clip_ratio").values
        np.testing.assert_allclose(clipped, np.minimum(norms, 0.5), rtol=1e-4)
    assert (view.parameters.column("update_norm") > 0).all()
    assert len(list(done.folder.glob("adapter*"))) == 2  # two fits; what only predicts has no run


def test_an_adapter_without_its_library_says_what_to_install() -> None:
    code = """
import importlib, sys
from actograph.errors import UsageError
sys.modules["pytorch_lightning"] = None
for library in sys.argv[1:]:
    sys.modules[library] = None
    try:
        importlib.import_module(f"actograph.integrations.{library}")
    except UsageError as error:
        print(error)
"""
    libraries = sorted(ADAPTERS)
    command = [sys.executable, "-c", code, *libraries]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert len(lines) == len(libraries), done.stderr
    for library, line in zip(libraries, lines, strict=True):
        assert line.startswith(f"actograph.integrations.{library} needs {library}")
        assert f"pip install {library}" in line


def by_pairs(losses: list[float], epochs: int) -> list[float]:
    """Return the mean losses of steps of two batches, the last of an epoch of one."""
    return [
        float(np.mean(epoch[begin : begin + 2]))
        for epoch in np.split(np.array(losses), epochs)
        for begin in range(0, len(epoch), 2)
    ]


def check_skorch(done: Fit) -> None:
    assert [layer.name for layer in done.view.layers] == ["dense0", "nonlin", "output"]
    np.testing.assert_array_equal(done.scalar("loss"), done.losses)
    assert done.view.moments.num[:, 2].tolist() == [8 * 3] * 8  # training batches only
    # clipped in the closure that skorch gives the optimizer: known from the second step on
    norms = done.scalar("grad_norm")
    np.testing.assert_allclose(norms * done.scalar("clip_ratio"), np.minimum(norms, 0.2), rtol=1e-4)
    assert len(norms) == 7


def check_accelerate(done: Fit) -> None:
    assert [layer.name for layer in done.view.layers] == ["0", "1", "2"]
    np.testing.assert_allclose(done.scalar("loss"), by_pairs(done.losses, 2), rtol=1e-6)
    assert done.view.moments.num[:, 2].tolist() == [48, 48, 24] * 2
    norms = done.scalar("grad_norm")
    np.testing.assert_allclose(norms * done.scalar("clip_ratio"), np.minimum(norms, 0.5), rtol=1e-4)


def check_lightning(done: Fit) -> None:
    assert [layer.name for layer in done.view.layers] == ["net.0", "net.1", "net.2", "net.3"]
    np.testing.assert_allclose(done.scalar("loss"), by_pairs(done.losses, 2), rtol=1e-6)
    assert done.view.moments.num[:, 3].tolist() == [48, 48, 24] * 2
    assert done.scalar("lr").tolist() == pytest.approx([1e-2] * 3 + [1e-3] * 3)
    norms = done.scalar("grad_norm")
    np.testing.assert_allclose(norms * done.scalar("clip_ratio"), np.minimum(norms, 0.5), rtol=1e-4)


def check_transformers(done: Fit) -> None:
    names = [layer.name for layer in done.view.layers]
    assert (names[0], names[-3:]) == (
        "bert.embeddings.word_embeddings",
        ["classifier", "ownmodel1.embed", "ownmodel1.head"],
    )
    recorded = [*done.scalar("loss"), *done.scalar("loss@1")]
    np.testing.assert_allclose(recorded, done.losses, rtol=1e-6)
    assert done.view.moments.num[:10, names.index("classifier")].tolist() == [4 * 2] * 10
    assert done.view.moments.num[10:, -1].tolist() == [16, 16, 8] * 2
    reported = np.array(done.printed("loss"))[:, 1]
    norms = [*done.scalar("grad_norm"), *done.scalar("grad_norm@1")]
    np.testing.assert_allclose(norms, [*reported[1:10], *reported[11:]], rtol=1e-5)


LAST_LAYER = {"skorch": "output", "lightning": "3", "transformers": "head", "fastai": "3", "keras": "head"}
STEPS_OF_EPOCH = {"skorch": 4, "lightning": 3, "transformers": 3, "fastai": 5, "keras": 2}
VALID_LOSSES: dict[str, Callable[[Fit], list[float]]] = {
    "skorch": lambda done: done.printed("valid")[0][:2],
    # two batches of a validation are one value; the first two are the sanity check's
    "lightning": lambda done: [one.mean() for one in np.split(np.array(done.printed("valid"))[2:, 0], 2)],
    **dict.fromkeys(
        ["transformers", "fastai", "keras"], lambda done: [line[0] for line in done.printed("valid")[-2:]]
    ),
}


def check_fastai(done: Fit) -> None:
    assert done.view.num_steps == 10  # of the optimizer that is torch's


CHECKS = {
    "fastai": check_fastai,
    "skorch": check_skorch,
    "accelerate": check_accelerate,
    "lightning": check_lightning,
    "transformers": check_transformers,
}
