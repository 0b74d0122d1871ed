"""`is_looked_at`: which of many calls to look at, where looking at each would cost too much.

No idea of what is looked at, and no use of random numbers: recording changes no random state.
"""

from __future__ import annotations

ALL_UP_TO = 16  # calls
SHARE = 0.0625  # of the later ones
GOLDEN = 0.6180339887498949  # (sqrt(5) - 1) / 2: its multiples fall in step with no period, such as that of an epoch


def is_looked_at(number: int, share: float = SHARE) -> bool:
    """Tell whether to look at a call; they are counted from 0. ``share`` is that of the later ones.

    >>> sum(is_looked_at(number) for number in range(16))
    16
    >>> 55 <= sum(is_looked_at(number) for number in range(16, 1016)) <= 70
    True
    """
    return number < ALL_UP_TO or number * GOLDEN % 1.0 < share
