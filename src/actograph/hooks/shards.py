"""A parameter that several processes share out among them (FSDP2, a DTensor): what of it is here.

No idea of what is measured. Nothing here talks to another process.
"""

from __future__ import annotations

import sys

from torch import Tensor


def local_part(tensor: Tensor) -> Tensor:
    """Return the part of a shared-out tensor that this process holds, in the same memory; any other as it is."""
    return tensor._local_tensor if _is_distributed(tensor) else tensor  # type: ignore[attr-defined]


def is_shard(parameter: Tensor) -> bool:
    """Tell whether each process holds a part of its own, all of which together are the parameter.

    On meshes of more than one axis some parts are held more than once: these are not told apart.
    """
    if not _is_distributed(parameter):
        return False
    mesh, placements = parameter.device_mesh, parameter.placements  # type: ignore[attr-defined]
    return mesh.ndim == 1 and bool(placements[0].is_shard())


def _is_distributed(tensor: Tensor) -> bool:
    # importing it takes a second, and who has such a tensor has done so
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)
