"""What one call of a layer takes, gives and costs, and the table of a whole network's calls.

No idea how the numbers are measured.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod
from typing import Any, TypeAlias

from actograph.models.columns import as_text

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """The window of a convolution or pool: how far it reaches, and what it makes of what it sees.

    ``inputs`` numbers (kernel positions x input channels of one group) become ``filters`` numbers (output
    channels of one group). Both are None for pools and transposed convolutions, where the comparison means
    nothing.
    """

    kernel: Shape
    stride: Shape
    inputs: int | None = None
    filters: int | None = None


@dataclass(frozen=True, slots=True)
class LayerShape:
    """One call of one layer; shapes are as the layer saw them, batch included.

    name: qualified module name, ``name[1]`` for the second call of the same module
    kind: class name
    parameters: those no earlier row has counted
    macs: multiply-accumulates of the call; normalisation, activations and bias additions count as none
    activation_bytes: new memory of the outputs; 0 where the output shares its input's memory
    predicted_grid: by formula, for convolutions and pools; ``grid`` is what the layer really returned
    is_own_work: the row of a container, for what it computes outside of its layers
    """

    name: str
    kind: str
    input_shape: Shape | None
    output_shape: Shape | None
    parameters: int
    macs: int
    activation_bytes: int
    input_grid: Shape | None = None
    grid: Shape | None = None
    predicted_grid: Shape | None = None
    window: Window | None = None
    is_own_work: bool = False

    @property
    def grid_matches(self) -> bool | None:
        """Tell whether the formula gave the real grid; None where there is no formula."""
        return None if self.predicted_grid is None else self.predicted_grid == self.grid

    @property
    def positions(self) -> int | None:
        """Count the positions of the output grid."""
        return None if self.grid is None else prod(self.grid)


@dataclass(frozen=True, slots=True)
class LayerTable:
    """The calls of one forward pass in the order they began, with totals and what they mean in words; to be printed.

    parameters: of the whole model, each shared one once; those of `unused` modules included
    unused: names of the modules with parameters that this forward pass did not call
    device: where the model was run: "meta" (shapes only) or the device of its parameters
    """

    model: str
    input_shapes: tuple[Shape, ...]
    rows: tuple[LayerShape, ...]
    parameters: int
    unused: tuple[str, ...]
    unused_parameters: int
    device: str
    sentences: tuple[str, ...]

    @property
    def macs(self) -> int:
        """Sum the multiply-accumulates of all calls."""
        return sum(row.macs for row in self.rows)

    @property
    def activation_bytes(self) -> int:
        """Sum the memory of all layers' outputs: about what the forward pass keeps for backward."""
        return sum(row.activation_bytes for row in self.rows)

    @property
    def verdict(self) -> str:
        """Join the sentences."""
        return " ".join(self.sentences)

    def __str__(self) -> str:
        return as_text(self)

    def as_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON, totals and `grid_matches` included."""
        rows = [asdict(row) | {"grid_matches": row.grid_matches} for row in self.rows]
        totals = {"macs": self.macs, "activation_bytes": self.activation_bytes}
        return asdict(self) | {"rows": rows} | totals
