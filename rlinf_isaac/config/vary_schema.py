"""The section of the config that says what an evaluation varies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from rlinf_isaac.config.rules import POSITIVE, Rule
from rlinf_isaac.tasks.variation import AXES, names_axes

_SOME_AXES = Rule(f"none, or some of {', '.join(AXES)}, each once", names_axes)
_STRENGTH = Rule("greater than 0, and at most 2", lambda x: 0 < x <= 2)


@dataclass
class VaryConfig:
    """Robustness: what `eval --vary` varies, one axis after the other, each beside the evaluation that is not varied.
    Ranges: docs/robustness.md."""

    axes: Annotated[str, _SOME_AXES] = "none"
    """The axes, with commas between them: light, camera, texture, mass, delay."""

    light: Annotated[float, _STRENGTH] = 1.0
    """How much brightness and direction of the light vary, as a multiple of their ranges."""

    camera: Annotated[float, _STRENGTH] = 1.0
    """How much pose and field of view of the table camera vary, as a multiple of their ranges."""

    texture: Annotated[float, _STRENGTH] = 1.0
    """How much the colours of table, mat and floor and the cubes' shades vary, as a multiple of their ranges."""

    mass: Annotated[float, _STRENGTH] = 1.0
    """How much mass and friction of the cubes vary, as the exponent of their largest factors."""

    delay: Annotated[int, POSITIVE] = 2
    """After how many control steps an action is executed."""
