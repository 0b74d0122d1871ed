"""``actograph train``: train a network on digits or a folder of images, recording every layer at every step.

No idea of loops or hooks: it puts a Learner together and prints what came of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from actograph.cli.network import Act, NormOption, Width, network_options
from actograph.errors import UsageError

if TYPE_CHECKING:
    import torch

    from actograph.callbacks.activation_stats import ActivationStats
    from actograph.data.loaders import Loaders
    from actograph.learner import Learner

# Of the settings tried for simple_cnn on the digits these three reached 97 % on all seeds (benchmarks/LOG.md)
MAX_LR = 0.007  # 1cycle's peak, for AdamW
BATCH_SIZE = 16  # samples
LABEL_SMOOTHING = 0.1  # share of the target spread over all classes (Szegedy et al. 2016)
AUTO = "auto"

Data = Annotated[
    str,
    typer.Argument(
        help="'mnist' (5,000 real digits), a folder with a folder of images per class, a folder of MNIST's IDX "
        "files, or a .npz file."
    ),
]
Model = Annotated[str, typer.Option(help="simple_cnn, simple_cnn_bn, resnet or mlp.")]
BatchSize = Annotated[int, typer.Option(help="Samples in a batch.")]
LabelSmoothing = Annotated[
    float, typer.Option(help="Share of the target spread over all classes; 0 for plain cross-entropy.")
]
Size = Annotated[int | None, typer.Option(help="Resize a folder's images to this side, in pixels.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Grad = Annotated[
    bool, typer.Option("--grad", help="Record the gradients of layers and parameters, and the updates, too.")
]
Seed = Annotated[int, typer.Option(help="Seed of the weights, the split and the order of the batches.")]


def train(
    data: Data,
    *,
    model: Model = "simple_cnn",
    width: Width = 1.0,
    act: Act = None,
    norm: NormOption = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training data.")] = 5,
    lr: Annotated[
        str,
        typer.Option(
            metavar="RATE|auto",
            help="Highest learning rate of the 1cycle schedule; auto looks for it (lr-find).",
        ),
    ] = str(MAX_LR),
    batch_size: BatchSize = BATCH_SIZE,
    label_smoothing: LabelSmoothing = LABEL_SMOOTHING,
    size: Size = None,
    device: Device = "auto",
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Run directory.  [default: runs/DATE-TIME-MODEL]")] = None,
    budget: Annotated[
        float | None, typer.Option(help="Share of the step time recording may take.  [default: no limit]")
    ] = None,
    grad: Grad = False,
) -> None:
    """Train with one cycle, record every layer at every step, say what is wrong, and write a report.

    Under torchrun each process trains on its part of every batch, and one report is written for all.
    """
    options = Options(
        data, model, width, network_options(act, norm), epochs, parse_rate(lr), batch_size, label_smoothing,
        size, device, seed, out, budget, grad,
    )  # fmt: skip
    from actograph.train.distributed import joined

    with joined() as rank:
        console = Console(highlight=False, quiet=not rank.is_main)
        job = prepare(options)
        console.print(Text(job.headline))
        try:
            job.learner.fit_one_cycle(epochs)
        except KeyboardInterrupt:
            console.print(Text("interrupted: what was recorded until now is kept"))
            conclude(job, console)
            raise
        conclude(job, console)


def parse_rate(text: str) -> float | None:
    """Return the rate, None for "auto"; raises UsageError for anything but a positive number.

    >>> parse_rate("0.01"), parse_rate("auto")
    (0.01, None)
    """
    if text == AUTO:
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0.0 < rate < float("inf"):
        raise UsageError(f"--lr is {text}; give a positive rate such as {MAX_LR}, or {AUTO}")
    return rate


@dataclass(frozen=True)
class Options:
    """What the user asked for, unchecked."""

    data: str
    model: str
    width: float
    network: dict[str, str | None]
    epochs: int
    lr: float | None  # None: look for it
    batch_size: int
    label_smoothing: float
    size: int | None
    device: str
    seed: int
    out: Path | None
    budget: float | None
    grad: bool


@dataclass(frozen=True)
class Job:
    """A training that is ready to begin."""

    learner: Learner
    stats: ActivationStats
    headline: str


def prepare(options: Options) -> Job:
    """Check everything that can be wrong before anything is written, and put the Learner together."""
    import torch
    from torch import nn

    from actograph.callbacks.activation_stats import ActivationStats
    from actograph.callbacks.gradient_stats import GradientStats
    from actograph.data.open_data import open_data
    from actograph.learner import Learner
    from actograph.models.registry import build_for_images
    from actograph.train.device import choose_device
    from actograph.train.distributed import data_parallel, shared_out, this_rank
    from actograph.train.metrics import Accuracy
    from actograph.train.step import Supervised

    rank = this_rank()
    if options.epochs < 1:
        raise UsageError(f"--epochs is {options.epochs}; give at least 1")
    if not 0.0 <= options.label_smoothing < 1.0:
        raise UsageError(f"--label-smoothing is {options.label_smoothing}; give a share from 0 to below 1")
    if options.lr is None and rank.world_size > 1:
        raise UsageError(
            f"--lr is {AUTO} for {rank.world_size} processes; look for it in one, with actograph lr-find, and give it"
        )
    device = choose_device(options.device)
    torch.manual_seed(options.seed)
    loaders = open_data(
        options.data, batch_size=options.batch_size, seed=options.seed, size=options.size, device=device
    )
    assert loaders.num_classes is not None
    assert loaders.input_size is not None
    network = build_for_images(
        options.model, loaders.num_classes, loaders.input_size, options.width, **options.network
    )
    loaders = shared_out(loaders, rank)
    loss_func = nn.CrossEntropyLoss(label_smoothing=options.label_smoothing)
    if options.lr is None:
        found = Learner(network, loaders, loss_func, device=device).lr_find()
        if found.refusal is not None:
            raise UsageError(f"--lr auto found none: {found.refusal}; or give --lr, such as {MAX_LR}")
        options = replace(options, lr=found.valley)
    assert options.lr is not None
    told = {"model": options.model, "data": options.data, "epochs": options.epochs, "lr_max": options.lr}
    told |= {
        "batch_size": options.batch_size,
        "label_smoothing": options.label_smoothing,
        "seed": options.seed,
    }
    told |= {"width": options.width, **options.network}
    stats = ActivationStats(
        budget=options.budget, out=options.out, name=options.model, config=told, grad=options.grad
    )
    learner = Learner(
        network,
        loaders,
        loss_func,
        lr=options.lr,
        metrics=[Accuracy()],
        callbacks=[stats, GradientStats()] if options.grad else [stats],
        step=data_parallel if rank.world_size > 1 else Supervised,
        device=device,
    )
    return Job(learner, stats, headline(options, loaders, network, device, rank.world_size))


def headline(
    options: Options, loaders: Loaders, network: torch.nn.Module, device: torch.device, world_size: int = 1
) -> str:
    """Return the line that says what is about to be trained."""
    assert loaders.input_size is not None
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    shape = " × ".join(map(str, loaders.input_size))
    smoothing = f", label smoothing {options.label_smoothing:g}" if options.label_smoothing else ""
    processes = f" in {world_size} processes" if world_size > 1 else ""
    return (
        f"{options.model}, {num_parameters:,} parameters, on {device}{processes}; "
        f"{options.data}: {loaders.num_classes} classes, "
        f"images {shape}; {options.epochs} epochs of 1cycle up to rate {options.lr:g}, "
        f"batches of {options.batch_size}{smoothing}"
    )


def conclude(job: Job, console: Console) -> None:
    """Print the findings in words and where the report is; of several processes rank 0 does, for all."""
    from actograph.inference.export import EXPORT
    from actograph.rules.diagnose import diagnose
    from actograph.runlog.reader import closed_run
    from actograph.show import terminal, words
    from actograph.show.report import write_report
    from actograph.show.run import REPORT

    view, directory = job.stats.view, job.stats.recording.path
    assert directory is not None
    if view.info.rank:
        return
    if view.info.world_size > 1:
        view = closed_run(directory)
    diagnosis = diagnose(view)
    console.print()
    console.print(terminal.findings(diagnosis))
    console.print(Text(f"{words.recording_cost(view.info.cost)} {words.ranks(view)}".strip()))
    report = write_report(view, diagnosis, directory / REPORT)
    model = job.learner.export(directory / EXPORT)
    console.print(
        Text(
            f"\nReport:  {report}\nNumbers: actograph show {directory}\n"
            f"Model:   {model}, for actograph predict {directory} IMAGE"
        ),
        soft_wrap=True,
    )
