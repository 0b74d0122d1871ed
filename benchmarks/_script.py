"""A training script as people write them, run as a process of its own by `bench_scripts.py`; it knows nothing of actograph.

The loop is lean (batches in memory, plain SGD or AdamW): a loader would only make a recorder's share look smaller.
"""
# ruff: noqa: PLC0415  peers are optional and slow to import

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from _models import CASES, Training
from torch import Tensor, nn

PRINT_EVERY = 100  # steps
HISTOGRAMS_EVERY = 100  # steps: what TensorBoard's users settle for; each step would be tenfold the training

OnStep = Callable[[int, Tensor], None]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", choices=CASES, default="cnn64")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--recorder", choices=RECORDERS, default="none")
    arguments = parser.parse_args()
    training = Training(CASES[arguments.case])
    times = [time.perf_counter()]
    with RECORDERS[arguments.recorder](training) as on_step:
        for step, batch in enumerate(itertools.islice(itertools.cycle(training.batches), arguments.steps)):
            loss = training.loss(batch)
            loss.backward()
            training.optimizer.step()
            on_step(step, loss)
            training.optimizer.zero_grad()
            if step % PRINT_EVERY == 0:
                print(step, loss.item())
            times.append(time.perf_counter())
    half = (len(times) - 1) // 2
    print((times[-1] - times[half]) / (len(times) - 1 - half))  # seconds a step, warmed up


@contextmanager
def nothing(_: Training) -> Iterator[OnStep]:
    yield lambda step, loss: None


@contextmanager
def wandb_watch(training: Training) -> Iterator[OnStep]:
    import wandb

    run = wandb.init(mode="offline", project="bench", settings=wandb.Settings(silent=True, console="off"))
    run.watch(training.model, log="all")
    yield lambda step, loss: run.log({"loss": loss.item()})
    run.finish()


@contextmanager
def tensorboard(training: Training) -> Iterator[OnStep]:
    from torch.utils.tensorboard import SummaryWriter

    is_due = True

    def hook(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def measure(module: nn.Module, args: object, output: Tensor) -> None:
            if is_due:
                writer.add_histogram(name, output, at)

        return measure

    at = 0
    for name, module in training.model.named_modules():
        if not list(module.children()):
            module.register_forward_hook(hook(name))

    def on_step(step: int, loss: Tensor) -> None:
        nonlocal is_due, at
        writer.add_scalar("loss", loss.item(), step)
        at, is_due = step + 1, (step + 1) % HISTOGRAMS_EVERY == 0

    with SummaryWriter("tensorboard") as writer:
        yield on_step


@contextmanager
def torchmortem(training: Training) -> Iterator[OnStep]:
    from torchmortem import Autopsy

    with Autopsy(training.model, optimizer=training.optimizer) as autopsy:
        yield lambda step, loss: autopsy.step(loss=loss.item())
    autopsy.report(Path("report.html"))


RECORDERS = {"none": nothing, "wandb": wandb_watch, "tensorboard": tensorboard, "torchmortem": torchmortem}

if __name__ == "__main__":
    torch.manual_seed(0)
    main()
