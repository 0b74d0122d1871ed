"""What a training loop costs: actograph's Learner beside loops by hand and other libraries.

    python benchmarks/bench_train.py [--quick] [--tables null,calls] [--out benchmarks/results-train.md]

See benchmarks/README.md for what is measured and how to run it where peers are installed. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import cProfile
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _environment import PLAIN_MALLOC, machine, names_among, revision, say, version_of
from _jobs import cnn64, cnn512, linear, null
from _measure import Interval
from _rounds import Contender, Quartiles, Times, play
from _trainers import (
    OURS,
    PEERS,
    TRAINERS,
    Bare,
    Defaults,
    FastaiOwn,
    FixedBatches,
    Job,
    PickedBatches,
    SlicedBatches,
    Trainer,
    WithStats,
    data_loader,
    tensor_loader,
)

import actograph

HERE = Path(__file__).parent
VERSIONS = ("fastai", "lightning", "skorch", "pytorch-ignite")
SAME_STEPS = 20
CALL_STEPS = (128, 256)  # whole blocks of the Recorder; the difference leaves out what a fit does once
MEMORY_KEYS = ("raw", "bare", "defaults", "stats", "fastai", "lightning", "skorch", "ignite")

METHOD = """\
In one table everyone trains the same model from the same seed, on the same data, with plain SGD at rate 0.01 (but where
its row says otherwise), one epoch a round, side by side in one process; the order rotates from round to round and the
first round is not counted. *us/step*: median over the rounds of the time of an epoch's training part, by each library's
own epoch events, through its steps. *over the loop*: of the paired differences to the loop by hand, median [quartiles].
*ratio*: likewise of the paired ratios. *around the epoch*: what a fit of one epoch takes besides, once. Progress and logging
are off where a library allows. A difference whose quartiles lie on both sides of 0 was not resolved."""


@dataclass(frozen=True)
class Effort:
    """How much to measure."""

    name: str
    rounds: dict[str, int]  # by job
    steps: dict[str, int]  # an epoch has, by job
    epoch_rounds: int
    memory_steps: tuple[int, int]


FULL = Effort(
    "full",
    rounds={"linear": 20, "cnn64": 15, "cnn512": 20, "null": 20},
    steps={"linear": 600, "cnn64": 200, "cnn512": 20, "null": 2000},
    epoch_rounds=60,
    memory_steps=(2000, 20_000),
)
QUICK = Effort(
    "quick",
    rounds={"linear": 2, "cnn64": 2, "cnn512": 2, "null": 2},
    steps={"linear": 60, "cnn64": 10, "cnn512": 4, "null": 100},
    epoch_rounds=3,
    memory_steps=(100, 1000),
)
JOBS: dict[str, Callable[[int], Job]] = {"linear": linear, "cnn64": cnn64, "cnn512": cnn512, "null": null}


@dataclass(frozen=True)
class Table:
    """Something measured at one go: ``measure`` gives plain data that is kept, ``render`` makes Markdown of it."""

    key: str
    measure: Callable[[Effort], Any]
    render: Callable[[Any], str]


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    effort = QUICK if options.quick else FULL
    store = Store(options.data or options.out.with_suffix(".jsonl"), effort)
    for key in options.tables:
        if store.has(key) and not options.again:
            say(f"{key}: measured already (--again measures anew)")
            continue
        say(f"{key}: load {os.getloadavg()[0]:.1f}")
        begun = {"at": now(), "load": os.getloadavg()[0]}
        data = TABLES[key].measure(effort)
        store.add(key, {"begun": begun, "ended": {"at": now(), "load": os.getloadavg()[0]}, "data": data})
        options.out.write_text(store.text())  # what is known so far, should somebody stop this
    options.out.write_text(store.text())
    print(store.text())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="does everything run? Few rounds: no figures to quote"
    )
    parser.add_argument("--tables", type=names_among(TABLES), default=list(TABLES), help=", ".join(TABLES))
    parser.add_argument(
        "--again", action="store_true", help="measure tables anew that the data file has already"
    )
    parser.add_argument("--threads", type=int, help="torch's threads; its own default when left out")
    parser.add_argument("--out", type=Path, required=True, help="write the Markdown there")
    parser.add_argument(
        "--data", type=Path, help="keep the measurements there, to go on from; --out's name with .jsonl"
    )
    return parser.parse_args()


def now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


class Store:
    """Measurements in a file of JSON lines, the latest of each table: where a run that was stopped goes on.

    Those of another machine, of other versions, other sources or another effort are left alone.
    """

    def __init__(self, path: Path, effort: Effort) -> None:
        self.path = path
        self.context = {
            "effort": effort.name,
            "versions": versions(),
            "machine": machine(),
            "source": source_hash(),
        }
        lines = path.read_text().splitlines() if path.exists() else []
        found = [json.loads(line) for line in lines]
        self.found = {one["table"]: one for one in found if one.get("context") == self.context}

    def has(self, key: str) -> bool:
        return key in self.found

    def add(self, key: str, measured: dict[str, Any]) -> None:
        record = {"table": key, "context": self.context, "revision": revision(), **measured}
        self.found[key] = record
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def text(self) -> str:
        """Return everything measured so far as Markdown."""
        parts = [heading(self.context)]
        for key, table in TABLES.items():
            if key in self.found:
                record = self.found[key]
                begun, ended = record["begun"], record["ended"]
                parts += [
                    table.render(record["data"]),
                    f"actograph at {record['revision']}, {begun['at']} to {ended['at'][11:]}, load {begun['load']:.1f} at "
                    f"the start and {ended['load']:.1f} at the end.",
                ]
        return "\n\n".join(parts) + "\n"


def source_hash() -> str:
    """Return a hash of actograph's sources: what was measured of others is not this one's figure."""
    assert actograph.__file__ is not None
    folder = Path(actograph.__file__).parent
    sources = sorted([*folder.rglob("*.py"), *folder.rglob("*.c")])
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


def versions() -> str:
    packages = [f"{name} {version_of(name) or 'not installed'}" for name in VERSIONS]
    return (
        f"Python {platform.python_version()}, torch {torch.__version__} (threads: {torch.get_num_threads()}), "
        f"numpy {np.__version__}, {', '.join(packages)}"
    )


def heading(context: dict[str, str]) -> str:
    rough = "**A quick run: it shows that everything works, its figures are too rough to quote.**\n\n"
    is_quick = context["effort"] == QUICK.name
    return (
        f"# What a training loop costs\n\n{rough if is_quick else ''}{context['machine']}.\n{context['versions']}.\n\n"
        f"{METHOD}"
    )


# Time per step


def memory_contenders() -> list[Contender]:
    """Return who takes part where the data is in memory; the first is the base."""
    peers = [Contender(kind, PickedBatches) for kind in present(PEERS)]
    return [
        Contender(Trainer, PickedBatches, "loop by hand, samples picked one by one"),
        Contender(Trainer, SlicedBatches, "loop by hand, slices of one shuffled copy"),
        *[Contender(kind, PickedBatches) for kind in OURS],
        Contender(Bare, tensor_loader, "**actograph**, bare, with its `TensorLoader`"),
        *peers,
    ]


def loader_contenders() -> list[Contender]:
    return [Contender(kind, data_loader) for kind in (Trainer, *OURS, *present(PEERS))]


def null_contenders() -> list[Contender]:
    peers = [kind for kind in present(PEERS) if kind is not FastaiOwn]  # whose optimizer would do something
    return [Contender(kind, FixedBatches) for kind in (Trainer, Bare, Defaults, *peers)]


def present(kinds: Iterable[type[Trainer]]) -> list[type[Trainer]]:
    return [kind for kind in kinds if kind.why_absent() is None]


def step_table(key: str, job_key: str, feed: str, contenders: Callable[[], list[Contender]]) -> Table:
    """Return the table of the time per step of one job, fed in one way."""

    def measure(effort: Effort) -> Any:
        job = JOBS[job_key](effort.steps[job_key])
        times = play(contenders(), job, effort.rounds[job_key])
        return {
            "title": f"{job.title}; {feed}",
            "steps": job.num_steps,
            "times": [asdict(one) for one in times],
        }

    return Table(key, measure, render_steps)


def render_steps(data: dict[str, Any]) -> str:
    times = [Times(**one) for one in data["times"]]
    steps = data["steps"]
    lines = [
        f"## {data['title']}",
        "",
        f"{steps} steps an epoch, {len(times[0].epoch_s)} rounds.",
        "",
        "| trainer | us/step | over the loop, us/step | ratio | around the epoch, ms |",
        "|---|---:|---:|---:|---:|",
        *[step_row(one, times[0], steps) for one in times],
        *absent_rows(4),
    ]
    return "\n".join(lines)


def step_row(times: Times, base: Times, steps: int) -> str:
    if times.failure:
        return f"| {times.label} | failed: {times.failure} | | | |"
    own, other = np.array(times.epoch_s), np.array(base.epoch_s)
    around_s = float(np.median(np.array(times.fit_s) - own))
    if times is base:
        return f"| {times.label} | {micro(np.median(own) / steps)} | | | {around_s * 1e3:.0f} |"
    over, ratio = Quartiles.of((own - other) / steps), Quartiles.of(own / other)
    cells = [
        times.label,
        micro(np.median(own) / steps),
        f"{over.median * 1e6:+,.0f} [{over.low * 1e6:+,.0f}, {over.high * 1e6:+,.0f}]",
        f"{ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]",
        f"{around_s * 1e3:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def micro(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f}"


def absent_rows(num_empty: int) -> list[str]:
    reasons = {kind.label: kind.why_absent() for kind in PEERS}
    return [f"| {label} | {reason} |{' |' * (num_empty - 1)}" for label, reason in reasons.items() if reason]


# An epoch over tensors in memory


def epoch_table(job_key: str) -> Table:
    """Return the table of whole fits of one epoch over tensors in memory, shuffling and set-up included."""
    contenders = [
        Contender(Trainer, SlicedBatches, "loop by hand, slices of one shuffled copy"),
        Contender(Trainer, PickedBatches, "loop by hand, samples picked one by one"),
        Contender(Bare, tensor_loader, "**actograph**, bare, with its `TensorLoader`"),
    ]

    def measure(effort: Effort) -> Any:
        job = JOBS[job_key](effort.steps[job_key])
        times = play(contenders, job, effort.epoch_rounds)
        return {"title": job.title, "steps": job.num_steps, "times": [asdict(one) for one in times]}

    return Table(f"epoch-{job_key}", measure, render_epoch)


def render_epoch(data: dict[str, Any]) -> str:
    times = [Times(**one) for one in data["times"]]
    lines = [
        f"## An epoch over tensors in memory: {data['title']}",
        "",
        f"A whole fit of one epoch of {data['steps']} steps, shuffling and set-up included; {len(times[0].fit_s)} rounds.",
        "",
        "| trainer | ms/epoch | ratio to the first row | 95 % interval of the median |",
        "|---|---:|---:|---:|",
    ]
    for one in times:
        if one.failure:
            lines.append(f"| {one.label} | failed: {one.failure} | | |")
            continue
        own = np.array(one.fit_s)
        ratio = Interval.of(list(own / np.array(times[0].fit_s)))
        paired = (
            ["", ""] if one is times[0] else [f"{ratio.median:.3f}", f"[{ratio.low:.3f}, {ratio.high:.3f}]"]
        )
        lines.append(f"| {' | '.join([one.label, f'{np.median(own) * 1e3:,.1f}', *paired])} |")
    return "\n".join(lines)


# Do all of them do the same?


def measure_same(effort: Effort) -> Any:
    """Return by how much each trainer's weights differ from the loop's after some steps on the same batches."""
    job = cnn64(SAME_STEPS)
    expected = trained_weights(Trainer, job)
    found = {}
    for kind in (*OURS, *present(PEERS)):
        try:
            found[kind.label] = float((trained_weights(kind, job) - expected).abs().max())
        except Exception as error:  # a foreign library's; the others' figures are wanted all the same
            found[kind.label] = f"failed: {type(error).__name__}"
    return found


def trained_weights(kind: type[Trainer], job: Job) -> torch.Tensor:
    """Train one epoch and return all weights (parameters,)."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        trainer = kind(job, FixedBatches(job), Path(folder))
        trainer.begin()
        trainer.run()
    return torch.nn.utils.parameters_to_vector(trainer.model.parameters()).detach()


def render_same(data: dict[str, float | str]) -> str:
    lines = [
        "## Do all of them train the same?",
        "",
        f"Largest difference of a weight to the loop by hand after {SAME_STEPS} steps of simple_cnn on the same batches.",
        "",
        "| trainer | difference |",
        "|---|---:|",
        *[
            f"| {label} | {found if isinstance(found, str) else f'{found:g}'} |"
            for label, found in data.items()
        ],
    ]
    return "\n".join(lines)


# Python function calls


def measure_calls(effort: Effort) -> Any:
    """Count the calls of a step: a number that no other process disturbs."""
    kinds = (Trainer, *OURS, *present(PEERS))
    return {
        kind.label: calls_per_step(kind) for kind in kinds if kind is not WithStats
    }  # whose steps the clock thins


def calls_per_step(kind: type[Trainer]) -> float | str:
    try:
        few, many = (calls_of_epoch(kind, linear(steps)) for steps in CALL_STEPS)
    except Exception as error:  # a foreign library's; the others' figures are wanted all the same
        return f"failed: {type(error).__name__}"
    return (many - few) / (CALL_STEPS[1] - CALL_STEPS[0])


def calls_of_epoch(kind: type[Trainer], job: Job) -> int:
    """Return the calls, of Python's functions and of C's, in one fit of one epoch after a first one."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        trainer = kind(job, PickedBatches(job), Path(folder))
        trainer.begin()
        trainer.run()
        profile = cProfile.Profile()
        profile.runcall(trainer.run)
    return sum(entry.callcount for entry in profile.getstats())


def render_calls(data: dict[str, float | str]) -> str:
    lines = [
        "## Function calls per step",
        "",
        f"cProfile, Python's and C's functions, linear 784-10 at batch 64, samples picked one by one: a fit of "
        f"{CALL_STEPS[1]} steps less one of {CALL_STEPS[0]}, by the difference of steps.",
        "",
        "| trainer | calls |",
        "|---|---:|",
        *[
            f"| {label} | {calls if isinstance(calls, str) else f'{calls:,.1f}'} |"
            for label, calls in data.items()
        ],
    ]
    return "\n".join(lines)


# Memory


def measure_memory(effort: Effort) -> Any:
    """Let each trainer train for long in a process of its own; one after the other, they are short."""
    first, last = effort.memory_steps
    found: dict[str, Any] = {}
    for kind in present(TRAINERS[key] for key in MEMORY_KEYS):
        command = [sys.executable, "-W", "ignore", str(HERE / "_growth.py"), kind.key, str(first), str(last)]
        run = subprocess.run(command, stdout=subprocess.PIPE, env=os.environ | PLAIN_MALLOC, check=False)
        found[kind.label] = json.loads(run.stdout.splitlines()[-1]) if run.returncode == 0 else None
        say(f"  {kind.key}: {found[kind.label]}")
    return {"steps": [first, last], "found": found}


def render_memory(data: dict[str, Any]) -> str:
    first, last = data["steps"]
    lines = [
        f"## Memory, linear 784-10 at batch 64, steps {first:,} to {last:,}",
        "",
        "Bytes a step of the resident set, one process each, one thread, after a garbage collection: the difference of the",
        "ends, and the slope through 80 samples. One epoch. The C library gives freed memory back at once (a fixed",
        "`MALLOC_MMAP_THRESHOLD_`), else fragmentation counts.",
        "",
        "| trainer | difference | slope | resident at the end, MB |",
        "|---|---:|---:|---:|",
    ]
    for label, one in data["found"].items():
        cells = (
            [f"{one['growth']:,.0f}", f"{one['slope']:,.0f}", f"{one['resident'] / 1e6:,.0f}"]
            if one
            else None
        )
        lines.append(f"| {label} | {' | '.join(cells or ['failed', '', ''])} |")
    return "\n".join(lines)


IN_MEMORY, FROM_LOADER = "data in memory", "a `DataLoader` without workers"
TABLES = {
    table.key: table
    for table in (
        Table("same", measure_same, render_same),
        Table("calls", measure_calls, render_calls),
        step_table("null", "null", "batches in a list", null_contenders),
        *[
            step_table(f"{job}-memory", job, IN_MEMORY, memory_contenders)
            for job in ("linear", "cnn64", "cnn512")
        ],
        *[
            step_table(f"{job}-loader", job, FROM_LOADER, loader_contenders)
            for job in ("linear", "cnn64", "cnn512")
        ],
        *[epoch_table(job) for job in ("linear", "cnn64", "cnn512")],
        Table("memory", measure_memory, render_memory),
    )
}

if __name__ == "__main__":
    warnings.filterwarnings("ignore")  # of peers: FutureWarning, too few workers, shadowed attributes
    main()
