from __future__ import annotations

import json
import math

from actograph.layout.layer import FlatRegion, LayerInfo, Nonlinearity, Quantity, Side

REGION = FlatRegion(Nonlinearity.SATURATING, Side.OUTPUT, ((-math.inf, -0.97), (0.97, math.inf)))


def test_a_layer_survives_json() -> None:
    layer = LayerInfo("block1.act", "Tanh", (64, 8, 14, 14), "float32", 1, 8, REGION, 12)
    assert LayerInfo.from_json(json.loads(json.dumps(layer.to_json()))) == layer
    bare = LayerInfo("fc", "Linear", (64, 10), "bfloat16", None, 0)
    assert LayerInfo.from_json(json.loads(json.dumps(bare.to_json()))) == bare


def test_units_are_flagged_only_where_there_is_a_flat_region() -> None:
    assert LayerInfo("a", "Tanh", (2, 8), "float32", 1, 8, REGION).num_flags == 8
    assert LayerInfo("a", "Linear", (2, 8), "float32", 1, 8).num_flags == 0


def test_runs_of_before_there_were_gradients_hold_activations() -> None:
    info = LayerInfo("a", "Tanh", (2, 8), "float32", 1, 8, quantity=Quantity.GRADIENT)
    assert LayerInfo.from_json(info.to_json()) == info
    old = {key: value for key, value in info.to_json().items() if key != "quantity"}
    assert LayerInfo.from_json(old).quantity is Quantity.ACTIVATION
