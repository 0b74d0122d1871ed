"""Networks, and what a network's layers cost: grids, parameters, multiply-accumulates."""

from actograph.models.activations import ACTIVATIONS
from actograph.models.blocks import conv_block
from actograph.models.cnn import simple_cnn
from actograph.models.mlp import mlp
from actograph.models.network import ModelConfig, Network
from actograph.models.registry import MODELS, build_for_images, build_model, model_config, rebuild_model
from actograph.models.residual import resnet
from actograph.models.shapes import LayerShape, LayerTable
from actograph.models.table import layer_table

__all__ = [
    "ACTIVATIONS",
    "MODELS",
    "LayerShape",
    "LayerTable",
    "ModelConfig",
    "Network",
    "build_for_images",
    "build_model",
    "conv_block",
    "layer_table",
    "mlp",
    "model_config",
    "rebuild_model",
    "resnet",
    "simple_cnn",
]
