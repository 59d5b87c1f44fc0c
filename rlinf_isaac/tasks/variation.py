"""What a robustness axis varies in the episodes of an evaluation. The standard library alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

AXES = ("light", "camera", "texture", "mass", "delay")
"""What `eval --vary` may name."""
VERSION = 1
"""Of what is drawn (`envs.stack_cube.variation`). Rows of another version are of other scenes, and never reused."""


@dataclass(frozen=True)
class Variation:
    """One thing that differs from the usual environment, and how much.

    Attributes:
        axis: one of `AXES`.
        strength: multiple of the ranges of `envs.stack_cube.variation`; of the delay the number of control steps.
    """

    axis: str
    strength: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, with the version of the ranges: what the rows of an evaluation depend on."""
        return asdict(self) | {"version": VERSION}


def axes_in(text: str) -> tuple[str, ...]:
    """The axes that a text names, with commas or spaces between them; none of ``none``."""
    names = tuple(text.replace(",", " ").split())
    return () if names == ("none",) else names


def names_axes(text: str) -> bool:
    """Whether a text is ``none``, or names some of `AXES`, each once."""
    names = axes_in(text)
    return text.strip() == "none" or (bool(names) and len(set(names)) == len(names) and set(names) <= set(AXES))
