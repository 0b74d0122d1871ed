"""The recorders that are compared: actograph, what people write by hand, and the libraries they use.

A recorder registers its hooks in `begin`; what else it does in a step is in `on_loss` and `after_step`. No idea of timing.
"""
# ruff: noqa: PLC0415  peers are optional and slow to import

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from _environment import why_absent
from _hooks import HookSet, leaves, only_tensor
from _models import Batch, Training, cross_entropy
from torch import Tensor, nn

from actograph.recording.recording import Recording
from actograph.runlog.schema import RunInfo
from actograph.runlog.store import RunWriter

FASTAI_BINS, FASTAI_HIGHEST = 40, 10.0
NEAR_ZERO = 0.05
ALL_LEAVES = "all leaves"


class StepClock:
    """Seconds of training with the recorder on: it stands still while others train, and can be put forward."""

    def __init__(self) -> None:
        self._offset_s = -time.monotonic()
        self._stopped_s: float | None = None

    def now(self) -> float:
        return self._offset_s + (time.monotonic() if self._stopped_s is None else self._stopped_s)

    def advance(self, seconds: float) -> None:
        self._offset_s += seconds

    def stop(self) -> None:
        if self._stopped_s is None:
            self._stopped_s = time.monotonic()

    def go_on(self) -> None:
        if self._stopped_s is not None:
            self._offset_s -= time.monotonic() - self._stopped_s
            self._stopped_s = None


class Recorder:
    """Something that records a training. Base: nothing is recorded, in a plain loop."""

    key: ClassVar[str] = "none"
    label: ClassVar[str] = "nothing"
    note: ClassVar[str] = ""
    package: ClassVar[str] = ""  # that must be importable
    has_own_loop: ClassVar[bool] = False

    def __init__(self, training: Training, folder: Path) -> None:
        self.training = training
        self.folder = folder
        self.clock = StepClock()
        self.is_on = True
        self._hooks: HookSet | None = None

    @classmethod
    def why_absent(cls) -> str | None:
        """Return why it cannot be measured here, None where it can."""
        return why_absent(cls.package)

    def begin(self) -> None:
        """Register hooks, open files."""

    def on_loss(self, loss: Tensor) -> None:
        """Take the loss, between forward and backward."""

    def after_step(self, loss: Tensor) -> None:
        """Do what comes once a step."""

    def end(self) -> None:
        """Close files; check that something was recorded."""

    def hooks(self) -> HookSet:
        """Return the recorder's hooks, which are registered when this is first called."""
        if self._hooks is None:
            self._hooks = HookSet(self.training)
        return self._hooks

    def switch(self, *, is_on: bool) -> None:
        """Switch the recording on or off between two steps."""
        hooks = self.hooks()
        if is_on and not self.is_on:
            hooks.put_back()
            self.clock.go_on()
        elif self.is_on and not is_on:
            hooks.take_off()
            self.clock.stop()
        self.is_on = is_on

    def train(self, batches: Iterable[Batch]) -> None:
        """Train on the batches; recording is switched by whoever yields them."""
        for batch in batches:
            loss = self.training.loss(batch)
            if self.is_on:
                self.on_loss(loss)
            self.training.update(loss)
            if self.is_on:
                self.after_step(loss)

    def prepare_replay(self) -> None:
        """Get ready for the hooks to be called by hand."""
        self.switch(is_on=True)


class Actograph(Recorder):
    """As `watch(model, optimizer, out, budget=None)`, with a clock of ours: a flush a second of recorded training."""

    key = "actograph"
    label = "**actograph**, all leaves, full histogram, every step"
    note = "writes its run to a temporary directory, as by default; budget=None"

    def begin(self) -> None:
        writer = RunWriter(self.folder / "run", RunInfo("bench"), clock=self.clock.now)
        self.recording = Recording(writer, budget=None)
        self.recording.attach(self.training.model)
        self.recording.optimizer(self.training.optimizer)

    def on_loss(self, loss: Tensor) -> None:
        self.recording.loss(loss)

    def end(self) -> None:
        self.recording.close()
        view = self.recording.view()
        recorded = int(view.num_recorded.sum())
        if recorded != self.recording.num_steps or math.isnan(view.column("mean")[-1].sum()):
            raise RuntimeError(f"{recorded} of {self.recording.num_steps} steps were recorded")


class LeafHooks(Recorder):
    """A hook on every leaf that gets the output as a detached tensor."""

    def begin(self) -> None:
        self.stored: list[Any] = []
        for name, leaf in leaves(self.training.model).items():
            leaf.register_forward_hook(partial(self._hook, name))

    def _hook(self, name: str, module: nn.Module, args: object, output: object) -> None:
        self.measure(name, only_tensor(output))

    def measure(self, name: str, x: Tensor) -> None:
        """Measure one output."""


class HandWritten(LeafHooks):
    key = "hooks"
    label = "hand-written hooks: mean, std, near zero with `.item()`"
    note = ALL_LEAVES

    def measure(self, name: str, x: Tensor) -> None:
        near_zero = (x.abs() <= NEAR_ZERO).sum().item() / x.numel()
        self.stored.append((x.mean().item(), x.std().item(), near_zero))


class Histc(LeafHooks):
    key = "histc"
    label = "hand-written hooks: `torch.histc` only, 40 bins in [-10, 10]"
    note = ALL_LEAVES

    def measure(self, name: str, x: Tensor) -> None:
        self.stored.append(x.histc(FASTAI_BINS, -FASTAI_HIGHEST, FASTAI_HIGHEST))


class Fastai(Recorder):
    """The real callback in the real Learner: the off steps are those of the same Learner without it."""

    key = "fastai"
    label = "fastai `ActivationStats()`"
    note = "the real callback, switched inside a real Learner; layers with parameters only, as by default"
    package = "fastai.callback.hook"
    has_own_loop = True
    with_hist = False

    def begin(self) -> None:
        from fastai.callback.hook import ActivationStats
        from fastai.data.core import DataLoaders
        from fastai.learner import Learner
        from fastai.optimizer import OptimWrapper

        self.stats = ActivationStats(with_hist=self.with_hist)
        self.loader = _Loader()
        loaders = DataLoaders(self.loader, self.training.batches[:1])
        optimizer = partial(OptimWrapper, opt=_without_rate(self.training.case.make_optimizer))
        rate = self.training.optimizer.param_groups[0]["lr"]
        self.learner = Learner(
            loaders, self.training.model, cross_entropy, optimizer, lr=rate, cbs=self.stats, path=self.folder
        )

    def train(self, batches: Iterable[Batch]) -> None:
        self.loader.batches = batches
        self._hooks = None
        with self.learner.no_logging():
            self.learner.fit(1)

    def switch(self, *, is_on: bool) -> None:
        super().switch(is_on=is_on)
        self.stats.run = is_on

    def prepare_replay(self) -> None:
        self.stats.before_fit()  # registers the hooks, and forgets what was stored
        self.is_on, self._hooks = True, None
        self.stats.run = True
        self.training.model.train()
        self.learner.training = True

    def after_step(self, loss: Tensor) -> None:
        self.stats.after_batch()  # in a replay only: a fit calls it itself

    def end(self) -> None:
        self.stats.after_fit()


class FastaiHist(Fastai):
    key = "fastai-hist"
    label = "fastai `ActivationStats(with_hist=True)`"
    with_hist = True


class TensorBoard(LeafHooks):
    key = "tensorboard"
    label = "TensorBoard `add_histogram` per layer"
    note = f"{ALL_LEAVES}; event file in a temporary directory"
    package = "torch.utils.tensorboard"

    def begin(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        super().begin()
        self.step = 0
        self.writer = SummaryWriter(str(self.folder / "tensorboard"))

    def measure(self, name: str, x: Tensor) -> None:
        self.writer.add_histogram(name, x, self.step)

    def after_step(self, loss: Tensor) -> None:
        self.step += 1

    def end(self) -> None:
        self.writer.close()


class WandbWatch(Recorder):
    key = "wandb-watch"
    label = '`wandb.watch(log="all", log_freq=1)` and `run.log`'
    note = "offline; it records parameters and gradients, no activations: not like for like"
    package = "wandb"

    def begin(self) -> None:
        self.run = _offline_run(self.folder)
        self.run.watch(self.training.model, log="all", log_freq=1)

    def after_step(self, loss: Tensor) -> None:
        self.run.log({"loss": loss.item()})

    def end(self) -> None:
        self.run.unwatch(self.training.model)
        self.run.finish()


class WandbHistogram(LeafHooks):
    key = "wandb-hist"
    label = "`wandb.Histogram` of each output and `run.log`"
    note = f"offline; {ALL_LEAVES}"
    package = "wandb"

    def begin(self) -> None:
        super().begin()
        self.run = _offline_run(self.folder)
        self.step_values: dict[str, Any] = {}

    def measure(self, name: str, x: Tensor) -> None:
        import wandb

        self.step_values[name] = wandb.Histogram(x.numpy())

    def after_step(self, loss: Tensor) -> None:
        self.run.log({"loss": loss.item(), **self.step_values})

    def end(self) -> None:
        self.run.finish()


class Composer(Recorder):
    """The real hooks of the callback; instead of a Trainer they get a logger that forgets."""

    key = "composer"
    label = "Composer `ActivationMonitor`, every batch"
    note = "the callback's own hooks (inputs and outputs of all modules, by sample) in a plain loop, metrics thrown away"
    package = "composer.callbacks"

    def begin(self) -> None:
        from composer.callbacks import ActivationMonitor

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it advises against every batch
            monitor = ActivationMonitor("1ba", only_log_wandb=False)
        monitor.create_module_names(self.training.model)
        monitor.register_forward_hook(self.training.model, _ForgetfulLogger(), 0)


class _ForgetfulLogger:
    destinations = ()

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        pass


class _Loader:
    """What fastai takes for a data loader: an iterable with a length, which is only used to tell progress."""

    batches: Iterable[Batch] = ()

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)

    def __len__(self) -> int:
        return 1000


def _without_rate(make_optimizer: Any) -> Any:
    """Return an optimizer maker without its learning rate, which fastai gives itself."""
    others = {name: value for name, value in make_optimizer.keywords.items() if name != "lr"}
    return partial(make_optimizer.func, **others)


def stay_offline() -> None:
    """Tell wandb, before it is imported, not to look for a network, nor to report its errors."""
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}


def _offline_run(folder: Path) -> Any:
    """Begin a wandb run that never looks for a network and writes below ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        os.environ[name] = str(folder)
    import wandb

    settings = wandb.Settings(
        mode="offline",
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        x_disable_meta=True,
        x_disable_stats=True,
    )
    return wandb.init(project="bench", dir=str(folder), settings=settings)


PEERS: tuple[type[Recorder], ...] = (
    HandWritten,
    Histc,
    Fastai,
    FastaiHist,
    WandbHistogram,
    WandbWatch,
    TensorBoard,
    Composer,
)
RECORDERS = {kind.key: kind for kind in (Recorder, Actograph, *PEERS)}
