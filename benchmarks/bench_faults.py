"""The fault benchmark: run its trainings (`run`), and score what diagnosers say of them (`score`).

    python benchmarks/bench_faults.py run --half tuning --seeds 3       # goes on where it was stopped
    python benchmarks/bench_faults.py run --shard 1/4                   # the first of four machines
    python benchmarks/bench_faults.py run --diagnoser torchmortem       # the same under a package that watches them
    python benchmarks/bench_faults.py score --half tuning
    python benchmarks/bench_faults.py score --diagnosers ours,smd,autotrainer,torchmortem,torch-audit
    python benchmarks/bench_faults.py repair --half tuning --seeds 3    # apply the first remedies and train again
    python benchmarks/bench_faults.py show F01-mlp --seeds 1            # one training and its diagnosis

No idea of rules. What is measured is said in benchmarks/faults/README.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from pathlib import Path

import torch

from actograph.runlog.reader import read_run
from faults.cases import CASES
from faults.controls import CONTROLS
from faults.packages import PACKAGES, kept_by, run_under, version_of
from faults.programs import PROGRAMS
from faults.repair import Repaired, repaired
from faults.rivals import DIAGNOSERS
from faults.runner import RECORDINGS, Job, run_job
from faults.score import ours, report

RUNS = Path("runs-faults")


def jobs(arguments: argparse.Namespace) -> list[Job]:
    """Return the chosen jobs, seed by seed, so that a benchmark that is stopped has done some of everything."""
    chosen = [
        what
        for what in (*CONTROLS.values(), *CASES.values())
        if arguments.half in ("all", PROGRAMS[what.program].half)
        and (
            not arguments.only
            or what.id.startswith("H00")  # the twins: without them nothing can be told of harm
            or any(what.id.startswith(start) for start in arguments.only.split(","))
        )
    ]
    found = [
        Job(seed, what.id, arguments.recording)
        for what in chosen
        for seed in range(arguments.healthy_seeds if what.id in CONTROLS else arguments.seeds)
    ]
    number, total = (int(part) for part in arguments.shard.split("/"))
    return sorted(found)[number - 1 :: total]


def _work(work: tuple[Job, Path, str]) -> str:
    torch.set_num_threads(1)
    job, out, diagnoser = work
    result = run_job(job, out) if diagnoser == "ours" else run_under(diagnoser, job, out)
    return f"{job.id} {job.seed}: metric {result['metric']:.3f}, {result['seconds']:.1f} s"


def _kept(job: Job, out: Path, diagnoser: str) -> Path:
    return job.folder(out) / "result.json" if diagnoser == "ours" else kept_by(diagnoser, job, out)


def run(arguments: argparse.Namespace) -> None:
    """Do what is not done yet."""
    name = arguments.diagnoser
    if name in PACKAGES and version_of(name) is None:
        sys.exit(f"{name} is not installed: pip install --no-deps {name}")
    waiting = [(job, arguments.out, name) for job in jobs(arguments) if not _kept(job, arguments.out, name).exists()]
    print(f"{len(waiting)} trainings to do", file=sys.stderr)
    context = multiprocessing.get_context("spawn")
    with context.Pool(arguments.workers) as pool:
        for number, line in enumerate(pool.imap_unordered(_work, waiting), 1):
            print(f"{number}/{len(waiting)} {line}", file=sys.stderr)


def score(arguments: argparse.Namespace) -> None:
    """Print the tables."""
    print(report(jobs(arguments), arguments.out, workers=arguments.workers, diagnosers=arguments.diagnosers))


def _diagnosers(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in (*DIAGNOSERS, *PACKAGES)]
    if unknown:
        raise argparse.ArgumentTypeError(f"no diagnoser {unknown[0]!r}: choose from {', '.join((*DIAGNOSERS, *PACKAGES))}")
    return names


def _repair(work: tuple[Job, Path, list[float]]) -> Repaired | None:
    torch.set_num_threads(1)
    job, out, twins = work
    return repaired(job, ours(read_run(job.folder(out) / "run")), twins)


def repair(arguments: argparse.Namespace) -> None:
    """Apply the first remedies of what was recorded, train again, and print how often that helped."""
    done = {job: run_job(job, arguments.out) for job in jobs(arguments) if (job.folder(arguments.out) / "result.json").exists()}
    metrics: dict[str, list[float]] = {}
    for job, result in done.items():
        metrics.setdefault(job.id, []).append(result["test_metric"])
    faulty = [job for job in done if job.id in CASES and job.seed < arguments.seeds]
    work = [(job, arguments.out, metrics[f"H00-{job.what.program}"]) for job in faulty]
    context = multiprocessing.get_context("spawn")
    with context.Pool(arguments.workers) as pool:
        tried = [one for one in pool.imap_unordered(_repair, work) if one is not None]
    print("| case | seed | said | changed | metric | goal | well |\n| --- | --- | --- | --- | --- | --- | --- |")
    for one in sorted(tried, key=lambda one: (one.id, one.seed)):
        print(f"| {one.id} | {one.seed} | {one.fix.rule} | {one.fix} | {one.metric:.3f} | {one.goal:.3f} | {one.is_well} |")
    print(f"\nRepaired: {sum(one.is_well for one in tried)} of {len(tried)} with a remedy that can be applied")


def show(arguments: argparse.Namespace) -> None:
    """Print one training's outcome and its diagnosis."""
    from rich.console import Console

    from actograph.rules.diagnose import diagnose
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
    for name, action in (("run", run), ("score", score), ("repair", repair), ("show", show)):
        command = commands.add_parser(name)
        command.set_defaults(action=action)
        command.add_argument("--out", type=Path, default=RUNS, help="where the recordings are kept")
        command.add_argument("--recording", choices=sorted(RECORDINGS), default="full")
        command.add_argument("--seeds", type=int, default=1 if name == "show" else 10, help="of each case")
        command.add_argument("--workers", type=int, default=2)
        if name == "show":
            command.add_argument("id")
            continue
        if name == "run":
            command.add_argument("--diagnoser", choices=("ours", *PACKAGES), default="ours", help="what watches")
        if name == "score":
            command.add_argument("--diagnosers", type=_diagnosers, default=["ours"], help="names, with commas")
        command.add_argument("--healthy-seeds", type=int, default=20, help="of each control")
        command.add_argument("--half", choices=("tuning", "test", "all"), default="all")
        command.add_argument("--only", default="", help="beginnings of ids, with commas")
        command.add_argument("--shard", default="1/1", help="which part of how many, as 1/4")
    arguments = parser.parse_args()
    arguments.action(arguments)


if __name__ == "__main__":
    main()
