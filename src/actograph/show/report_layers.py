"""The layers of the report: a table row and a section for each.

No idea of the page's markup.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from actograph.rules.rule import Finding
from actograph.runlog.view import DEAD_WINDOW, STATISTICS, RunView
from actograph.show import words
from actograph.show.layers import color_dim, gradient_curves, layer_curves
from actograph.show.sparkline import evenly, svg_path
from actograph.show.spectrum import spectrum
from actograph.show.strips import MAX_UNITS_PX, color_strip, data_uri, unit_strip
from actograph.show.timeaxis import step_edges

CELLS = ("mean", "std", "near_zero", "zeros", "flat", "dead", "non_finite")
SHORT = {"near_zero": "near zero", "non_finite": "NaN/Inf", "flat": "flat", "dead": "dead", "zeros": "zeros"}
HEADS = [
    {"name": "layer", "title": "in the order of the first call", "numeric": False},
    {"name": "kind", "title": "module class", "numeric": False},
    {"name": "shape", "title": "output of one sample", "numeric": True},
    {"name": "parameters", "title": "of the module itself", "numeric": True},
    *({"name": SHORT.get(name, name), "title": STATISTICS[name].label, "numeric": True} for name in CELLS),
]
SPARK_SIZE = (120.0, 22.0)  # px, as in the template
CURVES_PX = 470
NAMED_UNITS = 24  # more numbers than that are not read
UNIT_PX, MIN_UNITS_PX, MAX_UNIT_MAP_PX = 6, 36, 220

AddFigure = Callable[[str, go.Figure], int]


def layer_id(index: int) -> str:
    """Return the element id of a layer's section."""
    return f"layer-{index}"


def layer_entry(
    view: RunView, index: int, findings: Sequence[Finding], add: AddFigure | None
) -> dict[str, Any]:
    """Return what the page says of one layer, given the findings about it; its figures go to ``add`` (None: no room)."""
    layer = view.layers[index]
    shape = layer.shape[1:] or layer.shape
    entry: dict[str, Any] = {
        "id": layer_id(index),
        "index": index,
        "name": layer.name,
        "kind": layer.kind,
        "shape": words.shape(layer),
        "size": math.prod(shape),
        "parameters": layer.num_parameters,
        "has_figures": add is not None,
        "gradient": None,
    }
    if not view.buckets:
        return entry
    now = {name: float(view.column(name)[-1, index]) for name in CELLS}
    entry |= {
        "cells": [_cell(name, value) for name, value in now.items()],
        "spark": svg_path(evenly(view.column("std")[:, index], view.last_steps), *SPARK_SIZE),
        "flags": [(finding.severity.value, finding.rule) for finding in findings],
        **_units(view, index),
    }
    if add is None:
        return entry | {"strip": None, "unit_strip": None}
    add(f"curves-{index}", layer_curves(view, index))
    return entry | {"curves": f"curves-{index}", **_gradient(view, index, add), **_picture(view, index, add)}


def _gradient(view: RunView, index: int, add: AddFigure) -> dict[str, Any]:
    """Return the figure of the gradients by the layer's output, where any were recorded."""
    name, gradients = view.layers[index].name, view.gradients
    if name not in [layer.name for layer in gradients.layers] or not gradients.was_called(name).any():
        return {}
    height = add(f"gradient-{index}", gradient_curves(gradients, name))
    return {"gradient": f"gradient-{index}", "gradient_height": height}


def _picture(view: RunView, index: int, add: AddFigure) -> dict[str, Any]:
    rows = spectrum(view, index)
    if rows.is_empty:
        return {"strip": None}
    # the strip lies in the page once, as a picture; the figure refers to it by its element id
    add(f"picture-{index}", color_dim(view, index, picture=f"#{layer_id(index)}-strip"))
    return {"strip": data_uri(color_strip(rows, step_edges(view))), "picture": f"picture-{index}"}


def _cell(name: str, value: float) -> dict[str, Any]:
    is_share = STATISTICS[name].is_share
    defined = math.isfinite(value)
    return {
        "text": words.percent(value) if is_share else words.number(value),
        "sort": f"{value:.6g}" if defined else "",
        "share": f"{value:.3f}" if is_share and defined and value > 0 else None,
        "bad": name == "non_finite" and value > 0,
    }


def _units(view: RunView, index: int) -> dict[str, Any]:
    """Return what is known of NaN and of silent units, in words, and a picture of the units if any was silent."""
    layer, first = view.layers[index], view.first_non_finite(index)
    sentences = [] if first is None else [f"NaN or Inf from step {first:,} on."]
    if not layer.num_flags:
        return {"units": " ".join(sentences), "unit_strip": None}
    fired, dead = view.fired(index), np.flatnonzero(view.dead(index)[-1])
    window = f"the last {DEAD_WINDOW} recorded steps"
    if not len(dead):
        sentences.append(f"All {layer.num_units} units left the flat region in {window}.")
    else:
        named = ", ".join(map(str, dead[:NAMED_UNITS])) + (", …" if len(dead) > NAMED_UNITS else "")
        who = f"{len(dead)} of {layer.num_units} units"
        sentences.append(f"{who} did not leave the flat region in {window}: {named}.")
    entry: dict[str, Any] = {"units": " ".join(sentences), "unit_strip": None}
    if not fired.all():
        height = min(max(UNIT_PX * min(layer.num_units, MAX_UNITS_PX), MIN_UNITS_PX), MAX_UNIT_MAP_PX)
        entry |= {"unit_strip": data_uri(unit_strip(fired, step_edges(view))), "unit_height": height}
    return entry
