"""Robots whose numbers a base model knows in another form: joints that turn the other way, grippers in other units.

The policy works with the model's numbers throughout: states and recorded actions are brought into that form before they
are made relative and normalised, and sampled actions are brought back last of all, as OpenPI does. A task names its
adapter by ``adapt``. Numpy is imported where numbers are changed: names are looked up without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from rlinf_isaac.ground.errors import InvalidJob

if TYPE_CHECKING:
    import numpy as np

Change = Callable[["np.ndarray"], "np.ndarray"]


@dataclass(frozen=True)
class Adapter:
    """How the numbers of a robot become those of the model. Each function maps (..., D) to (..., D).

    Attributes:
        state: states of the robot -> of the model.
        actions: actions of the robot -> of the model.
        to_robot: actions of the model -> of the robot; the inverse of `actions`.
        dims: number of entries of a state and of an action; None: any.
    """

    state: Change
    actions: Change
    to_robot: Change
    dims: int | None = None


def find_adapter(name: str | None) -> Adapter | None:
    """The adapter that a task names: one of `ADAPTERS`, or ``module:object`` of an installed package.

    Raises:
        InvalidJob: there is none of this name.
    """
    return None if name is None else _load(name)


@cache
def _load(name: str) -> Adapter:
    module, colon, member = name.partition(":")
    if name in ADAPTERS:
        return ADAPTERS[name]
    cure = f"use {' or '.join(ADAPTERS)}, or module:object of a package that is installed here; docs/tasks.md says how"
    if not colon:
        raise InvalidJob.of("no-adapter", f"adapt is {name!r}, which names no adapter", cure)
    try:
        found = getattr(import_module(module), member)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidJob.of("no-adapter", f"adapt is {name!r}, which cannot be loaded: {error}", cure) from error
    if not isinstance(found, Adapter):
        cause = f"adapt is {name!r}, which is a {type(found).__name__}"
        raise InvalidJob.of("no-adapter", cause, "make it a rlinf_isaac.tasks.adapters.Adapter")
    return found


# ALOHA: six joints and a gripper, of the left arm and of the right one. In the model's space two joints of each arm
# turn the other way, and a gripper is the angle of its motor. The formulas and numbers are those of OpenPI's ALOHA
# policy (`adapt_to_pi`), which has them from the robot's own software.
_SIGNS = [1, -1, -1, 1, 1, 1, 1] * 2
_GRIPPERS = [6, 13]
_OPENING = 0.01844, 0.05800
"""Metres between closed and open, over which a gripper's state is normalised to [0, 1]."""
_ARM, _HORN = 0.036, 0.022
"""Metres of the two links that turn the motor's angle into the opening."""
_MODEL_ANGLE = 0.5476, 1.6296
"""Radians of the motor, over which the model's gripper state is normalised to [0, 1]."""
_COMMAND = -0.6213, 1.4910
"""Radians over which a gripper's command is normalised to [0, 1]; the model's is an angle above the first of
`_MODEL_ANGLE`."""


def _aloha_state(state: np.ndarray) -> np.ndarray:
    return _changed(state, lambda gripper: _share(_angle(_value(gripper, _OPENING)), _MODEL_ANGLE))


def _aloha_actions(actions: np.ndarray) -> np.ndarray:
    return _changed(actions, lambda command: _value(command, _COMMAND) - _MODEL_ANGLE[0])


def _aloha_to_robot(actions: np.ndarray) -> np.ndarray:
    return _changed(actions, lambda angle: _share(angle + _MODEL_ANGLE[0], _COMMAND))


def _changed(values: np.ndarray, of_gripper: Change) -> np.ndarray:
    """Values (..., 14) with the joints' signs and the grippers changed, computed in float64, in the dtype they had."""
    import numpy as np

    values = np.asarray(values)
    changed = values.astype(np.float64) * _SIGNS
    changed[..., _GRIPPERS] = of_gripper(changed[..., _GRIPPERS])
    return changed.astype(values.dtype if values.dtype.kind == "f" else np.float64)


def _angle(opening: np.ndarray) -> np.ndarray:
    """Angle in radians of a motor whose gripper is open by so many metres: the law of cosines in the triangle of horn,
    arm and opening."""
    import numpy as np

    sine = (_HORN**2 + opening**2 - _ARM**2) / (2 * _HORN * opening)
    return np.arcsin(np.clip(sine, -1.0, 1.0))


def _share(values: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    return (values - ends[0]) / (ends[1] - ends[0])


def _value(shares: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    return shares * (ends[1] - ends[0]) + ends[0]


ADAPTERS = {"aloha": Adapter(_aloha_state, _aloha_actions, _aloha_to_robot, dims=14)}
