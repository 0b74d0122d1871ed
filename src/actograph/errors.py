"""The errors a user can meet, each a sentence that names the value seen and the remedy.

No idea of what raised them: every layer above may.
"""

from __future__ import annotations


class ActographError(Exception):
    """Base of all errors that actograph raises on purpose."""


class UsageError(ActographError, ValueError):
    """A value the caller gave cannot be used; the command line prints the message and exits with code 2."""


class RunNotFoundError(UsageError):
    """No run directory, or no readable ``run.db``, at the given path."""


class RunInUseError(UsageError):
    """The output folder already holds a run, or another process is writing to it."""


class MissingExtraError(UsageError):
    """A feature needs an optional dependency; the message names the pip command that installs it."""
