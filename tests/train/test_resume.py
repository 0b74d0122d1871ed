"""A fit that was interrupted and goes on is bit for bit the one that was not."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset

from actograph.callbacks.activation_stats import ActivationStats
from actograph.callbacks.checkpoint import Checkpoint
from actograph.callbacks.gradient_stats import GradientStats
from actograph.callbacks.lr_scheduler import LRScheduler
from actograph.callbacks.recorder import Recorder
from actograph.data.loaders import TensorLoader
from actograph.learner import Learner
from actograph.runlog.reader import read_run
from actograph.runlog.view import RunView
from actograph.train.checkpoint_file import read_checkpoint
from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop
from actograph.train.metrics import Accuracy
from actograph.train.state import Phase, StopFit

NUM_SAMPLES, BATCH_SIZE, NUM_BATCHES, EPOCHS = 52, 8, 7, 3

MakeLoader = Callable[[Tensor, Tensor], Any]


class CrashError(Exception):
    pass


class Crash(Callback):
    """Die at a train batch, counted over all fits."""

    stage = Stage.SETUP

    def __init__(self, batch: int) -> None:
        self.left = batch

    def before_batch(self, loop: Loop) -> None:
        if loop.progress.phase is Phase.TRAIN:
            self.left -= 1
            if self.left < 0:
                raise CrashError


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Draws from all three random number generators for each sample, as augmentations do."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = random.random() + np.random.rand() + torch.rand(()).item()
        return self.x[index] + 0.1 * noise, self.y[index]


def with_sampler(x: Tensor, y: Tensor) -> DataLoader[Any]:
    data = TensorDataset(x, y)
    sampler = RandomSampler(data, replacement=True, generator=torch.Generator().manual_seed(3))
    return DataLoader(data, BATCH_SIZE, sampler=sampler)


def with_generator(x: Tensor, y: Tensor) -> DataLoader[Any]:
    return DataLoader(
        TensorDataset(x, y), BATCH_SIZE, shuffle=True, generator=torch.Generator().manual_seed(3)
    )


class WithState:
    """A loader of another making with a state of its own."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.inner = TensorLoader(x, y, BATCH_SIZE, shuffle=True, seed=4)

    def __len__(self) -> int:
        return len(self.inner)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.inner)

    def state_dict(self) -> dict[str, Any]:
        return {"inner": self.inner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state["inner"])


LOADERS: dict[str, MakeLoader] = {
    "TensorLoader": lambda x, y: TensorLoader(x, y, BATCH_SIZE, shuffle=True, seed=4),
    "with state": WithState,
    "DataLoader": lambda x, y: DataLoader(TensorDataset(x, y), BATCH_SIZE, shuffle=True),
    "random dataset": lambda x, y: DataLoader(Noisy(x, y), BATCH_SIZE, shuffle=True),
    "generator": with_generator,
    "sampler": with_sampler,
    "list": lambda x, y: list(zip(torch.split(x, BATCH_SIZE), torch.split(y, BATCH_SIZE), strict=True)),
}


def sgd(parameters: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=1e-3)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(36, 4),
    )


def samples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(NUM_SAMPLES, 1, 8, 8, generator=generator)
    return x, torch.randint(0, 4, (NUM_SAMPLES,), generator=generator)


def cross_entropy(factor: float, pred: Tensor, y: Tensor) -> Tensor:
    return factor * nn.functional.cross_entropy(pred, y)


def make(
    loader: str | MakeLoader = "TensorLoader", seed: int = 0, factor: float = 1.0, **options: Any
) -> Learner:
    """Return a learner; the ``seed`` is that of its weights and of all random numbers drawn after it."""
    x, y = samples()
    make_loader = LOADERS[loader] if isinstance(loader, str) else loader
    options = {"lr": 0.01, "metrics": [Accuracy()], "defaults": [Recorder], **options}
    loaders = make_loader(x, y), TensorLoader(x, y, 16)
    learn = Learner(network(seed), loaders, partial(cross_entropy, factor), **options)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return learn


def outcome(learn: Learner) -> list[Any]:
    """Return everything that has to be equal, bit for bit."""
    recorder = learn.recorder
    epochs = [{key: value for key, value in row.items() if key != "time_s"} for row in recorder.epochs]
    return [
        {name: value.tolist() for name, value in learn.model.state_dict().items()},
        [
            recorder.steps.tolist(),
            recorder.losses.tolist(),
            recorder.lrs.tolist(),
            recorder.momentums.tolist(),
        ],
        epochs,
        [group["lr"] for group in learn.optimizer.param_groups],
        [
            {name: value.tolist() for name, value in of_one.items()}
            for of_one in learn.optimizer.state_dict()["state"].values()
        ],
        torch.get_rng_state().tolist(),
        random.random(),
        np.random.rand(),
        learn.loop.progress,
    ]


def crashed(learn: Learner, directory: Path, batch: int, fit: Callable[..., None], every_steps: int) -> Path:
    with pytest.raises(CrashError):
        fit(learn, callbacks=[Checkpoint(directory, best=False, every_steps=every_steps), Crash(batch)])
    return directory / "last.ckpt"


def one_cycle(learn: Learner, callbacks: Any = (), **options: Any) -> None:
    learn.fit_one_cycle(EPOCHS, 0.05, callbacks=callbacks, **options)


def resumed(path: Path, fit: Callable[..., None] = one_cycle, **options: Any) -> Learner:
    """Return a learner of another process, which had other weights and random states, after it went on."""
    learn = make(seed=9, **options)
    learn.load_checkpoint(path)
    fit(learn)
    return learn


pytestmark = pytest.mark.filterwarnings("ignore:.*callback checkpoint")  # the fits that go on save nothing
MIDDLE, LAST_STEP = NUM_BATCHES + 4, 3 * NUM_BATCHES - 1
AT_EPOCH_END = (2 * NUM_BATCHES, 1000)  # no checkpoint but those of the epochs


@pytest.mark.parametrize(
    ("loader", "opt_func"),
    [*((loader, torch.optim.AdamW) for loader in LOADERS), ("TensorLoader", sgd), ("DataLoader", sgd)],
)
def test_a_fit_goes_on_bit_for_bit(tmp_path: Path, loader: str, opt_func: Any) -> None:
    whole = make(loader, opt_func=opt_func)
    one_cycle(whole)
    wanted = outcome(whole)
    for batch, every_steps in ((MIDDLE, 3), (LAST_STEP, 10), AT_EPOCH_END):
        path = crashed(make(loader, opt_func=opt_func), tmp_path, batch, one_cycle, every_steps)
        assert outcome(resumed(path, loader=loader, opt_func=opt_func)) == wanted, f"stopped at batch {batch}"


@pytest.mark.parametrize("loader", ["TensorLoader", "DataLoader"])
def test_a_fit_goes_on_behind_the_last_batch_of_an_epoch(tmp_path: Path, loader: str) -> None:
    class CrashInValidation(Callback):
        def before_phase(self, loop: Loop) -> None:
            if loop.progress.phase is Phase.VALID and loop.progress.epoch:
                raise CrashError

    whole = make(loader)
    one_cycle(whole)
    wanted = outcome(whole)
    saving = Checkpoint(tmp_path, best=False, every_steps=2 * NUM_BATCHES)
    with pytest.raises(CrashError):
        one_cycle(make(loader), callbacks=[saving, CrashInValidation()])
    assert read_checkpoint(tmp_path / "last.ckpt").about["position"]["num_done"] == NUM_BATCHES
    assert outcome(resumed(tmp_path / "last.ckpt", loader=loader)) == wanted


def test_a_fit_that_went_on_can_be_resumed_again(tmp_path: Path) -> None:
    whole = make("DataLoader")
    one_cycle(whole)
    wanted = outcome(whole)
    path = crashed(make("DataLoader"), tmp_path, MIDDLE, one_cycle, every_steps=1)
    second = make("DataLoader", seed=9)
    second.load_checkpoint(path)
    path = crashed(second, tmp_path, 2, one_cycle, every_steps=1)
    assert outcome(resumed(path, loader="DataLoader")) == wanted


@pytest.mark.parametrize("loader", ["TensorLoader", "with state", "DataLoader"])
def test_epochs_of_some_steps_go_on(tmp_path: Path, loader: str) -> None:
    """The loader is left in the middle of its epoch each time, and begins a new one."""

    def fit(learn: Learner, callbacks: Any = ()) -> None:
        learn.fit(EPOCHS, callbacks=callbacks, steps=4)

    whole = make(loader)
    fit(whole)
    wanted = outcome(whole)
    for batch, every_steps in ((6, 1), (8, 1000)):
        path = crashed(make(loader), tmp_path, batch, fit, every_steps)
        assert outcome(resumed(path, fit, loader=loader)) == wanted


def test_gathered_gradients_and_loss_scale_go_on(tmp_path: Path) -> None:
    options: dict[str, Any] = {"accumulate": 2, "amp": "fp16", "clip_norm": 0.5, "factor": 100.0}
    whole = make(**options)
    one_cycle(whole)
    wanted = outcome(whole)
    assert whole.loop.progress.num_skipped_steps  # too large a scale at first, and another one since
    path = crashed(make(**options), tmp_path, MIDDLE, one_cycle, every_steps=1)
    assert outcome(resumed(path, **options)) == wanted


def test_the_second_fit_of_a_fine_tuning_goes_on(tmp_path: Path) -> None:
    def fit(learn: Learner, callbacks: Any = ()) -> None:
        learn.fine_tune(2, callbacks=callbacks)

    options: dict[str, Any] = {"splitter": lambda model: [model[:3], model[3:]]}
    whole = make(**options)
    fit(whole)
    wanted = outcome(whole)
    for batch in (3, NUM_BATCHES + 5):  # the crash counts over both fits
        path = crashed(make(**options), tmp_path, batch, fit, every_steps=1)
        assert outcome(resumed(path, fit, **options)) == wanted


def test_rates_that_change_by_epoch_go_on(tmp_path: Path) -> None:
    def fit(learn: Learner, callbacks: Any = ()) -> None:
        halving = LRScheduler(lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5))
        learn.fit(EPOCHS, callbacks=[halving, *callbacks])

    whole = make()
    fit(whole)
    wanted = outcome(whole)
    path = crashed(make(), tmp_path, MIDDLE, fit, every_steps=2)
    assert outcome(resumed(path, fit)) == wanted


def test_asking_a_loader_for_its_state_draws_no_random_numbers(tmp_path: Path) -> None:
    class Drawing(TensorLoader):
        """Draws when it is asked and when it begins, as torchdata's StatefulDataLoader does."""

        def state_dict(self) -> dict[str, int | bool]:
            torch.rand(())
            return super().state_dict()

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            torch.rand(())
            return super().__iter__()

    def loader(x: Tensor, y: Tensor) -> Drawing:
        return Drawing(x, y, BATCH_SIZE, shuffle=True)

    whole = make(loader)
    one_cycle(whole)
    wanted = outcome(whole)
    path = crashed(make(loader), tmp_path, MIDDLE, one_cycle, every_steps=1)
    assert outcome(resumed(path, loader=loader)) == wanted


def test_a_look_at_a_batch_to_validate_on_is_no_place_in_it(tmp_path: Path) -> None:
    whole = make()
    one_cycle(whole)
    wanted = outcome(whole)
    other = make()
    next(iter(other.data.valid or ()))
    path = crashed(other, tmp_path, 4, one_cycle, every_steps=1)  # before the valid loader's first epoch
    assert outcome(resumed(path)) == wanted


class Tempered(nn.Module):
    """A loss function that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, pred: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.factor * pred, y)


@pytest.mark.parametrize("batch", [MIDDLE, 2 * NUM_BATCHES])
def test_a_loss_function_that_learns_goes_on(tmp_path: Path, batch: int) -> None:
    def learner(seed: int = 0) -> Learner:
        learn, loss = make(seed=seed), Tempered()
        learn.loss_func = loss
        learn.opt_func = lambda parameters, lr: torch.optim.AdamW([*parameters, *loss.parameters()], lr=lr)
        return learn

    whole = learner()
    one_cycle(whole)
    wanted = [*outcome(whole), whole.loss_func.factor.item()]  # type: ignore[attr-defined]
    path = crashed(learner(), tmp_path, batch, one_cycle, every_steps=1)
    learn = learner(seed=9)
    learn.load_checkpoint(path)
    one_cycle(learn)
    assert [*outcome(learn), learn.loss_func.factor.item()] == wanted  # type: ignore[attr-defined]


class StopIn(Callback):
    """Stop in the first batch of a phase."""

    def __init__(self, phase: Phase) -> None:
        self.phase = phase

    def after_batch(self, loop: Loop) -> None:
        if loop.progress.phase is self.phase:
            raise StopFit("enough")


def look_at_a_batch(learn: Learner) -> None:
    learn.fit(1)
    next(iter(learn.train_loader))
    next(iter(learn.data.valid or ()))


def predict_after_a_part(learn: Learner) -> None:
    learn.fit(1, steps=3)
    learn.predict_loader(learn.train_loader)


@pytest.mark.parametrize("loader", ["TensorLoader", "DataLoader"])
@pytest.mark.parametrize(
    "first",
    [
        one_cycle,
        lambda learn: learn.fit(2, steps=3),
        lambda learn: learn.fit(2, steps=NUM_BATCHES),
        lambda learn: learn.fit(2, callbacks=[StopIn(Phase.TRAIN)]),
        lambda learn: learn.fit(2, callbacks=[StopIn(Phase.VALID)]),
        look_at_a_batch,
        predict_after_a_part,
    ],
)
def test_a_fit_after_a_checkpoint_between_two_fits_is_the_next_one(
    tmp_path: Path, loader: str, first: Callable[[Learner], None]
) -> None:
    """However the first one left the loaders."""
    whole = make(loader)
    first(whole)
    whole.save_checkpoint(tmp_path / "between.ckpt")
    one_cycle(whole)
    wanted = outcome(whole)
    assert outcome(resumed(tmp_path / "between.ckpt", loader=loader)) == wanted


def test_a_fit_that_was_asked_to_stop_does_not_go_on(tmp_path: Path) -> None:
    class Stop(Callback):
        def after_epoch(self, loop: Loop) -> None:
            raise StopFit("enough")

    whole = make()
    whole.fit(EPOCHS, callbacks=[Stop(), Checkpoint(tmp_path)])
    wanted = outcome(whole)
    learn = make(seed=9)
    learn.load_checkpoint(tmp_path / "last.ckpt")
    learn.fit(EPOCHS)
    assert learn.loop.stop_reason == "enough"
    assert outcome(learn) == wanted


def statistics(learn: Learner) -> RunView:
    return learn.callbacks[ActivationStats].view


@pytest.mark.parametrize("in_memory", [True, False])
def test_statistics_go_on_bit_for_bit(tmp_path: Path, in_memory: bool) -> None:
    def options(name: str) -> dict[str, Any]:
        out = ":memory:" if in_memory else tmp_path / name
        return {"callbacks": [ActivationStats(budget=None, out=out, grad=True), GradientStats()]}

    whole = make(**options("whole"))
    one_cycle(whole)
    wanted = statistics(whole)
    for batch, every_steps in ((MIDDLE, 2), AT_EPOCH_END):
        path = crashed(make(**options(f"run{batch}")), tmp_path, batch, one_cycle, every_steps)
        learn = resumed(path, **options(f"run{batch}"))
        assert_equal_views(statistics(learn), wanted)
        directory = learn.callbacks[ActivationStats].recording.path
        if directory is not None:
            assert directory.name == f"run{batch}-2"  # the run of the crashed process is still there
            assert_equal_views(read_run(directory), wanted)


def test_statistics_of_several_fits_go_on(tmp_path: Path) -> None:
    def options() -> dict[str, Any]:
        return {"callbacks": [ActivationStats(budget=None, out=":memory:")]}

    whole = make(**options())
    one_cycle(whole)
    whole.save_checkpoint(tmp_path / "between.ckpt")
    one_cycle(whole)
    learn = resumed(tmp_path / "between.ckpt", **options())
    assert_equal_views(statistics(learn), statistics(whole))


def assert_equal_views(view: RunView, wanted: RunView) -> None:
    assert view.layers == wanted.layers
    assert view.events == wanted.events
    assert view.num_recorded.tolist() == wanted.num_recorded.tolist()
    np.testing.assert_array_equal(view.rows, wanted.rows)
    for layer in range(len(wanted.layers)):
        np.testing.assert_array_equal(view.histogram(layer), wanted.histogram(layer))
        np.testing.assert_array_equal(view.fired(layer), wanted.fired(layer))
    np.testing.assert_array_equal(view.parameters.rows, wanted.parameters.rows)
    assert view.scalars.keys() == wanted.scalars.keys()
    for key, series in wanted.scalars.items():
        found, steps, values = view.scalars[key], series.steps, series.values
        if key[1] in (
            "grad_cosine",
            "update_cosine",
        ):  # with the step before, which the resumed process has not seen
            is_there = np.isin(steps, found.steps)
            assert (~is_there).sum() <= 1
            steps, values = steps[is_there], values[is_there]
        np.testing.assert_array_equal(found.values, values)
        np.testing.assert_array_equal(found.steps, steps)
