"""The snake-case name by which a callback or metric is known.

No idea of either.
"""

from __future__ import annotations

import re


def snake_name(cls: type[object]) -> str:
    """Return the class name in snake case.

    >>> class CSVLog: ...
    >>> snake_name(CSVLog)
    'csv_log'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower()
