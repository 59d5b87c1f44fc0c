"""Jobs: what a person asks for becomes a job that an engine runs, with every check done before anything starts.

Each module serves one kind of job. `check` takes the options as text, notes what is wrong in `preflight.Findings`, and
gives the job or what the job is made of; `plan` makes the job of settings that are already typed. Nothing here prints,
records or imports mlflow: a function that has something to tell a person hands each line to its argument `say`.
"""

from __future__ import annotations

from collections.abc import Callable

Say = Callable[[str], None]
"""Takes a line that a person should read."""


def silent(line: str) -> None:
    """The `Say` that drops every line."""
