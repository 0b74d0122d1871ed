"""`ActographCallback` for fastai: what every layer did at each step of its optimizers, phases, epochs and metrics.

No idea of how anything is recorded: `TrainerRun` has that. fastai's optimizers are not torch's: a `StandIn` shows them.
"""

from __future__ import annotations

from typing import Any, Unpack

from actograph.integrations.stand_in import StandIn
from actograph.integrations.trainer_run import VALID, TrainerRun, WatchOptions, missing
from actograph.recording.recording import TRAIN
from actograph.runlog.view import RunView

try:
    from fastai.basics import Callback, OptimWrapper
    from fastai.callback.schedule import LRFinder
except ImportError as error:
    raise missing("fastai", "fastai", error) from error

AFTER_RECORDER = 60  # fastai's Recorder has order 50 and knows the metrics


class ActographCallback(Callback):
    """Record each fit: ``Learner(..., cbs=ActographCallback())``; the options are those of `actograph.watch`."""

    order = AFTER_RECORDER

    def __init__(self, **options: Unpack[WatchOptions]) -> None:
        super().__init__()
        self._run = TrainerRun(options)

    @property
    def view(self) -> RunView:
        """The run of the latest fit as it is now; a UsageError before the first one."""
        return self._run.view

    def before_fit(self) -> None:
        """Leave out the rate finder, which puts the model back; fastai also says "fit" where it only predicts."""
        if self._is_search:
            self._run.pause()

    def before_train(self) -> None:
        """Begin the run, and tell training from validation."""
        if not (self._run.is_fitting or self._is_search):
            self._run.begin(self.learn.model, _optimizer_of(self.learn.opt))
        self._run.phase(TRAIN, epoch=self.learn.epoch)

    def before_validate(self) -> None:
        """Tell validation from training."""
        self._run.phase(VALID, epoch=self.learn.epoch)

    def after_epoch(self) -> None:
        """Note what the epoch was worth."""
        recorder = self.learn.recorder  # among fastai's default callbacks
        values = dict(
            zip(recorder.metric_names[1:], recorder.values[-1], strict=False)
        )  # no time among the values
        train = {name for name in values if name.startswith("train_")}
        self._run.note({name.removeprefix("valid_"): values[name] for name in values if name not in train})

    def after_fit(self) -> None:
        """End the run."""
        self._run.end()

    @property
    def _is_search(self) -> bool:
        return any(isinstance(callback, LRFinder) for callback in self.learn.cbs)


def _optimizer_of(opt: Any) -> Any:
    if isinstance(opt, OptimWrapper):
        return opt.opt  # one of torch's

    def settings() -> list[dict[str, float]]:
        return [{"lr": one["lr"], "momentum": one.get("mom", 0.0)} for one in opt.hypers]

    return StandIn(opt, "step", opt.param_lists, settings)
