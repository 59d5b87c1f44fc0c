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
    """The axes that a text names, with commas or spaces between them; none of ``none``.

    Raises:
        ValueError: one of them is no axis, or is named twice, or there is none.
    """
    names = text.replace(",", " ").split()
    if names == ["none"]:
        return ()
    if not names or len(set(names)) < len(names) or not set(names) <= set(AXES):
        raise ValueError(f"{text!r} does not name some of {', '.join(AXES)}")
    return tuple(names)


def names_axes(text: str) -> bool:
    """Whether `axes_in` takes a text."""
    try:
        axes_in(text)
    except ValueError:
        return False
    return True
