"""The options of the command line that shape one of actograph's own networks.

No idea of what they do to it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Norm(StrEnum):
    """Normalisations by name; ``none`` is a choice, too."""

    NONE = "none"
    BATCH = "batch"


Width = Annotated[float, typer.Option(help="Factor for the filters or features of every layer but the last.")]
Act = Annotated[
    str | None, typer.Option(help="Activation: relu, leaky_relu, elu, gelu, silu, mish, tanh or sigmoid.")
]
NormOption = Annotated[Norm | None, typer.Option(help="Normalisation after each convolution of simple_cnn.")]


def network_options(act: str | None, norm: Norm | None) -> dict[str, str | None]:
    """Return the options of the network's function that were given.

    >>> network_options("gelu", Norm.NONE)
    {'act': 'gelu', 'norm': None}
    """
    options: dict[str, str | None] = {}
    if act is not None:
        options["act"] = act
    if norm is not None:
        options["norm"] = None if norm is Norm.NONE else norm.value
    return options
