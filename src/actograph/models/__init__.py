"""Networks, and what a network's layers cost: grids, parameters, multiply-accumulates."""

from actograph.models.blocks import conv_block
from actograph.models.cnn import simple_cnn
from actograph.models.mlp import mlp
from actograph.models.registry import MODELS, build_model
from actograph.models.shapes import LayerShape, LayerTable
from actograph.models.table import layer_table

__all__ = [
    "MODELS",
    "LayerShape",
    "LayerTable",
    "build_model",
    "conv_block",
    "layer_table",
    "mlp",
    "simple_cnn",
]
