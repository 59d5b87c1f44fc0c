"""Paths in an environment's observation: ``pixels/base``, ``agent_pos[0:7]``, ``axis_angle(robot/eef_quat)``.

An observation is a dict of arrays, or of such dicts; a ``/`` steps into one. An environment whose observation is a
single array has it under the name ``observation``. Numpy is imported where a path is read: spellings are checked
without it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

WHOLE = "observation"
"""Name of an observation that is a single array."""
_PATH = re.compile(
    r"(?:(?P<function>\w+)\((?P<inner>[^()\[\]]+)\)|(?P<plain>[^()\[\]]+))(?:\[(?P<from>\d*):(?P<to>\d*)\])?"
)


def read_path(observation: Mapping[str, Any], path: str) -> np.ndarray:
    """The array at a path; a slice takes entries of its last axis.

    Raises:
        KeyError: the observation has no such entry. The message names those that it has.
    """
    import numpy as np

    match = _PATH.fullmatch(path)
    if match is None:
        raise KeyError(f"{path!r} is no path")
    value: Any = observation
    for name in (match["inner"] or match["plain"]).split("/"):
        if not isinstance(value, Mapping) or name not in value:
            raise KeyError(f"the observation has no {path!r}; it has {', '.join(sorted(leaves(observation)))}")
        value = value[name]
    array = np.asarray(value)
    if match["function"]:
        array = FUNCTIONS[match["function"]](array)
    if match["from"] is not None:
        array = array[..., int(match["from"] or 0) : int(match["to"]) if match["to"] else None]
    return array


def wrong_path(path: str) -> str | None:
    """What is wrong with the spelling of a path; None if it is well-formed."""
    match = _PATH.fullmatch(path)
    if match is None:
        return f"{path!r} is no path like pixels/base, agent_pos[0:7] or axis_angle(eef_quat)"
    if match["function"] and match["function"] not in FUNCTIONS:
        return f"{path!r} uses {match['function']}, which is none of {', '.join(FUNCTIONS)}"
    return None


def leaves(observation: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Path -> value of everything in an observation that is no dict."""
    found: dict[str, Any] = {}
    for name, value in observation.items():
        found |= leaves(value, f"{prefix}{name}/") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def axis_angle(quat: np.ndarray) -> np.ndarray:
    """Axis times angle (..., 3) of unit quaternions wxyz (..., 4), as robosuite's and RLinf's ``quat2axisangle``.

    The angle is ``2 acos(w)`` in [0, 2 pi] and is NOT wrapped to [0, pi]: a hand that points down has w near 0 and an
    angle near pi, and wrapping would flip the axis at every sign change of w. Therefore q and -q give different
    vectors, and the environment must keep the quaternion's sign continuous.
    """
    import numpy as np

    quat = np.asarray(quat, np.float64)
    sine = np.linalg.norm(quat[..., 1:], axis=-1, keepdims=True)
    angle = 2.0 * np.arctan2(sine, quat[..., :1])  # 2 acos(w), and exact near w = 1 as well
    no_axis = sine < 1e-12
    return quat[..., 1:] * np.where(no_axis, 0.0, angle / np.where(no_axis, 1.0, sine))


def axis_angle_xyzw(quat: np.ndarray) -> np.ndarray:
    """`axis_angle` of quaternions xyzw (..., 4)."""
    import numpy as np

    return axis_angle(np.roll(quat, 1, axis=-1))


FUNCTIONS = {"axis_angle": axis_angle, "axis_angle_xyzw": axis_angle_xyzw}
"""Functions that a path may name: the rotation vector of a quaternion wxyz, or xyzw."""
