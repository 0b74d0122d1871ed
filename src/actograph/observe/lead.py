"""`Lead`: which optimizer's step ends a step of the run, where a script has several.

No idea of what a step holds. The optimizer seen last leads, so that a step is one round of them (discriminator and
generator), and a training in stages goes on when its second optimizer comes. One that steps on and on without the leader
takes over.
"""

from __future__ import annotations

from collections import Counter

# steps without the leader: more than the 5 that WGAN's critic makes in a round (Arjovsky et al. 2017), few enough to merge
TAKE_OVER = 16


class Lead:
    """Says of each optimizer step whether it ends a step of the run; optimizers are told apart by number."""

    def __init__(self) -> None:
        self._leader: int | None = None
        self._without_leader: Counter[int] = Counter()
        self._known: set[int] = set()

    def ends_step(self, optimizer: int, *, is_open: bool) -> bool:
        """Tell whether a step ends with this optimizer's; ``is_open``: a forward was seen since the last one ended.

        >>> lead = Lead()
        >>> [lead.ends_step(number, is_open=number == 0) for number in (0, 1, 0, 1, 0, 1)]
        [True, False, False, True, False, True]
        """
        if optimizer not in self._known:
            is_first = not self._known
            self._known.add(optimizer)
            self._take(optimizer)
            return is_open or is_first  # else it belongs to the step that has just ended
        self._without_leader[optimizer] += 1
        if optimizer == self._leader or self._without_leader[optimizer] >= TAKE_OVER:
            self._take(optimizer)
            return True
        return False

    def _take(self, optimizer: int) -> None:
        self._leader = optimizer
        self._without_leader.clear()
