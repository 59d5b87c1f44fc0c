"""Turns the options of a command into a job that an engine runs, and does every check before anything starts.

Each module serves one kind of job. Its `check` takes the options as text, adds every problem to `preflight.Findings`,
and returns the job or its parts. Its `plan` makes the job from settings that have their types already. Nothing in this
package prints or records anything, or imports mlflow: a function that has a message for the user passes each line to
its argument `say`.
"""

from __future__ import annotations

from collections.abc import Callable

Say = Callable[[str], None]
"""A function that receives a line for the user."""


def silent(line: str) -> None:
    """A `Say` that drops every line."""
