"""Say in words where the compute per layer stays level, and what else the table shows.

No idea of torch: it reads rows. Every number in a sentence is computed from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, exp, log, prod

from actograph.models.shapes import LayerShape, Shape

# Two neighbours within 10 % count as level: halving an odd grid (7 to 4) alone is off by 31 %.
LEVEL_TOLERANCE = 0.10
# Fewer than two numbers in for one out is hardly a summary. Howard and Gugger, "Deep Learning for Coders"
# (2020), chapter 13: a layer learns useful features when it has clearly fewer outputs than inputs.
FEW_INPUTS_PER_FILTER = 2.0
# More sentences of one kind than this are not read; the rest is summed up.
MAX_STEPS = 4
MILLION = 1_000_000


def describe(rows: Sequence[LayerShape]) -> Iterator[str]:
    """Yield the sentences of one table, the general before the particular."""
    steps = [_Step(a, b) for a, b in pairwise(_main_path(rows))]
    yield from _level_runs(steps)
    yield from _breaks([step for step in steps if not step.is_level])
    yield from _heaviest(rows)
    yield from _first_window(rows)
    yield from _idle_pools(rows)
    yield from _wrong_grids(rows)


def number(value: float) -> str:
    """Format a count: in full up to ten million, then in millions.

    >>> number(248_864), number(1_822_000_000)
    ('248,864', '1,822.0 M')
    """
    return f"{value:,.0f}" if value < 10 * MILLION else f"{value / MILLION:,.1f} M"


def times(shape: Shape) -> str:
    """Format a grid.

    >>> times((14, 14))
    '14×14'
    """
    return "\N{MULTIPLICATION SIGN}".join(map(str, shape))


@dataclass(frozen=True, slots=True)
class _Step:
    """Two successive convolutions."""

    a: LayerShape
    b: LayerShape

    @property
    def ratio(self) -> float:
        return self.b.macs / self.a.macs

    @property
    def positions(self) -> float:
        return prod(self.b.grid or ()) / prod(self.a.grid or ())

    @property
    def work(self) -> float:
        """The change of the multiply-accumulates at each position."""
        return self.ratio / self.positions

    @property
    def is_level(self) -> bool:
        return abs(self.ratio - 1) <= LEVEL_TOLERANCE


def _is_convolution(row: LayerShape) -> bool:
    return row.window is not None and row.window.inputs is not None and row.macs > 0 and bool(row.positions)


def _main_path(rows: Sequence[LayerShape]) -> list[LayerShape]:
    """List the convolutions that follow one another; leave out shortcuts, which start from an earlier one.

    Judged by channels: a shortcut does not take what the last convolution gives, but what an earlier one gave.
    """
    path: list[LayerShape] = []
    sources: set[int | None] = set()  # channels of the first input, and of what every convolution gave
    for row in filter(_is_convolution, rows):
        takes = _channels(row.input_shape, row)
        is_next = not path or takes == _channels(path[-1].output_shape, path[-1])
        if is_next or takes not in sources:
            path.append(row)
            sources |= {takes, _channels(row.output_shape, row)}
    return path


def _channels(shape: Shape | None, row: LayerShape) -> int | None:
    """Return the axis before the grid."""
    return None if shape is None else shape[-len(row.grid or ()) - 1]


def _level_runs(steps: Sequence[_Step]) -> Iterator[str]:
    runs: list[list[_Step]] = []
    for step in steps:
        if not step.is_level:
            continue
        if runs and runs[-1][-1].b is step.a:
            runs[-1].append(step)
        else:
            runs.append([step])
    longest = sorted(runs, key=len, reverse=True)[:MAX_STEPS]
    yield from (_level_run(run) for run in runs if run in longest)
    if len(runs) > MAX_STEPS:
        yield f"{len(runs) - MAX_STEPS} shorter level stretches follow the same pattern."
    if steps and not runs:
        yield "Multiply-accumulates stay level between no two successive convolutions."


def _level_run(run: Sequence[_Step]) -> str:
    macs = [run[0].a.macs, *(step.b.macs for step in run)]
    spread = max(macs) / min(macs) - 1
    how = f"{number(macs[0])} each" if spread == 0 else f"within {100 * spread:.2g} %"
    head = f"Multiply-accumulates stay level from {run[0].a.name} to {run[-1].b.name} ({how})"
    changes = {(_factor(step.positions), _factor(step.work)) for step in run}
    if len(changes) > 1:
        return f"{head}: at every step the work at each position gains what the positions lose."
    step = run[0]
    if step.positions == 1:
        return f"{head}: the grid and the work at each position stay the same."
    grids = [run[0].a.grid, *(step.b.grid for step in run)]
    who = "each step" if len(run) > 1 else "the step"
    return f"{head}: {who} {_positions_change(step, grids)} and {_work_change(step)}."


def _breaks(steps: Sequence[_Step]) -> Iterator[str]:
    largest = sorted(steps, key=lambda step: -abs(log(step.ratio)))
    for step in steps:
        if step in largest[:MAX_STEPS]:
            yield _break(step)
    if len(steps) > MAX_STEPS:
        rest = max(abs(log(step.ratio)) for step in largest[MAX_STEPS:])
        yield f"{len(steps) - MAX_STEPS} further steps change them at most {_factor(exp(rest))} times."


def _break(step: _Step) -> str:
    verb = "rise" if step.ratio > 1 else "fall"
    size = _factor(max(step.ratio, 1 / step.ratio))
    a, b = step.a, step.b
    assert a.window is not None
    assert b.window is not None
    causes = []
    if a.window.inputs != b.window.inputs:
        causes.append(f"inputs per window {a.window.inputs} to {b.window.inputs}")
    if a.window.filters != b.window.filters:
        causes.append(f"filters {a.window.filters} to {b.window.filters}")
    cause = f" ({', '.join(causes)})" if causes else ""
    return (
        f"From {a.name} to {b.name} they {verb} {size} times: the step {_positions_change(step, [a.grid, b.grid])} "
        f"and {_work_change(step)}{cause}."
    )


def _positions_change(step: _Step, grids: Sequence[Shape | None]) -> str:
    if step.positions == 1:
        return "keeps the positions"
    way = " to ".join(times(grid or ()) for grid in grids)
    if step.positions < 1:
        return f"divides the positions by {_factor(1 / step.positions)} ({way})"
    return f"multiplies the positions by {_factor(step.positions)} ({way})"


def _work_change(step: _Step) -> str:
    if _factor(step.work) == "1":
        return "keeps the work at each"
    if step.work < 1:
        return f"divides the work at each by {_factor(1 / step.work)}"
    return f"multiplies the work at each by {_factor(step.work)}"


def _factor(value: float) -> str:
    return f"{value:.3g}"


def _heaviest(rows: Sequence[LayerShape]) -> Iterator[str]:
    costs = [row.macs for row in rows if row.macs]
    if len(costs) <= 1:
        return
    names = [row.name for row in rows if row.macs == max(costs)]
    share = f"{max(costs) / sum(costs):.0%} of {number(sum(costs))} multiply-accumulates"
    if len(names) == 1:
        yield f"The heaviest layer is {names[0]} with {share}."
    elif len(names) <= MAX_STEPS:
        yield f"The heaviest layers are {_listed(names)}, each with {share}."


def _first_window(rows: Sequence[LayerShape]) -> Iterator[str]:
    first = next((row for row in rows if row.parameters), None)
    if first is None or first.window is None or not first.window.inputs or not first.window.filters:
        return
    kernel, inputs, filters = first.window.kernel, first.window.inputs, first.window.filters
    if kernel == first.window.stride:
        return  # windows that do not overlap re-arrange patches and are not meant to summarise
    head = f"{first.name} makes {filters} numbers of the {inputs} inputs in each window"
    if inputs >= FEW_INPUTS_PER_FILTER * filters:
        yield f"{head}, {inputs / filters:.2g} to 1: it has to learn what to keep."
        return
    channels = inputs // prod(kernel)
    wider = ceil((FEW_INPUTS_PER_FILTER * filters / channels) ** (1 / len(kernel)))
    wider += 1 - wider % 2
    yield (
        f"{head}, {inputs / filters:.2g} to 1: it can hardly learn more than it is given; "
        f"a first kernel of {wider} would see {channels * wider ** len(kernel)}."
    )


def _idle_pools(rows: Sequence[LayerShape]) -> Iterator[str]:
    for row in rows:
        if row.kind.startswith("Adaptive") and row.grid is not None and row.grid == row.input_grid:
            yield f"{row.name} does nothing at this input size: its grid is {times(row.grid)} already."


def _wrong_grids(rows: Sequence[LayerShape]) -> Iterator[str]:
    for row in rows:
        if row.grid_matches is False:
            yield (
                f"{row.name} returned the grid {times(row.grid or ())} where its settings promise "
                f"{times(row.predicted_grid or ())}: its forward does something else."
            )


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
