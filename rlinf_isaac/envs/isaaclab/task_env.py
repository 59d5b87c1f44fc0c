"""The vector environment for any task of IsaacLab, in the parent process."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rlinf_isaac.envs.host.env import HostEnv
from rlinf_isaac.envs.isaaclab.checks import check_lab
from rlinf_isaac.envs.vector import ChunkStep
from rlinf_isaac.ground.cache import cache_directory
from rlinf_isaac.ground.errors import Problem, SimulatorError
from rlinf_isaac.tasks.task import Task
from rlinf_isaac.tasks.terms import term_name

START_SECONDS = 3600.0
"""Time limit for the start, in which Warp compiles the kernels that are new on this machine."""


class LabEnv(HostEnv):
    """N rows of a task of IsaacLab in one process, on one device.

    IsaacLab steps all of them together. What is drawn at a reset depends on the row's seed alone.
    """

    script = Path(__file__).parent / "worker" / "server.py"

    def __init__(
        self,
        num_envs: int,
        task: Task,
        max_steps: int | None = None,
        env_python: str | None = None,
        device: str = "cpu",
        start_s: float = START_SECONDS,
        **settings: Any,
    ) -> None:
        """
        Args:
            num_envs, task, max_steps, env_python, start_s: as of `HostEnv`.
            device: torch device of physics and renderer: ``cpu``, ``cuda`` or ``cuda:<n>``.
            settings: further ones of the process.

        Raises:
            SimulatorError: as `HostEnv`; an option of the task is wrong; or it has no such term.
            SimulatorDied: IsaacLab did not start.
        """
        if problems := check_lab(task, env_python):
            raise SimulatorError(problems)
        self.settings = {"device": device, "cache": str(cache_directory("isaaclab")), **settings}
        super().__init__(num_envs, task, max_steps, env_python, workers=1, start_s=start_s)

    def chunk_step(
        self,
        actions: np.ndarray,
        active: np.ndarray,
        on_frame: Callable[[int, int], None] | None = None,
        images: bool = True,
    ) -> ChunkStep:
        """See `HostEnv.chunk_step`. Rows that are not active are stepped, too, and must be reset before they go on."""
        chunk = super().chunk_step(actions, active, on_frame, images)
        if chunk.steps.any():
            self._done[~np.asarray(active)] = True
        return chunk

    def check_terms(self, task: Task) -> list[Problem]:
        assert task.env is not None
        known = self.report["terms"]
        terms = {"env.success": task.env.success, "env.failure": task.env.failure}
        return [
            _no_such_term(place, term, known)
            for place, term in terms.items()
            if term and term.startswith(("term:", "info.")) and term_name(term) not in known
        ]


def _no_such_term(place: str, term: str, known: list[str]) -> Problem:
    near = difflib.get_close_matches(term, known, n=1)
    cause = f"{place} is {term}; IsaacLab's task has {', '.join(known) or 'no termination terms'}"
    cure = f"did you mean {near[0]}? " if near else ""
    return Problem("no-such-term", cause, f"{cure}name one of these, or add one in env.options.terminations")
