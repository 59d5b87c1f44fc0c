"""Chooses how a worker has its rows, by the kind of environment."""

from __future__ import annotations

import inspect
from typing import Any

from rlinf_isaac.envs.host.worker.make import draw_without_display, find_function
from rlinf_isaac.envs.host.worker.rlinf_vector import RlinfRows
from rlinf_isaac.envs.host.worker.rows import Rows
from rlinf_isaac.envs.host.worker.vector import VectorRows
from rlinf_isaac.tasks.task import RLINF


def make_rows(settings: dict[str, Any]) -> Rows:
    """The rows of a worker: in one `VectorEnv` where the function that makes it has a parameter ``num_envs``, in one
    environment of RLinf, and otherwise in an environment each."""
    draw_without_display()  # before anything of an environment is imported
    if settings["kind"] == RLINF:
        return RlinfRows(settings)
    if settings["kind"] == "gymnasium":
        function = find_function(*(settings[key] for key in ("make", "directory", "sources")))
        if function is not None and "num_envs" in inspect.signature(function).parameters:
            return VectorRows(settings)
    return Rows(settings)
