"""The command ``actograph study``: answer a question about training by experiment, on the user's network and data.

No idea of any question: it parses, runs the study, and prints and writes its chapter.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from actograph.cli.network import Act, NormOption, Width, network_options
from actograph.cli.train import Device, Size

if TYPE_CHECKING:
    from actograph.study.chapter import Chapter
    from actograph.study.setup import Setup

LIST, ALL = "list", "all"
STUDIES = Path("studies")


def study(
    name: Annotated[str, typer.Argument(help="A study's name, list, or all for the book of all chapters.")],
    data: Annotated[
        str, typer.Argument(help="'mnist', a folder of images or of MNIST's IDX files, or a .npz file.")
    ] = "mnist",
    *,
    model: Annotated[
        str,
        typer.Option(
            help="simple_cnn, simple_cnn_bn, resnet or mlp; or FILE.py:FUNCTION, a function of (num_classes, input_size) "
            "that returns a new network."
        ),
    ] = "simple_cnn",
    width: Width = 1.0,
    act: Act = None,
    norm: NormOption = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each variant.")] = 5,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training data.  [default: the study's own]")
    ] = None,
    batch_size: Annotated[
        int, typer.Option(help="Samples in a batch, where the study does not vary it.")
    ] = 64,
    lr: Annotated[
        float | None,
        typer.Option(help="Learning rate, or a schedule's highest.  [default: found by a range test]"),
    ] = None,
    label_smoothing: Annotated[
        float, typer.Option(help="Share of the target spread over all classes.")
    ] = 0.0,
    size: Size = None,
    device: Device = "auto",
    jobs: Annotated[
        int | None, typer.Option(help="Trials at a time.  [default: as many as there are cores]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the study.  [default: studies/NAME]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Answer a question about training by experiment: several seeds of each variant, intervals, and a verdict in words.

    One that was interrupted goes on where it stopped when it is started again. `actograph study list` tells the questions;
    `actograph study all` runs them all and makes one book of their chapters.
    """
    if name == LIST:
        return _print_list(as_json=as_json)
    from actograph.study.setup import Setup

    setup = Setup(
        data, model, seeds, epochs, batch_size, lr, width, network_options(act, norm), label_smoothing, size, device
    )  # fmt: skip
    folder = out or STUDIES / name
    try:
        chapters = _run(_names(name), setup, jobs, folder, is_book=name == ALL, as_json=as_json)
    except KeyboardInterrupt:
        typer.echo(
            f"interrupted: the trials that are done lie in {folder}; the same command goes on from there",
            err=True,
        )
        raise
    if as_json:
        told = [chapter.to_json() for chapter in chapters]
        typer.echo(json.dumps(told if name == ALL else told[0], indent=2, allow_nan=False))
    return None


def _names(name: str) -> list[str]:
    from actograph.study.catalog import STUDIES, study_class

    if name == ALL:
        return list(STUDIES)
    study_class(name)  # refuses an unknown one
    return [name]


def _run(
    names: Sequence[str], setup: Setup, jobs: int | None, out: Path, *, is_book: bool, as_json: bool
) -> list[Chapter]:
    from actograph.study.book import BOOK, terminal, write_book
    from actograph.study.catalog import make_study
    from actograph.study.executor import executor_for
    from actograph.study.progress import progress_of
    from actograph.study.study import found_rate

    console = Console(highlight=False, stderr=as_json)
    for name in names:
        make_study(name, setup).check()  # of all, before the first one runs
    if is_book and setup.lr is None:
        setup.check()
        setup = replace(setup, lr=found_rate(setup))  # once for all
    chapters: list[Chapter] = []
    with executor_for(jobs) as executor:
        for name in names:
            folder = out / name if is_book else out
            resolved = make_study(name, setup).resolved(folder)
            told = {**resolved.setup.to_json(), "seeds": setup.seeds}
            with progress_of(name, console) as on_outcome:
                chapter = resolved.run(out=folder, executor=executor, on_outcome=on_outcome)
            chapters.append(chapter)
            written = write_book([chapter], told, folder / BOOK)
            if not as_json:
                console.print(terminal(chapter))
                console.print(Text(f"\nChapter: {written}\n"), soft_wrap=True)
    if is_book:
        told |= {"epochs": "each study's own" if setup.epochs is None else setup.epochs}
        console.print(Text(f"Book: {write_book(chapters, told, out / BOOK)}"), soft_wrap=True)
    return chapters


def _print_list(*, as_json: bool) -> None:
    from actograph.study.catalog import STUDIES, study_class

    questions = {name: study_class(name).question for name in STUDIES}
    if as_json:
        typer.echo(
            json.dumps([{"name": name, "question": told} for name, told in questions.items()], indent=2)
        )
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, told in questions.items():
        table.add_row(name, Text(told))
    Console(highlight=False).print(table)
