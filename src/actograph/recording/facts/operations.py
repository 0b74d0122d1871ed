"""What autograd's operations are: weight layers, norms, activations, sums, or just another view of the same values.

No idea of graphs. Names are those of `torch.autograd.graph.Node.name` without "Backward0". What is not listed is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch.autograd.graph import Node

from actograph.runlog.flow import Kind

WEIGHT_OPS: Mapping[str, str] = {
    **dict.fromkeys(("Addmm", "Mm", "Linear", "MkldnnLinear", "Addmv", "Mv", "Bmm", "Baddbmm"), "linear"),
    **dict.fromkeys(
        ("Convolution", "MkldnnConvolution", "CudnnConvolution", "ConvolutionOverrideable", "SlowConv2D"),
        "convolution",
    ),
    **dict.fromkeys(("MkldnnRnnLayer", "CudnnRnn", "MiopenRnn"), "recurrent"),
    **dict.fromkeys(("Embedding", "EmbeddingBag"), "embedding"),
}
PASSING_WEIGHTS = frozenset(  # what a weight goes through before it is used
    (
        "T", "Transpose", "Permute", "View", "UnsafeView", "ReshapeAlias", "Clone", "Expand", "Unsqueeze", "Squeeze",
        "ToCopy", "Mul", "Div", "Slice", "Split", "SplitWithSizes", "Chunk", "Select", "WeightNormInterface", "Neg",
        "Stack", "Cat", "Unbind",
    )
)  # fmt: skip
NORM_OPS = frozenset(
    (
        "NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "NativeLayerNorm", "NativeGroupNorm", "FusedRmsNorm",
        "RmsNorm", "BatchNorm", "InstanceNorm",
    )
)  # fmt: skip
VIEWS = (  # the same values in another shape or precision
    "T", "Permute", "View", "UnsafeView", "ReshapeAlias", "Clone", "Unsqueeze", "Squeeze", "ToCopy", "Select", "Alias",
)  # fmt: skip
_LINEAR = (
    *VIEWS, "Transpose", "AsStrided", "Expand", "Slice", "Split", "SplitWithSizes", "Chunk", "Unbind", "Index",
    "IndexSelect", "Gather", "Narrow", "Contiguous", "CopyBackwards", "CopySlices", "Neg", "Sum", "Mean", "AvgPool1D",
    "AvgPool2D", "AvgPool3D",
    "AdaptiveAvgPool1D", "AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "MkldnnAdaptiveAvgPool2D", "NativeDropout",
    "ConstantPadNd", "ReflectionPad1D", "ReflectionPad2D", "ReplicationPad2D", "Roll", "Flip", "Repeat", "Detach",
    "UpsampleNearest2D", "UpsampleBilinear2D", "UpsampleNearest1D", "PixelShuffle", "Unfold", "Im2Col", "Movedim",
    "Swapaxes", "Flatten", "Unflatten", "ViewAs", "Identity", "Diagonal",
)  # fmt: skip
_SUMS = ("Add", "Sub", "Cat", "Stack", "Addcmul", "Lerp", "Rsub")
_PRODUCTS = ("Mul", "Div", "Mm", "Bmm", "Addmm", "Baddbmm", "Matmul", "Mv", "Dot", "Linear")
_ATTENTION = "ScaledDotProduct"
_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(_LINEAR, Kind.LINEAR),
    **dict.fromkeys(NORM_OPS, Kind.NORM),
    **dict.fromkeys(("Softmax", "SafeSoftmax", "LogSoftmax"), Kind.SOFTMAX),
    **dict.fromkeys(
        ("Sigmoid", "Tanh", "Hardtanh", "Hardsigmoid", "LogSigmoid", "LogSigmoidForward", "Sin", "Cos", "Erf",
         "Atan", "Sign"),
        Kind.SATURATING,
    ),
    **dict.fromkeys(
        ("Relu", "LeakyRelu", "Elu", "Gelu", "Silu", "Mish", "Softplus", "Celu", "Selu", "Prelu", "PreluKernel", "Threshold",
         "Hardswish", "Clamp", "ClampMin", "ClampMax", "Abs", "Pow", "Exp", "Log", "Sqrt", "Rsqrt", "Glu", "RreluWithNoise",
         "Maximum", "Minimum", "Log1P", "Expm1", "Softshrink", "Hardshrink", "Reciprocal"),
        Kind.ACTIVATION,
    ),
    **dict.fromkeys(
        ("MaxPool1D", "MaxPool2D", "MaxPool2DWithIndices", "MaxPool3DWithIndices", "AdaptiveMaxPool1D", "AdaptiveMaxPool2D",
         "AdaptiveMaxPool3D", "MkldnnMaxPool2D", "Max", "Amax", "FractionalMaxPool2D"),
        Kind.MAX_POOL,
    ),
}  # fmt: skip


def op_name(node: Node) -> str:
    """Return what an operation is called: "Addmm" for "AddmmBackward0", "AccumulateGrad" for a parameter.

    >>> import torch
    >>> op_name((torch.ones(2, requires_grad=True) * 2).relu().grad_fn)
    'Relu'
    """
    name = node.name().rpartition("::")[2]
    return re.sub(r"(Backward\d*|\d+)$", "", name) if name != "CopyBackwards" else name


def kind_of(name: str, num_data: int) -> Kind:
    """Return what an operation does with ``num_data`` inputs that are neither parameters nor constants.

    >>> kind_of("Add", 1), kind_of("Add", 2), kind_of("Mul", 2)
    (<Kind.LINEAR: 'linear'>, <Kind.MERGE: 'merge'>, <Kind.PRODUCT: 'product'>)
    """
    if name in _SUMS:
        return Kind.MERGE if num_data > 1 else Kind.LINEAR
    if name in _PRODUCTS:
        return Kind.PRODUCT if num_data > 1 else Kind.LINEAR
    if name.startswith(_ATTENTION):
        return Kind.PRODUCT
    return _KINDS.get(name, Kind.UNKNOWN)
