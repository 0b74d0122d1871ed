"""The studies by name.

No idea of what they ask; each is imported when it is used.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from types import MappingProxyType

from actograph.errors import UsageError
from actograph.study.setup import Setup
from actograph.study.study import Study

# name -> module and class, in the order of the book
STUDIES: Mapping[str, str] = MappingProxyType(
    {
        "filters": "actograph.study.filters:Filters",
        "kernel": "actograph.study.kernel:FirstKernel",
        "activations": "actograph.study.activations:Activations",
        "callbacks": "actograph.study.callbacks:Callbacks",
        "saturation": "actograph.study.saturation:Saturation",
        "batch-size": "actograph.study.batch_size:BatchSize",
        "high-start": "actograph.study.high_start:HighStart",
        "high-rate": "actograph.study.high_rate:HighRate",
        "low-end": "actograph.study.low_end:LowEnd",
    }
)


def study_class(name: str) -> type[Study]:
    """Return the class of the study called ``name``; raises UsageError with the names, and the nearest one.

    >>> study_class("low-end").name
    'low-end'
    """
    if name not in STUDIES:
        near = difflib.get_close_matches(name, STUDIES, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UsageError(f"no study is called {name!r}{hint}; the names are {', '.join(STUDIES)}")
    module, _, attribute = STUDIES[name].partition(":")
    found: type[Study] = getattr(importlib.import_module(module), attribute)
    return found


def make_study(name: str, setup: Setup | None = None) -> Study:
    """Return the study called ``name`` of a setup, ready to `Study.run`; raises UsageError for an unknown name."""
    return study_class(name)(setup)
