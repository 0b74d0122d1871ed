"""Numbers and runs in words: short forms and sentences that terminal and page share.

No idea of rich or HTML.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from actograph.layout.layer import LayerInfo
from actograph.rules.rule import Finding, Remedy
from actograph.runlog.schema import Cost
from actograph.runlog.view import RunView
from actograph.show.find import live_status
from actograph.show.series import LOSS, VALID, best, best_metric, epochs, training_loss

TIMES = "\N{MULTIPLICATION SIGN}"
DASH = "-"  # stands for "not defined"
MOST_RANKS = 4  # that are named in a sentence
MANY = 1e5  # numbers from here on are written with an exponent


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with ``digits`` significant digits; a dash where it is not defined.

    >>> number(0.012345), number(123456.0), number(float("nan")), number(0.0)
    ('0.0123', '1.23e+05', '-', '0')
    """
    if value is None or math.isnan(value):
        return DASH
    if 10**digits <= abs(value) < MANY:
        return f"{value:.0f}"
    return f"{value:.{digits}g}"


def percent(share: float | None) -> str:
    """Return a share in percent, never rounded to 0 or 100 where it is not.

    >>> percent(0.5), percent(0.0004), percent(0.9999), percent(1.0)
    ('50 %', '<0.1 %', '>99.9 %', '100 %')
    """
    if share is None or math.isnan(share):
        return DASH
    hundredths = 100 * share
    if 0 < hundredths < 0.1:  # noqa: PLR2004 -- the number in the text
        return "<0.1 %"
    if 99.9 < hundredths < 100:  # noqa: PLR2004
        return ">99.9 %"
    return f"{hundredths:.{0 if hundredths in (0, 100) or hundredths >= 10 else 1}f} %"  # noqa: PLR2004


def shape(layer: LayerInfo) -> str:
    """Return the shape of one sample's output, without the batch axis.

    >>> shape(LayerInfo("fc", "Linear", (64, 8, 14, 14), "float32", 1, 8))
    '8×14×14'
    """
    return TIMES.join(map(str, layer.shape[1:] or layer.shape))


def summary(view: RunView) -> str:
    """Return what was trained, how far, how it went and what recording it cost, in a few sentences."""
    return " ".join(
        sentence
        for sentence in (_training(view), _result(view), recording_cost(view.info.cost), ranks(view))
        if sentence
    )


def recording_cost(cost: Cost) -> str:
    """Return how many steps were recorded and what that took; empty where nothing was timed."""
    if not cost.steps_seen:
        return ""
    every = cost.steps_recorded == cost.steps_seen
    what = (
        f"every one of {cost.steps_seen:,} steps"
        if every
        else f"{cost.steps_recorded:,} of {cost.steps_seen:,} steps"
    )
    allowed = "no limit set" if cost.budget is None else f"allowed: {100 * cost.budget:g} %"
    return f"Recording {what} took {percent(cost.share)} of the time ({allowed})."


def ranks(view: RunView) -> str:
    """Return of which ranks the run is made, and what is missing of the others; empty for a run of one process."""
    if not view.ranks:
        return ""
    world_size, there = view.info.world_size, len(view.ranks)
    sentences = [f"Merged from {'' if there == world_size else f'{there} of '}{world_size} ranks."]
    if view.missing_ranks:
        missing = ", ".join(map(str, view.missing_ranks[:MOST_RANKS]))
        more = ", ..." if len(view.missing_ranks) > MOST_RANKS else ""
        sentences.append(f"There is nothing of rank {missing}{more}.")
    short = [one for one in view.ranks if one.num_steps < view.num_steps]
    for one in short[:MOST_RANKS]:
        status = live_status(one.info)
        sentences.append(
            f"Rank {one.info.rank} has {one.num_steps:,} of {view.num_steps:,} steps ({status})."
        )
    if len(short) > MOST_RANKS:
        sentences.append(f"So have {len(short) - MOST_RANKS:,} more ranks.")
    return " ".join(sentences)


def when(finding: Finding) -> str:
    """Return the steps at which a finding held."""
    if finding.first_step == finding.last_step:
        return f"at step {finding.first_step:,}"
    return f"steps {finding.first_step:,} to {finding.last_step:,}"


def remedy(proposed: Remedy) -> str:
    """Return a remedy as one line: what to do, to what and, where known, from what to what.

    >>> remedy(Remedy("lower the learning rate", "lr", 0.9, 0.09))
    'lower the learning rate (lr: 0.9 → 0.09)'
    """
    change = " → ".join(value(end) for end in (proposed.old, proposed.new) if end is not None)
    target = "" if proposed.target in proposed.action else proposed.target
    about = ": ".join(part for part in (target, change) if part)
    return f"{proposed.action} ({about})" if about else proposed.action


def consequence(finding: Finding) -> str:
    """Return a finding that another explains as one line."""
    where = f" in {finding.layer}" if finding.layer else ""
    return f"{finding.rule}{where}, {when(finding)}: {finding.message}"


def loss(value: float) -> str:
    """Return a loss; unlike elsewhere NaN is itself the news."""
    return "NaN" if math.isnan(value) else number(value)


def evidence(known: Mapping[str, float | str]) -> list[tuple[str, str]]:
    """Return names and values of evidence in words; a share as percent."""
    return [(name.replace("_", " "), _evidence_value(name, one)) for name, one in known.items()]


def value(known: float | str) -> str:
    """Return a piece of evidence: whole numbers in full, others with four digits."""
    if isinstance(known, str):
        return known
    return f"{known:,.0f}" if float(known).is_integer() and abs(known) < MANY else number(float(known), 4)


def _evidence_value(name: str, known: float | str) -> str:
    if isinstance(known, float) and name.endswith("share"):
        return percent(known)
    return value(known)


def _training(view: RunView) -> str:
    config = view.info.config
    what = [str(config[key]) for key in ("model", "data") if config.get(key)]
    num_epochs = len({(event.data.get("fit"), event.data["epoch"]) for event in epochs(view)})
    during = f" over {num_epochs} epoch{'s' if num_epochs > 1 else ''}" if num_epochs else ""
    status = live_status(view.info)
    return f"{' on '.join(what) or view.info.name}: {view.num_steps:,} training steps{during}, {status}."


def _result(view: RunView) -> str:
    losses, smooth = training_loss(view)
    valid = best("valid loss", view.scalar(LOSS, VALID))
    parts = []
    metric = best_metric(view)
    if metric is not None and metric.name != LOSS:
        parts.append(f"validation {metric.name} reached {number(metric.value, 4)} (step {metric.step:,})")
    if valid is not None:
        parts.append(f"validation loss {number(valid.value)} at best (step {valid.step:,})")
    if losses.first_non_finite is not None:
        parts.append(f"the training loss was not finite from step {losses.first_non_finite:,}")
    elif len(smooth):
        parts.append(f"training loss went from {number(losses.values[0])} to {number(smooth[-1])} (smoothed)")
    text = "; ".join(parts)
    return text[:1].upper() + text[1:] + "." if text else ""
