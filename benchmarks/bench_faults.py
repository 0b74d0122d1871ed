"""The fault benchmark: run its trainings (`run`), and score what diagnosers say of them (`score`).

    python benchmarks/bench_faults.py run --half tuning --seeds 3       # goes on where it was stopped
    python benchmarks/bench_faults.py run --shard 1/4                   # the first of four machines
    python benchmarks/bench_faults.py score --half tuning
    python benchmarks/bench_faults.py show F01-mlp --seed 0             # one training and its diagnosis

No idea of rules. What is measured is said in benchmarks/faults/README.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from pathlib import Path

import torch

from faults.cases import CASES
from faults.controls import CONTROLS
from faults.programs import PROGRAMS
from faults.runner import RECORDINGS, Job, run_job

RUNS = Path("runs-faults")


def jobs(arguments: argparse.Namespace) -> list[Job]:
    """Return the chosen jobs, seed by seed, so that a benchmark that is stopped has done some of everything."""
    chosen = [
        what
        for what in (*CONTROLS.values(), *CASES.values())
        if arguments.half in ("all", PROGRAMS[what.program].half)
        and (not arguments.only or any(what.id.startswith(start) for start in arguments.only.split(",")))
    ]
    found = [
        Job(seed, what.id, arguments.recording)
        for what in chosen
        for seed in range(arguments.healthy_seeds if what.id in CONTROLS else arguments.seeds)
    ]
    number, total = (int(part) for part in arguments.shard.split("/"))
    return sorted(found)[number - 1 :: total]


def _work(job: tuple[Job, Path]) -> str:
    torch.set_num_threads(1)
    result = run_job(*job)
    return f"{job[0].id} {job[0].seed}: metric {result['metric']:.3f}, {result['seconds']:.1f} s"


def run(arguments: argparse.Namespace) -> None:
    """Do what is not done yet."""
    waiting = [job for job in jobs(arguments) if not (job.folder(arguments.out) / "result.json").exists()]
    print(f"{len(waiting)} trainings to do", file=sys.stderr)
    context = multiprocessing.get_context("spawn")
    with context.Pool(arguments.workers) as pool:
        for number, line in enumerate(pool.imap_unordered(_work, [(job, arguments.out) for job in waiting]), 1):
            print(f"{number}/{len(waiting)} {line}", file=sys.stderr)


def score(arguments: argparse.Namespace) -> None:
    """Print the tables."""
    from faults.score import report

    print(report(jobs(arguments), arguments.out, workers=arguments.workers))


def show(arguments: argparse.Namespace) -> None:
    """Print one training's outcome and its diagnosis."""
    from rich.console import Console

    from actograph.rules.diagnose import diagnose
    from actograph.runlog.reader import read_run
    from actograph.show.terminal import findings

    for seed in range(arguments.seeds):
        job = Job(seed, arguments.id, arguments.recording)
        torch.set_num_threads(1)
        result = run_job(job, arguments.out)
        curve = " ".join(f"{metric:.2f}" for _, _, metric in result["curve"])
        print(f"{job.id} seed {seed}: test metric {result['test_metric']:.3f}; validation {curve} {result['error']}")
        Console().print(findings(diagnose(read_run(job.folder(arguments.out) / "run"))))


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, action in (("run", run), ("score", score), ("show", show)):
        command = commands.add_parser(name)
        command.set_defaults(action=action)
        command.add_argument("--out", type=Path, default=RUNS, help="where the recordings are kept")
        command.add_argument("--recording", choices=sorted(RECORDINGS), default="full")
        command.add_argument("--seeds", type=int, default=1 if name == "show" else 10, help="of each case")
        command.add_argument("--workers", type=int, default=2)
        if name == "show":
            command.add_argument("id")
            continue
        command.add_argument("--healthy-seeds", type=int, default=20, help="of each control")
        command.add_argument("--half", choices=("tuning", "test", "all"), default="all")
        command.add_argument("--only", default="", help="beginnings of ids, with commas")
        command.add_argument("--shard", default="1/1", help="which part of how many, as 1/4")
    arguments = parser.parse_args()
    arguments.action(arguments)


if __name__ == "__main__":
    main()
