"""What the trials of `kernel` say: sentences, tables and figures.

No idea of how it was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from actograph.show import words
from actograph.study import figures
from actograph.study.chapter import Chapter, Picture, Table
from actograph.study.estimate import Estimate, difference_of
from actograph.study.setup import Setup
from actograph.study.study import Results
from actograph.study.tell import better, joined

if TYPE_CHECKING:
    from actograph.study.study import Study

Shapes = Mapping[str, Mapping[str, Any]]
FROZEN = ", fixed"  # the ending of a variant whose first layer does not learn


def kernel_chapter(study: Study, setup: Setup, results: Results, shapes: Shapes) -> Chapter:
    """Return the chapter; ``shapes`` are the kernels by name: small, usual, large, and the small one spread."""
    names = [name for name in shapes if name in results.variants]
    return Chapter(
        study.name,
        study.question,
        study.textbook,
        [
            *_accuracies(results, shapes),
            *_learning(results, shapes),
            *_windows(results, shapes, names),
            *_ranks(results, shapes, names),
            *_states(results, names),
            *_cost(shapes),
        ],
        [_accuracy_table(results, shapes), _rank_table(results, names), _cost_table(shapes)],
        _pictures(results, shapes, names),
        _method(setup),
        results.failures,
        {
            "accuracy": {name: results.mean(name, "accuracy") for name in results.variants},
            "gains": {name: _gain(results, name, 1) for name in names},
            "shapes": shapes,
            **{
                column: {name: results.mean(name, column) for name in names}
                for column in (
                    "kept_start",
                    "kept_end",
                    "best_end",
                    "windows_rank_end",
                    "responses_rank_end",
                    "dead",
                )
            },
        },
    )


# Sentences


def _accuracies(results: Results, shapes: Shapes) -> list[str]:
    """Compare the sizes with the small one, then take number of weights and width apart."""
    small, usual, large, wide = shapes
    families = [[(usual, small), (large, small)], [(wide, small), (usual, wide)]]
    told = []
    for family in families:
        pairs = [pair for pair in family if set(pair) <= set(results.variants)]
        for a, b in pairs:
            gap = results.difference(a, b, "accuracy", num_looks=len(pairs))
            sentence = better(f"a first kernel of {a}", f"one of {b}", gap, "accuracy")
            told.append(sentence[:1].upper() + sentence[1:])
    return told or ["Accuracy cannot be compared: too few trainings came through."]


def _gain(results: Results, name: str, num_looks: int) -> Estimate:
    """Estimate what learning the first layer is worth: the accuracy above that with the layer fixed as it began."""
    return results.difference(name, name + FROZEN, "accuracy", num_looks=num_looks)


def _learning(results: Results, shapes: Shapes) -> list[str]:
    """Say what a first layer that learns is worth for each kernel, and whether a larger one has more to learn."""
    names = [name for name in list(shapes)[:3] if {name, name + FROZEN} <= set(results.variants)]
    if not names:
        return []
    gains = {name: _gain(results, name, len(names)) for name in names}
    known = [f"{_points(gain)}, with {name}" for name, gain in gains.items() if gain.excludes_zero]
    open_names = [f"{name} ({_points(gain)})" for name, gain in gains.items() if not gain.excludes_zero]
    told = []
    if known:
        told.append(
            f"Letting the first layer learn, instead of leaving it as it began, changes the accuracy by {joined(known)}."
        )
    if open_names:
        told.append(
            "Whether it matters that the first layer learns, or could as well be left as it began, cannot be told for "
            f"{joined(open_names)}."
        )
    small, usual = list(shapes)[:2]
    if small in gains and usual in gains:
        more = difference_of(
            *(
                {
                    seed: value - fixed[seed]
                    for seed, value in results.by_seed(name, "accuracy").items()
                    if seed in fixed
                }
                for name in (usual, small)
                for fixed in [results.by_seed(name + FROZEN, "accuracy")]
            )
        )
        told.append(_more_to_learn(more, usual, small))
    return told


def _more_to_learn(more: Estimate, usual: str, small: str) -> str:
    if not more.excludes_zero:
        return (
            f"That a first layer of {usual} has more to learn than one of {small} is not shown here: its gain by learning "
            f"differs by {_points(more)}."
        )
    way = "more" if more.value > 0 else "less, not more,"
    return (
        f"Learning is worth {way} to a first layer of {usual} than to one of {small}: the gain differs by "
        f"{_points(more)}."
    )


def _windows(results: Results, shapes: Shapes, names: list[str]) -> list[str]:
    """Say how much is in a window, and how much of it the filters keep."""
    if not names:
        return []
    mean = {
        key: {name: results.mean(name, key).value for name in names}
        for key in ("windows_rank_end", "windows_most_end", "kept_start", "kept_end", "best_end")
    }
    inputs = [
        f"{words.number(mean['windows_most_end'][name])} of {shapes[name]['inputs']} with {name}"
        for name in names
    ]
    kept = [
        f"{words.percent(mean['kept_end'][name])} with {name} ({words.percent(mean['kept_start'][name])} untrained, "
        f"{words.percent(mean['best_end'][name])} at best)"
        for name in names
    ]
    filters = shapes[names[0]]["filters"]
    return [
        "A window's inputs are not independent, as neighbouring pixels are alike: 99 % of the variance of what windows see "
        f"lies in so many directions of all: {joined(inputs)}.",
        f"The {filters} filters keep {joined(kept)} of that variance; what one window leaves "
        "out, those that overlap it may still pass on.",
    ]


def _ranks(results: Results, shapes: Shapes, names: list[str]) -> list[str]:
    """Say which kernel's filters answer more differently, before and after the activation, trained."""
    small, usual = list(shapes)[:2]
    if not {small, usual} <= set(names):
        return []
    told = []
    for column, what in (
        ("responses_rank_end", "answers"),
        ("outputs_rank_end", "answers after the activation"),
    ):
        gap = results.difference(usual, small, column, num_looks=2)
        means = [words.number(results.mean(name, column).value) for name in (usual, small)]
        if gap.excludes_zero:
            way = "more" if gap.value > 0 else "less"
            told.append(
                f"the {what} of {usual} differ {way} than those of {small} (effective rank {means[0]} against {means[1]})"
            )
        else:
            told.append(f"for the {what} it cannot be told which differ more ({means[0]} against {means[1]})")
    return [f"After training {joined(told)}."]


def _states(results: Results, names: list[str]) -> list[str]:
    """Say which kernels lose filters."""
    dead = {name: results.mean(name, "dead").value for name in names if results.by_seed(name, "dead")}
    losing = [f"{words.percent(value)} with {name}" for name, value in dead.items() if value > 0]
    if not dead:
        return []
    if not losing:
        return ["No filter of the first layer was dead at the end, with any kernel."]
    return [
        f"Of the first layer's filters {joined(losing)} are dead at the end: their part of the rank is lost."
    ]


def _cost(shapes: Shapes) -> list[str]:
    small, _, large, _ = shapes.values()
    reach = next((n for n, field in enumerate(small["fields"], start=1) if field >= small["image"]), None)
    whole = (
        f"With the smallest, too, convolution {reach} sees the whole image of {small['image']} pixels."
        if reach is not None
        else f"None of the kernels lets the last convolution of the smallest see the whole image of {small['image']} pixels."
    )
    names = list(shapes)
    return [
        f"From {names[0]} to {names[2]} the first layer grows from {_part(small, 'macs')} to {_part(large, 'macs')} of "
        f"the multiply-accumulates, and every later layer sees {large['fields'][-1] - small['fields'][-1]} pixels more "
        f"of a side. {whole}"
    ]


# Tables and figures


def _accuracy_table(results: Results, shapes: Shapes) -> Table:
    rows: list[list[object]] = []
    for name, shape in shapes.items():
        both = {name, name + FROZEN} <= set(results.variants)
        known = name in results.variants
        rows.append([
            name, f"{shape['inputs']} to {shape['filters']}",
            *(results.mean(one, "accuracy") if one in results.variants else None for one in (name, name + FROZEN)),
            _gain(results, name, 1) if both else None,
            *(results.mean(name, one) if known else None for one in ("valid_loss", "dead", "near_zero")),
        ])  # fmt: skip
    heads = [
        "first kernel", "inputs to filters", "accuracy", "first layer fixed", "gain by learning it", "validation loss",
        "dead filters", "near zero",
    ]  # fmt: skip
    return Table("Each first kernel: mean over the seeds with its 95 % interval", heads, rows)


def _rank_table(results: Results, names: list[str]) -> Table:
    """Return ranks as they begin and end."""
    columns = {
        "filters_rank": "filters", "responses_rank": "answers", "outputs_rank": "after the activation",
        "filters_numerical": "filters, numerical", "outputs_numerical": "after the activation, numerical",
        "outputs_most": "directions of 99 %, after the activation", "kept": "variance kept",
    }  # fmt: skip
    rows = [
        [f"{name}, {told}", *(results.mean(name, f"{column}_{when}") for column in columns)]
        for name in names
        for when, told in (("start", "untrained"), ("end", "trained"))
    ]
    return Table("Effective and numerical rank of the first layer", ["first kernel", *columns.values()], rows)


def _cost_table(shapes: Shapes) -> Table:
    heads = [
        "first kernel", "parameters", "of all", "MACs for an image", "of all", "receptive field, layer by layer",
        "by gradient",
    ]  # fmt: skip
    rows = [
        [
            name, shape["parameters"], _part(shape, "parameters"), shape["macs"], _part(shape, "macs"),
            *(", ".join(map(str, shape[key])) for key in ("fields", "measured_fields")),
        ]
        for name, shape in shapes.items()
    ]  # fmt: skip
    return Table(
        "What the first layer costs, and how many pixels of a side each convolution sees", heads, rows
    )


def _pictures(results: Results, shapes: Shapes, names: list[str]) -> list[Picture]:
    accuracy = {name: results.mean(name, "accuracy") for name in results.variants}
    kept = {
        f"{name}, {told}": results.mean(name, column)
        for name in names
        for column, told in (("kept_start", "untrained"), ("kept_end", "trained"), ("best_end", "at best"))
    }
    return [
        Picture(
            figures.intervals(accuracy, "accuracy on the validation data"),
            "Accuracy of each first kernel. Fixed: the first layer stays as it began, all others learn. What learning "
            "the first layer is worth is seen between a kernel and its fixed twin.",
            "Accuracy of each first kernel with its interval, learning and fixed",
        ),
        Picture(
            figures.intervals(
                kept,
                f"share of the windows' variance in the directions of the {next(iter(shapes.values()))['filters']} filters",
            ),
            "How much of what one window sees the filters pass on. At best: as many principal axes.",
            "Share of the variance that the filters keep, untrained, trained and at best, for each kernel",
        ),
    ]


def _method(setup: Setup) -> str:
    return (
        f"{setup.epochs} epochs of {setup.told_model} on {setup.told_data}, AdamW, one-cycle up to a rate of "
        f"{setup.lr:g} (found for the network as it is, the same for all), batches of {setup.batch_size}; padding keeps "
        "the grid the same for all kernels. The spread kernel has the weights of the small one, every other pixel apart "
        "(a dilation of 2): as few weights, as wide as the middle one. Effective rank: the exponential of the entropy of "
        "the singular values' shares (Roy and Vetterli 2007), of the filters as rows of a matrix, and of their answers "
        "over all positions of 256 training images, about the mean. Numerical rank: singular values above a thousandth "
        "of the largest. Dead, near zero: as recorded of the first activation over the last tenth of the steps. The "
        "receptive field is that of the formula, and beside it the side of the square in which the gradient of one "
        "output is not zero, with equal positive weights. Differences are between equal seeds; where several are told "
        "of one kind they share the 5 % of error."
    )


# Words


def _part(shape: Mapping[str, Any], what: str) -> str:
    return words.percent(shape[what] / shape[f"all_{what}"])


def _points(gap: Estimate) -> str:
    """Tell a difference of shares in points with its ends."""
    if not gap.is_known:
        return "an unknown amount"
    return f"{100 * gap.value:+.1f} points, {100 * gap.low:+.1f} to {100 * gap.high:+.1f}"
