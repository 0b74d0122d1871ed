"""How much longer does a whole training script take under ``actograph run``, and with what other libraries add to it?

Each run is a process: start, imports, training, end and report. The pairs of a script with and without a recorder come one
right after the other and take turns in who is first; a figure is the median ratio of the pairs with its bootstrap interval.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
from _environment import HERE, machine, names_among, revision, say, version_of, why_absent
from _measure import Interval

SCRIPT = HERE / "_script.py"
CASES = {"cnn64": "simple_cnn, batch 64", "gpt": "small GPT, 16 x 64 tokens"}
TRIAL_STEPS = {"cnn64": 600, "gpt": 60}  # about 2 s each, to find how many steps take so long as is asked for
PACKAGES = {"wandb": "wandb", "tensorboard": "torch.utils.tensorboard", "torchmortem": "torchmortem"}
ROWS = {
    "actograph": "**`actograph run`**, as it comes",
    "start": "`actograph run`, a script of one step, seconds more",
    "wandb": '`wandb.watch(log="all")` offline (parameters and gradients each 1,000 steps), loss each step',
    "tensorboard": "TensorBoard, histograms of all outputs each 100 steps, loss each step",
    "torchmortem": "torchmortem `Autopsy`, as it comes, with its report",
}
PEER_PAIRS = 2  # of the others: theirs are large differences
QUIET = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "WANDB_MODE": "offline"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long a plain script takes, about")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--cases", type=names_among(CASES), default=list(CASES))
    parser.add_argument("--recorders", type=names_among(ROWS), default=list(ROWS))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    lines = [
        "# Whole scripts",
        "",
        f"{machine()}. Python {platform.python_version()}, torch {torch.__version__}"
        + "".join(f", {name} {version}" for name in PACKAGES if (version := version_of(name)))
        + f"; actograph at {revision()}. {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, "
        f"load {os.getloadavg()[0]:.1f} at the start.",
        "",
        "Time of the whole process with a recorder over without: median of the pairs, 95 % bootstrap interval, n.",
        "",
        "| script | recorder | without, s | with / without |",
        "|---|---|---:|---:|",
    ]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for case in arguments.cases:
            lines += rows(case, arguments.recorders, arguments.seconds, arguments.pairs, Path(folder))
    lines += ["", f"Load at the end {os.getloadavg()[0]:.1f}."]
    print("\n".join(lines))
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n")


def rows(case: str, recorders: list[str], seconds: float, num_pairs: int, folder: Path) -> list[str]:
    """Measure one script with each recorder and return the table's rows."""
    trial = run(case, TRIAL_STEPS[case], "none", folder)
    num_steps = max(1, round(seconds / float(trial.output.split()[-1])))
    found = []
    for recorder in recorders:
        reason = why_absent(PACKAGES[recorder]) if recorder in PACKAGES else None
        if reason is not None:
            found.append(f"| {CASES[case]} | {ROWS[recorder]} | | {reason} |")
            continue
        is_start = recorder == "start"
        pairs = paired(
            case,
            1 if is_start else num_steps,
            "actograph" if is_start else recorder,
            PEER_PAIRS if recorder in PACKAGES else num_pairs,
            folder,
        )
        without_s = Interval.of([without for without, _ in pairs]).median
        figure = Interval.of([w - without if is_start else w / without for without, w in pairs])
        found.append(
            f"| {CASES[case]}, {1 if is_start else num_steps:,} steps | {ROWS[recorder]} | {without_s:.1f} | "
            f"{figure.median:.3f} [{figure.low:.3f}, {figure.high:.3f}], {figure.n} |"
        )
        say(f"{found[-1]} load {os.getloadavg()[0]:.1f}")
    return found


def paired(
    case: str, num_steps: int, recorder: str, num_pairs: int, folder: Path
) -> list[tuple[float, float]]:
    """Return the seconds of each pair, without and with the recorder."""
    pairs = []
    for index in range(num_pairs):
        taken = {}
        for one in ("none", recorder) if index % 2 == 0 else (recorder, "none"):
            taken[one] = run(case, num_steps, one, folder).elapsed_s
        pairs.append((taken["none"], taken[recorder]))
    return pairs


class Run:
    """What a process has printed, and how long it took."""

    def __init__(self, output: str, elapsed_s: float) -> None:
        self.output, self.elapsed_s = output, elapsed_s


def run(case: str, num_steps: int, recorder: str, folder: Path) -> Run:
    """Run the script to its end in a new folder; raises CalledProcessError when it fails."""
    here = Path(tempfile.mkdtemp(dir=folder))
    is_ours = recorder == "actograph"
    command = [sys.executable, *(["-m", "actograph", "run"] if is_ours else []), str(SCRIPT), "--case", case]
    command += ["--steps", str(num_steps), "--recorder", "none" if is_ours else recorder]
    environment = {**os.environ, **QUIET, "PYTHONPATH": str(HERE.parent / "src")}
    began_s = time.perf_counter()
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)
    elapsed_s = time.perf_counter() - began_s
    if done.returncode:
        say(done.stderr)
    done.check_returncode()
    if is_ours and not list(here.glob("runs/*/run.db")):
        raise RuntimeError(f"nothing was recorded: {done.stderr}")
    return Run(done.stdout, elapsed_s)


if __name__ == "__main__":
    main()
