"""The trainers that are compared: loops by hand, actograph's Learner, and the libraries people use.

Each trains the same `Job` an epoch at a time and tells when the epoch itself began and ended. No idea of rounds or tables.
"""
# ruff: noqa: PLC0415  peers are optional and slow to import

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from _environment import why_absent
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from actograph.callbacks.activation_stats import ActivationStats
from actograph.callbacks.progress import Progress
from actograph.data.loaders import TensorLoader
from actograph.learner import DEFAULT_CALLBACKS, Learner
from actograph.train.events import Callback
from actograph.train.loop import Loop
from actograph.train.metrics import Accuracy
from actograph.train.state import Phase

Batch = tuple[Tensor, Tensor]


class Feed(Sized, Protocol):
    """What every trainer here takes as its data: batches, and how many there are."""

    def __iter__(self) -> Iterator[Batch]:
        """Begin an epoch."""


@dataclass(frozen=True)
class Job:
    """What is trained. ``make_optimizer`` takes the parameters and ``lr``; ``criterion`` makes a module of the loss."""

    title: str
    build: Callable[[], nn.Module]
    loss_func: Callable[[Tensor, Tensor], Tensor]
    criterion: type[nn.Module]
    make_optimizer: type[torch.optim.Optimizer]
    lr: float
    x: Tensor  # (samples, ...), a whole number of batches
    y: Tensor  # (samples,)
    batch_size: int

    @property
    def num_steps(self) -> int:
        """Batches in an epoch."""
        return len(self.x) // self.batch_size

    def first(self, num_steps: int) -> list[Batch]:
        """Return the first batches, in order."""
        size = num_steps * self.batch_size
        return list(
            zip(self.x[:size].split(self.batch_size), self.y[:size].split(self.batch_size), strict=True)
        )


class PickedBatches:
    """Batches of samples picked one by one in a new random order: what hand-written loops mostly do."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __len__(self) -> int:
        return self.job.num_steps

    def __iter__(self) -> Iterator[Batch]:
        x, y = self.job.x, self.job.y
        for picked in torch.randperm(len(x)).split(self.job.batch_size):
            yield x[picked], y[picked]


class SlicedBatches(PickedBatches):
    """Slices of one shuffled copy."""

    def __iter__(self) -> Iterator[Batch]:
        order = torch.randperm(len(self.job.x))
        yield from zip(
            self.job.x[order].split(self.job.batch_size),
            self.job.y[order].split(self.job.batch_size),
            strict=True,
        )


class FixedBatches(PickedBatches):
    """Batches that are there already, in order: no loader is timed. Lightning takes a plain list for several loaders."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.batches = job.first(job.num_steps)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


def data_loader(job: Job) -> DataLoader[Any]:
    """Return torch's own loader, in this process."""
    return DataLoader(TensorDataset(job.x, job.y), batch_size=job.batch_size, shuffle=True)


def tensor_loader(job: Job) -> TensorLoader:
    return TensorLoader(job.x, job.y, job.batch_size, shuffle=True)


class Trainer:
    """Something that trains a job. Base: a loop written by hand."""

    key: ClassVar[str] = "raw"
    label: ClassVar[str] = "loop by hand"
    package: ClassVar[str] = ""  # that must be importable

    def __init__(self, job: Job, feed: Feed, folder: Path) -> None:
        torch.manual_seed(0)
        self.job = job
        self.feed = feed
        self.folder = folder
        self.model = job.build()
        self.epoch_s = 0.0  # of the last epoch, without what surrounds it
        self._began_s = 0.0

    @classmethod
    def why_absent(cls) -> str | None:
        """Return why it cannot be measured here, None where it can."""
        return why_absent(cls.package)

    def begin(self) -> None:
        """Put together what lasts over all epochs."""
        self.optimizer = self.job.make_optimizer(self.model.parameters(), lr=self.job.lr)

    def run(self) -> None:
        """Train for one epoch; note when it begins and ends."""
        model, optimizer, loss_func = self.model, self.optimizer, self.job.loss_func
        self.epoch_begins()
        model.train()
        for x, y in self.feed:
            loss_func(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
        self.epoch_ends()

    def epoch_begins(self) -> None:
        self._began_s = time.perf_counter()

    def epoch_ends(self) -> None:
        self.epoch_s = time.perf_counter() - self._began_s


class EpochTimer(Callback):
    """Tells a trainer when the training part of an epoch begins and ends."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def before_phase(self, loop: Loop) -> None:
        if loop.progress.phase is Phase.TRAIN:
            self.trainer.epoch_begins()

    def after_phase(self, loop: Loop) -> None:
        if loop.progress.phase is Phase.TRAIN:
            self.trainer.epoch_ends()


class Bare(Trainer):
    """The Learner without callbacks, but for the timer's two calls an epoch."""

    key = "bare"
    label = "**actograph**, bare (`defaults=()`)"

    def begin(self) -> None:
        self.learner = self.make_learner(self.callbacks(), defaults=())

    def callbacks(self) -> list[Callback]:
        return [EpochTimer(self)]

    def make_learner(self, callbacks: list[Callback], **options: Any) -> Learner:
        job = self.job
        valid = job.first(1) if options.get("metrics") else None
        return Learner(
            self.model,
            (self.feed, valid),
            job.loss_func,
            job.make_optimizer,
            lr=job.lr,
            callbacks=callbacks,
            **options,
        )

    def run(self) -> None:
        self.learner.fit(1)


class Defaults(Bare):
    """With Recorder, Progress that prints into memory, and a metric of one valid batch."""

    key = "defaults"
    label = "**actograph**, defaults and a metric"

    def begin(self) -> None:
        self.learner = self.make_learner(self.callbacks(), metrics=[Accuracy()], defaults=DEFAULT_CALLBACKS)

    def callbacks(self) -> list[Callback]:
        return [*super().callbacks(), Progress(Console(file=io.StringIO()))]


class WithStats(Defaults):
    """With every layer recorded as well, the run written to a temporary folder."""

    key = "stats"
    label = "**actograph**, defaults, a metric, `ActivationStats()`"
    budget: ClassVar[float | None] = 0.03  # ActivationStats' own default

    def callbacks(self) -> list[Callback]:
        return [*super().callbacks(), ActivationStats(budget=self.budget, out=self.folder / "run")]


class WithEveryStep(WithStats):
    key = "stats-every"
    label = "**actograph**, defaults, a metric, `ActivationStats(budget=None)`"
    budget = None


class Fastai(Trainer):
    """fastai's Learner with its default callbacks, with torch's optimizer wrapped as fastai wraps it."""

    key = "fastai"
    label = "fastai, torch's optimizer"
    package = "fastai.learner"

    def begin(self) -> None:
        from fastai.callback.core import Callback as FastaiCallback
        from fastai.callback.progress import ProgressCallback  # noqa: F401 - a default callback once imported
        from fastai.data.core import DataLoaders
        from fastai.learner import Learner as FastaiLearner

        trainer = self

        class Timer(FastaiCallback):
            def before_train(self) -> None:
                trainer.epoch_begins()

            def after_train(self) -> None:
                trainer.epoch_ends()

        loaders = DataLoaders(self.feed, self.job.first(1))
        self.learner = FastaiLearner(
            loaders,
            self.model,
            self.job.loss_func,
            self.optimizer_maker(),
            lr=self.job.lr,
            cbs=Timer(),
            path=self.folder,
        )

    def optimizer_maker(self) -> Callable[..., Any]:
        from fastai.optimizer import OptimWrapper

        return partial(OptimWrapper, opt=self.job.make_optimizer)

    def run(self) -> None:
        with self.learner.no_bar(), self.learner.no_logging():
            self.learner.fit(1)


class FastaiOwn(Fastai):
    key = "fastai-own"
    label = "fastai, its own optimizer"

    def optimizer_maker(self) -> Callable[..., Any]:
        from fastai.optimizer import SGD

        return SGD


class Lightning(Trainer):
    """Lightning's Trainer without logger, checkpoints, progress bar and summary; a new one for each epoch."""

    key = "lightning"
    label = "Lightning"
    package = "lightning.pytorch"
    options: ClassVar[dict[str, Any]] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }

    def begin(self) -> None:
        from lightning.pytorch import LightningModule

        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
        trainer, job, model = self, self.job, self.model

        class Module(LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
                x, y = batch
                return job.loss_func(self.model(x), y)

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return job.make_optimizer(self.model.parameters(), lr=job.lr)

            def on_train_epoch_start(self) -> None:
                trainer.epoch_begins()

            def on_train_epoch_end(self) -> None:
                trainer.epoch_ends()

        self.module = Module()

    def run(self) -> None:
        from lightning.pytorch import Trainer as LightningTrainer

        trainer = LightningTrainer(
            max_epochs=1,
            accelerator="cpu",
            devices=1,
            default_root_dir=self.folder,
            **self.options,
        )
        trainer.fit(self.module, self.feed)


class LightningBare(Lightning):
    key = "lightning-bare"
    label = "Lightning, `barebones=True`"
    options: ClassVar[dict[str, Any]] = {"barebones": True}


class Skorch(Trainer):
    """skorch's NeuralNet with its default callbacks, without a validation split."""

    key = "skorch"
    label = "skorch"
    package = "skorch"

    def begin(self) -> None:
        from skorch import NeuralNet
        from skorch.callbacks import Callback as SkorchCallback

        trainer, feed = self, self.feed

        class Timer(SkorchCallback):
            def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
                trainer.epoch_begins()

            def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
                trainer.epoch_ends()

        self.net = NeuralNet(
            self.model,
            self.job.criterion,
            optimizer=self.job.make_optimizer,
            lr=self.job.lr,
            max_epochs=1,
            iterator_train=lambda dataset, batch_size: feed,
            train_split=None,
            callbacks=[Timer()],
            verbose=0,
            device="cpu",
        ).initialize()
        self.dataset = TensorDataset(
            self.job.x, self.job.y
        )  # unused but for its length: the iterator is ours

    def run(self) -> None:
        self.net.partial_fit(self.dataset)


class Ignite(Trainer):
    """ignite's supervised trainer, which reads the loss at every step, as by default."""

    key = "ignite"
    label = "ignite"
    package = "ignite.engine"

    def begin(self) -> None:
        from ignite.engine import Events, create_supervised_trainer

        super().begin()
        self.engine = create_supervised_trainer(self.model, self.optimizer, self.job.loss_func)
        self.engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_begins)
        self.engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_ends)

    def run(self) -> None:
        self.engine.run(self.feed, max_epochs=1)


PEERS: tuple[type[Trainer], ...] = (Fastai, FastaiOwn, Lightning, LightningBare, Skorch, Ignite)
OURS: tuple[type[Trainer], ...] = (Bare, Defaults, WithStats, WithEveryStep)
TRAINERS = {kind.key: kind for kind in (Trainer, *OURS, *PEERS)}
