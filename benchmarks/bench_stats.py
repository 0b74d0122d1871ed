"""What recording activations costs: actograph beside other libraries and hand-written hooks.

    python benchmarks/bench_stats.py [--quick] [--models cnn64,gpt] [--out benchmarks/results-stats.md]

See benchmarks/README.md for what is measured and how to run it where peers are installed. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from _environment import PLAIN_MALLOC, machine, names_among, revision, say, version_of
from _hooks import HookSet
from _longrun import NUM_LAYERS, long_run
from _measure import BLOCK_STEPS, CHUNKS, InLoop, Interval, Pure, in_loop, pure_cost
from _models import CASES, Case, Training, tiny_chain
from _recorders import PEERS, RECORDERS, Actograph, FastaiHist, Recorder, stay_offline

from actograph.sketch import native

HERE = Path(__file__).parent
VERSIONS = ("fastai", "wandb", "tensorboard", "mosaicml")
TINY_LAYERS = 64
TINY_ROUNDS = 300  # forwards with and without hooks
LONG_STEPS = 1_000_000
LONG_LIMIT_S = 180.0


@dataclass(frozen=True)
class Effort:
    """How much to measure."""

    pairs: int  # of actograph; peers get at most as many
    actograph_s: float  # in the loop, per model: blocks are shortened to fit
    peer_s: float  # in the loop, per model: pairs are left out as well
    actograph_replay_s: float
    peer_replay_s: float
    memory_steps: tuple[int, int]
    long_steps: int
    long_limit_s: float


FULL = Effort(200, 60.0, 3.0, 4.0, 1.0, (2000, 6000), LONG_STEPS, LONG_LIMIT_S)
QUICK = Effort(20, 3.0, 0.5, 0.5, 0.2, (200, 600), LONG_STEPS, 5.0)
OVERHEAD_S = 2.0  # guess per recorder and model: starting, stopping, the least number of steps of slow peers

METHOD = f"""\
Pure cost: the recorder's work of a step (hooks, end of the step, writing at its rate), back to back on the real
activations of a few steps; median of up to {CHUNKS} chunks with a 95 % bootstrap interval. Share: of the median step
without recording. In-loop ratio: blocks of steps with recording over their neighbours without, in one process, in
alternating order; median of n pairs of blocks with a 95 % bootstrap interval. n: pairs x steps in a block (at most
{BLOCK_STEPS}, fewer where a step is slow). Of totals: all steps with over all without, which holds the rare: flushes, and
noise. An interval that reaches below 1 says that the difference was not resolved, not that recording is free."""


@dataclass
class Result:
    """A recorder on a model."""

    recorder: type[Recorder]
    num_layers: int
    in_loop: InLoop
    pure: Pure


def main() -> None:
    options = parse()
    effort = QUICK if options.quick else FULL
    if options.seconds:
        effort = replace(effort, actograph_s=options.seconds)
    cases = [CASES[key] for key in options.models]
    stay_offline()
    absent = {kind: reason for kind in PEERS if (reason := kind.why_absent()) is not None}
    kinds = [kind for kind in (Actograph, *PEERS) if kind not in absent]
    kinds = [kind for kind in kinds if not options.recorders or kind.key in options.recorders]
    say(
        f"estimate: about {estimate_s(effort, cases, kinds) / 60:.0f} minutes on a machine that does nothing else"
    )
    began_s = time.monotonic()
    parts = [heading(effort, absent, is_quick=options.quick)]
    for case in cases:
        parts.append(model_part(case, kinds, effort))
        if options.out:  # what is known so far, should somebody stop this
            options.out.write_text("\n\n".join(parts) + "\n")
    if not options.no_extras:
        parts += [tiny_part(kinds), memory_part(effort), long_part(effort)]
    parts.append(
        f"Took {(time.monotonic() - began_s) / 60:.1f} minutes; load at the end {os.getloadavg()[0]:.1f}."
    )
    text = "\n\n".join(parts) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="does everything run? Few pairs: no figures to quote"
    )
    parser.add_argument("--models", type=names_among(CASES), default=list(CASES), help=", ".join(CASES))
    parser.add_argument(
        "--recorders",
        type=names_among(RECORDERS),
        default=None,
        help=", ".join(k for k in RECORDERS if k != "none"),
    )
    parser.add_argument(
        "--seconds", type=float, help="in-loop time of actograph for a model; more gives longer blocks"
    )
    parser.add_argument("--no-extras", action="store_true", help="leave out tiny layers, memory and long run")
    parser.add_argument("--out", type=Path, help="write the markdown there as well")
    return parser.parse_args()


def estimate_s(effort: Effort, cases: list[Case], kinds: list[type[Recorder]]) -> float:
    num_peers = len(kinds) - 1
    per_model_s = effort.actograph_replay_s + num_peers * (effort.peer_s + effort.peer_replay_s + OVERHEAD_S)
    pair_s = [2 * effort.pairs * case.typical_step_s for case in cases]  # of blocks of one step
    loops_s = [one * min(max(int(effort.actograph_s / one), 1), BLOCK_STEPS) for one in pair_s]
    memory_s = effort.memory_steps[1] * 0.018
    return len(cases) * per_model_s + sum(loops_s) + memory_s + min(effort.long_limit_s, 40.0) + 10.0


# One model


def model_part(case: Case, kinds: list[type[Recorder]], effort: Effort) -> str:
    """Measure all recorders on one model and return its section."""
    say(f"{case.title}:")
    training = Training(case)
    results = [measure(kind, case, effort) for kind in kinds]
    in_plain_loop = [r for r in results if not r.recorder.has_own_loop] or results
    plain_s = [seconds for result in in_plain_loop for seconds in result.in_loop.off_s]
    step = Interval.of(plain_s)
    low, high = np.quantile(plain_s, (0.25, 0.75))
    num_parameters = sum(parameter.numel() for parameter in training.model.parameters())
    lines = [
        f"## {case.title}",
        "",
        f"{num_parameters:,} parameters. A step without recording takes {step.median * 1e3:.3g} ms "
        f"(median of {step.n} blocks in the plain loop; quartiles {low * 1e3:.3g} to {high * 1e3:.3g}).",
        "",
        "| recorder | layers | pure cost, us a step | share of the step | in-loop ratio | 95 % interval | of totals | n |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        *[result_row(result, step.median) for result in results],
        "",
        *[split_of(result.pure) for result in results if result.recorder is Actograph],
    ]
    return "\n".join(lines)


def measure(kind: type[Recorder], case: Case, effort: Effort) -> Result:
    """Measure one recorder on one model, in the loop first: the replay finds it as after some training."""
    is_ours = kind is Actograph
    seconds = effort.actograph_s if is_ours else effort.peer_s
    with begun(kind, Training(case)) as recorder:
        looped = in_loop(recorder, effort.pairs, seconds, all_pairs=is_ours)
        plain_s = statistics.median(looped.off_s)
        pure = pure_cost(recorder, plain_s, effort.actograph_replay_s if is_ours else effort.peer_replay_s)
        result = Result(kind, recorder.hooks().num_modules, looped, pure)
    ratio = looped.ratio
    say(
        f"  {kind.key:12s} pure {pure.total.median / plain_s:7.1%} of a step; in the loop {ratio.median:.3f} "
        f"[{ratio.low:.3f}, {ratio.high:.3f}], {ratio.n} pairs of {looped.block_steps} steps; load {os.getloadavg()[0]:.1f}"
    )
    return result


@contextmanager
def begun(kind: type[Recorder], training: Training) -> Iterator[Recorder]:
    """Begin a recorder that writes to a temporary folder."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        recorder = kind(training, Path(folder))
        recorder.begin()
        yield recorder
        recorder.end()


def result_row(result: Result, step_s: float) -> str:
    pure, ratio, looped = result.pure.total, result.in_loop.ratio, result.in_loop
    cells = [
        result.recorder.label,
        str(result.num_layers or "-"),
        f"{pure.median * 1e6:,.0f} [{pure.low * 1e6:,.0f}, {pure.high * 1e6:,.0f}]",
        f"{pure.median / step_s:.1%}",
        f"{ratio.median:.3f}",
        f"[{ratio.low:.3f}, {ratio.high:.3f}]",
        f"{looped.ratio_of_totals:.3f}",
        f"{ratio.n} x {looped.block_steps}",
    ]
    return f"| {' | '.join(cells)} |"


def split_of(pure: Pure) -> str:
    """Return where actograph's time goes."""
    rest_s = pure.total.median - pure.forward_s - pure.end_s
    return (
        f"Of actograph's pure cost {pure.forward_s * 1e6:,.0f} us are forward hooks, {pure.end_s * 1e6:,.0f} us the end of "
        f"a step (medians); the other {rest_s * 1e6:,.0f} us come in few steps: flushes, merging, noise."
    )


# What goes with the tables


def heading(effort: Effort, absent: dict[type[Recorder], str], *, is_quick: bool) -> str:
    """Return what was measured, where and how."""
    packages = [f"{name} {version_of(name)}" for name in VERSIONS if version_of(name)]
    kernel = (
        "its C back end" if native.available() else "its reference back end: the C back end was not built"
    )
    notes = [f"- {kind.label}: {kind.note}." for kind in (Actograph, *PEERS) if kind not in absent]
    rough = "**A quick run: it shows that everything works, its figures are too rough to quote.**\n\n"
    return "\n".join(
        [
            "# What recording costs",
            "",
            f"{rough if is_quick else ''}{machine()}.",
            f"Python {platform.python_version()}, torch {torch.__version__} on {torch.get_num_threads()} threads "
            f"(torch's default), numpy {np.__version__}{''.join(', ' + package for package in packages)}; "
            f"actograph at {revision()} with {kernel}. {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, load "
            f"{os.getloadavg()[0]:.1f} at the start.",
            "",
            METHOD,
            "",
            *notes,
            *[f"- {kind.label}: {reason}." for kind, reason in absent.items()],
        ]
    )


def tiny_part(kinds: list[type[Recorder]]) -> str:
    """Return what a recorder costs a layer apart from reading its memory."""
    say("tiny layers:")
    wanted = [kind for kind in kinds if kind.key in ("actograph", "hooks", "histc", "fastai", "fastai-hist")]
    lines = [
        f"## A watched layer ({tiny_chain(TINY_LAYERS).title})",
        "",
        "Microseconds a layer: in a forward (with hooks minus without, torch's own way to the hooks included), the hooks",
        "alone, and all of a step back to back (the end of the step too, divided by the layers).",
        "",
        "| recorder | in a forward | hooks alone | whole step |",
        "|---|---:|---:|---:|",
    ]
    for kind in wanted:
        with begun(kind, Training(tiny_chain(TINY_LAYERS))) as recorder:
            pure = pure_cost(recorder, 0.005, 1.0)
            forward = forward_difference(recorder.training, recorder.hooks())
        per_layer = 1e6 / TINY_LAYERS
        lines.append(
            f"| {kind.label} | {forward.median * per_layer:.1f} [{forward.low * per_layer:.1f}, "
            f"{forward.high * per_layer:.1f}] | {pure.forward_s * per_layer:.1f} | {pure.total.median * per_layer:.1f} |"
        )
        say(f"  {lines[-1]}")
    return "\n".join(lines)


def forward_difference(training: Training, hooks: HookSet) -> Interval:
    """Return what the hooks add to a forward, in seconds."""
    x, _ = training.batches[0]
    differences = []
    for round_index in range(TINY_ROUNDS):
        taken = {}
        for is_on in (True, False) if round_index % 2 else (False, True):
            hooks.take_off()
            if is_on:
                hooks.put_back()
            start_s = time.perf_counter()
            training.model(x)
            taken[is_on] = time.perf_counter() - start_s
        differences.append(taken[True] - taken[False])
    hooks.put_back()
    return Interval.of(differences)


def memory_part(effort: Effort) -> str:
    """Return how the process grows, from processes of their own, side by side."""
    first, last = effort.memory_steps
    kinds = [kind for kind in (Recorder, Actograph, FastaiHist) if kind.why_absent() is None]
    say(f"memory, {last} steps in {len(kinds)} processes:")
    script = HERE / "_memory.py"
    runs = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(script), kind.key, str(first), str(last)],
            stdout=subprocess.PIPE,
            env=os.environ | PLAIN_MALLOC,
        )
        for kind in kinds
    ]
    lines = [
        f"## Memory, simple_cnn at batch 64, steps {first} to {last}",
        "",
        "Bytes a step of the resident set, one process each, one thread, after a garbage collection: the difference of",
        "the ends, and the slope through 80 samples. The C library gives freed activations back at once (a fixed",
        "`MALLOC_MMAP_THRESHOLD_`), else fragmentation counts, tenfold and by chance. In a quick run actograph's timeline",
        "still fills up.",
        "",
        "| recorder | difference | slope | resident at the end, MB |",
        "|---|---:|---:|---:|",
    ]
    for kind, run in zip(kinds, runs, strict=True):
        output, _ = run.communicate()
        if run.returncode:
            lines.append(f"| {kind.label} | failed | | |")
            continue
        found = json.loads(output.splitlines()[-1])
        lines.append(
            f"| {kind.label} | {found['growth']:,.0f} | {found['slope']:,.0f} | {found['resident'] / 1e6:,.0f} |"
        )
        say(f"  {lines[-1]}")
    lines += [f"| {FastaiHist.label} | not installed | | |"] if FastaiHist not in kinds else []
    return "\n".join(lines)


def long_part(effort: Effort) -> str:
    """Return what a very long recording costs to open."""
    say("a long run:")
    with tempfile.TemporaryDirectory() as folder:
        run = long_run(Path(folder), effort.long_steps, effort.long_limit_s)
    shortened = "" if run.num_steps == effort.long_steps else f" (not {effort.long_steps:,}, for time)"
    text = (
        f"{run.num_steps:,} synthetic steps{shortened} of {NUM_LAYERS} layers and 2 scalars through `RunWriter`: "
        f"{run.append_us:.0f} us to append a step (flushes included), {run.size_bytes / 1e6:.2f} MB on disk "
        f"({run.size_bytes / NUM_LAYERS / 1e3:,.0f} kB a layer), `read_run` in {run.read_s * 1e3:.0f} ms, `open_run` with "
        f"the first statistic in {run.open_s * 1e3:.0f} ms (medians of 5, file in the page cache, packages imported)."
    )
    say(f"  {text}")
    return f"## A long run\n\n{text}"


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)  # of peers' imports
    warnings.filterwarnings("ignore", message="You are shadowing an attribute")  # fastai of its own callbacks
    main()
