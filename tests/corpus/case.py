"""What a broken input is: a valid one, one fault, and the code under which the fault must be reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One fault that people really meet.

    Attributes:
        name: for the test's id.
        code: of the `Problem` that must come out.
        break_it: edits a valid copy in place, given its path.
    """

    name: str
    code: str
    break_it: Callable[[Path], None]
