"""Actions relative to the state in which their chunk starts: OpenPI's ``DeltaActions`` and ``AbsoluteActions``.

The relative dims are written in the notation of OpenPI's ``make_bool_mask``: ``6,-1`` means that 6 dims are relative
and the next one is absolute (a gripper command). Dims that the text does not cover are absolute.
"""

from __future__ import annotations

import re

import numpy as np

from rlinf_isaac.ground.errors import InvalidJob, Problem

NONE = "none"


def parse_delta_mask(text: str) -> tuple[bool, ...]:
    """``"6,-1"`` -> six times True, once False; ``"none"`` -> ().

    Raises:
        InvalidJob: ``bad-delta-mask``, `text` has neither of these forms.
    """
    if text.strip().lower() == NONE:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[+-]?[1-9]\d{0,3}", part) for part in parts):
        cause = f"policy.delta_actions is {text!r}"
        cure = (
            "write none, or counts of relative (n) and absolute (-n) dims, as in '6,-1' (quoted, because of the comma)"
        )
        raise InvalidJob.of("bad-delta-mask", cause, cure)
    return tuple(int(part) > 0 for part in parts for _ in range(abs(int(part))))


def check_delta_mask(mask: tuple[bool, ...], state_dim: int, action_dim: int) -> list[Problem]:
    """A problem if the mask covers dims that the action or the state does not have. OpenPI fails in that case too."""
    if len(mask) <= min(state_dim, action_dim):
        return []
    cause = f"policy.delta_actions names {len(mask)} dims; the state has {state_dim}, the action {action_dim}"
    return [Problem("bad-delta-mask", cause, f"name at most {min(state_dim, action_dim)} dims")]


def to_delta(actions: np.ndarray, states: np.ndarray, mask: tuple[bool, ...]) -> np.ndarray:
    """Actions (..., H, A) -> relative to the states (..., D) in which their chunks start.

    Returns a new array of the same dtype: float32 is subtracted in float32, as in OpenPI.
    """
    relative = np.flatnonzero(mask)
    shifted = np.array(actions)
    shifted[..., relative] -= states[..., None, relative]
    return shifted


def to_absolute(actions: np.ndarray, states: np.ndarray, mask: tuple[bool, ...]) -> np.ndarray:
    """The inverse of `to_delta`."""
    relative = np.flatnonzero(mask)
    shifted = np.array(actions)
    shifted[..., relative] += states[..., None, relative]
    return shifted
