"""`SkipFacts`: updates that a gradient scaler left out because a gradient was not finite.

No idea of the scaler; whoever sees it says what it did. Skipped updates end no step: one that is skipped belongs to the step
that the next update ends.
"""

from __future__ import annotations

from actograph.runlog.facts import FactKind, FactTable

MAX_STEPS = 64  # of which it is kept that an update was skipped in them; a healthy run has a few


class SkipFacts:
    """Told of every update that was asked of a scaler, and of steps that end."""

    def __init__(self, table: FactTable) -> None:
        self._table = table
        self._in_a_row: dict[str, float] = {}  # updates skipped since the last step ended

    def scaled_step(self, subject: str, step: int, scale: float, *, has_moved: bool) -> None:
        """Note an update, and where it was skipped the scale that was too large.

        Data: how many were skipped in all (``skipped``), since a step has ended (``in_a_row``), the longest such row
        (``longest``), the scale, and the first steps with such a one.
        """
        kind = FactKind.SKIPPED_UPDATE
        self._table.look(kind, step)
        if has_moved:
            return
        old = self._table.get(kind, subject)
        known = old.data.get("steps") if old else None
        steps = list(known) if isinstance(known, list) else []
        if len(steps) < MAX_STEPS and steps[-1:] != [float(step)]:
            steps.append(float(step))
        in_a_row = self._in_a_row[subject] = self._in_a_row.get(subject, 0.0) + 1.0
        self._table.note(
            kind,
            subject,
            step,
            skipped=1.0 + (old.number("skipped") if old else 0.0),
            in_a_row=in_a_row,
            longest=max(in_a_row, old.number("longest") if old else 0.0),
            scale=scale,
            steps=steps,
        )

    def end_step(self) -> None:
        """Note that the training went on."""
        for subject in self._in_a_row:
            old = self._table.get(FactKind.SKIPPED_UPDATE, subject)
            if old is not None:
                self._table.note(FactKind.SKIPPED_UPDATE, subject, old.last_step, in_a_row=0.0)
                self._table.end(FactKind.SKIPPED_UPDATE, subject)
        self._in_a_row.clear()
