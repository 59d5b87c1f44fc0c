"""The toy environment of `toy.py` as a task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlinf_isaac.tasks.read import from_dict
from rlinf_isaac.tasks.task import Task

HERE = Path(__file__).parent


def plane(
    directory: Path = HERE, make: str = "toy.py:Plane", changes: dict[str, Any] | None = None, **env: Any
) -> Task:
    """The task, whose section `env` has these entries; `changes` are those of other sections."""
    values = {
        "name": "plane",
        "prompts": ["push the point to the middle", "bring it back"],
        "control_hz": 10,
        "cameras": {
            "base_0_rgb": {"dataset": "observation.images.top", "env": "pixels/top"},
            "left_wrist_0_rgb": {"dataset": "observation.images.hand", "env": "pixels/hand"},
        },
        "state": {"dims": 2, "env": "point"},
        "action": {"dims": 2, "clip": [-1, 1]},
        "expert": "toy.py:Expert",
        "env": {"kind": "gymnasium", "make": make, "success": "info.solved", "max_steps": 40, **env},
    }
    return from_dict(values | (changes or {}), "a test", directory)


@pytest.fixture(scope="session")
def toy_task() -> Callable[..., Task]:
    return plane
