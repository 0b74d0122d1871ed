"""`position_of`: find something by position or name, or say what was probably meant.

No idea of what is named.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from actograph.errors import UsageError


def position_of(wanted: int | str, names: Sequence[str], what: str) -> int:
    """Return the position of ``wanted``, given by position (negative too) or name.

    Raises UsageError that names close matches, or the valid positions.

    >>> position_of(-1, ["conv1", "conv2"], "layer")
    1
    """
    if isinstance(wanted, str):
        if wanted in names:
            return names.index(wanted)
        close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.4)
        hint = (
            f"did you mean {' or '.join(map(repr, close))}?"
            if close
            else f"the {what}s are {', '.join(names)}"
        )
        raise UsageError(f"no {what} {wanted!r} in this run: {hint}")
    if not -len(names) <= wanted < len(names):
        raise UsageError(f"no {what} {wanted}: this run has {len(names)} {what}s, 0 to {len(names) - 1}")
    return wanted % len(names)
