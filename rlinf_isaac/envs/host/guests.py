"""The workers of a `HostEnv`. An order is sent to all workers that it concerns before the first answer is awaited."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlinf_isaac.envs.host.crew import START_SECONDS, Crew
from rlinf_isaac.envs.host.process import SimulatorRefused
from rlinf_isaac.ground.errors import SimulatorError
from rlinf_isaac.tasks.task import Task

SERVER = Path(__file__).parent / "worker" / "server.py"


class Guests(Crew):
    """The worker processes of somebody's environment.

    Attributes:
        report: what the first one reports of its environment, as `worker.rows.Rows.report`.
        memory: descriptor of the memory that all share.
    """

    def __init__(
        self,
        python: str,
        task: Task,
        num_envs: int,
        workers: int | None = None,
        start_s: float = START_SECONDS,
        script: Path = SERVER,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """Start the workers, and wait until each has made its first environment.

        Args:
            python: the interpreter.
            task: what is played.
            num_envs: number of rows.
            workers: number of processes; None: as many as there are CPUs, but not more than rows.
            start_s: time limit for the start.
            script: what the processes run, which takes the orders of `worker.server`.
            more: further settings of it.

        Raises:
            SimulatorError: an environment cannot be made, or a file that it is in has changed.
            SimulatorDied: a worker has ended, or was not ready in time.
        """
        assert task.env is not None
        env, self._start_s, self._make = task.env, start_s, task.env.make
        self.memory = os.memfd_create("rlinf-isaac-env")
        settings: dict[str, Any] = {
            "memory": self.memory,
            "kind": env.kind,
            "make": env.make,
            "options": dict(env.options),
            "directory": env.directory,
            "sources": dict(env.sources),
            "success": env.success,
            "failure": env.failure,
            "dwell": env.dwell,
            "max_steps": env.max_steps,
            "action_dims": task.action.dims,
            "expert": task.expert.make if task.expert else None,
            **(more or {}),
        }
        name = f"The environment {env.make}"
        super().__init__(name, python, script, settings, num_envs, workers, [self.memory], start_s)
        self.report = self.reports[0]

    def build(self, action_dims: int) -> None:
        """Let the workers map the shared memory and make their other environments. Raises as the constructor."""
        values = {"num_envs": len(self.owner), "action_dims": action_dims, "leaves": self.report["leaves"]}
        self.carry_out("build", dict.fromkeys(range(len(self.processes)), values), self._start_s)

    def close(self) -> None:
        if not self.closed:
            os.close(self.memory)
        super().close()

    def _refused(self, refusal: SimulatorRefused) -> SimulatorError:
        if refusal.answer["refused"] == "changed":
            cause = f"{refusal.answer['error']} is not the file with which the task was read"
            return SimulatorError.of("env-source-changed", cause, "put it back, or read the task again with --task")
        if refusal.answer["refused"] == "autoreset":
            cure = "make it with autoreset_mode=gymnasium.vector.AutoresetMode.DISABLED, or make single environments"
            return SimulatorError.of("env-autoreset", f"{self._make}: {refusal.answer['error']}", cure)
        cause = f"{self._make} cannot be made: {refusal.answer['error']}"
        return SimulatorError.of("env-not-made", cause, f"correct it; all that it printed is in {refusal.log}")
