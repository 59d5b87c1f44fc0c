"""The workers of a `HostEnv`: every order goes to all whom it concerns before any answer is awaited."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlinf_isaac.envs.host.process import SimulatorProcess, SimulatorRefused
from rlinf_isaac.ground.errors import SimulatorError
from rlinf_isaac.tasks.task import Task

START_SECONDS = 900.0
"""Time limit for the start. An environment may compile kernels, or fetch its scene, when it is made first."""
ORDER_SECONDS = 300.0
"""Time limit for an order to all rows of a worker, as a reset."""
STEP_SECONDS = 60.0
"""What each further control step of all rows of a worker may add to it."""
SERVER = Path(__file__).parent / "worker" / "server.py"


class Guests:
    """Worker processes, each with a share of the rows.

    Attributes:
        report: what the first one reports of its environment, as `worker.rows.Rows.report`.
        owner: (N,) index of the worker that has a row.
        memory: descriptor of the memory that all share.
        processes: the workers.
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
        env, self._start_s, self._make, self.closed = task.env, start_s, task.env.make, False
        shares = np.array_split(np.arange(num_envs), min(num_envs, workers or cpu_count()))
        self.owner = np.concatenate([np.full(len(share), index) for index, share in enumerate(shares)])
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
            "expert": task.expert.make if task.expert else None,
            **(more or {}),
        }
        self.processes: list[SimulatorProcess] = []
        try:
            for share in shares:
                own = settings | {"rows": share.tolist()}
                process = SimulatorProcess(f"The environment {env.make}", python, script, own, [self.memory], "host")
                self.processes.append(process)
            self.report = self._finish("start", range(len(shares)), start_s)[0]
        except BaseException:
            self.close()
            raise

    def build(self, action_dims: int) -> None:
        """Let the workers map the shared memory and make their other environments. Raises as the constructor."""
        values = {"num_envs": len(self.owner), "action_dims": action_dims, "leaves": self.report["leaves"]}
        self._carry_out("build", dict.fromkeys(range(len(self.processes)), values), self._start_s)

    def order(self, do: str, rows: np.ndarray, steps: int = 0, **values: Any) -> list[dict[str, Any]]:
        """Send an order to the workers that have any of the `rows` (N,), and wait for all of them.

        Args:
            do: the order.
            rows: (N,) bool.
            steps: how many control steps it takes.
            values: what else it says.

        Returns:
            The answers.

        Raises:
            SimulatorDied: a worker has ended, failed, or did not finish in time. All of them are ended.
        """
        concerned: dict[int, dict[str, Any]] = {worker: values for worker in np.unique(self.owner[rows]).tolist()}
        return list(self._carry_out(do, concerned, ORDER_SECONDS + steps * STEP_SECONDS).values())

    def order_rows(self, do: str, rows: Sequence[int], **lists: Sequence[Any]) -> dict[int, dict[str, Any]]:
        """An order about a list of rows, and of lists with an entry for each.

        Returns:
            Row -> its entries of the lists in the answer.

        Raises:
            SimulatorDied: as `order`.
        """
        places: dict[int, list[int]] = {}
        for place, row in enumerate(rows):
            places.setdefault(int(self.owner[row]), []).append(place)
        shares = {
            worker: {name: [entries[place] for place in those] for name, entries in {"rows": rows, **lists}.items()}
            for worker, those in places.items()
        }
        answers = self._carry_out(do, shares)
        return {
            row: {name: entries[k] for name, entries in answers[worker].items()}
            for worker, share in shares.items()
            for k, row in enumerate(share["rows"])
        }

    def close(self) -> None:
        """End all workers. Calling this twice is allowed."""
        if not self.closed:
            os.close(self.memory)
        self.closed = True
        for process in self.processes:
            process.ask_to_close()
        for process in self.processes:
            process.close()

    def _carry_out(
        self, do: str, values: Mapping[int, Mapping[str, Any]], timeout_s: float = ORDER_SECONDS
    ) -> dict[int, dict[str, Any]]:
        """Send an order to each of these workers with its values; returns worker -> answer."""
        for worker, each in values.items():
            self.processes[worker].begin(do, **each)
        return dict(zip(values, self._finish(do, values, timeout_s), strict=True))

    def _finish(self, do: str, workers: Iterable[int], timeout_s: float) -> list[dict[str, Any]]:
        answers = []
        try:
            for worker in workers:
                answer = self.processes[worker].finish(do, timeout_s)
                answers.append({name: value for name, value in answer.items() if name != "ok"})
        except SimulatorRefused as refusal:
            self._kill()
            raise self._refused(refusal) from refusal
        except BaseException:
            self._kill()
            raise
        return answers

    def _kill(self) -> None:
        """End the workers without waiting: they may be in the middle of a step that is of no use any more."""
        for process in self.processes:
            process.child.kill()

    def _refused(self, refusal: SimulatorRefused) -> SimulatorError:
        if refusal.answer["refused"] == "changed":
            cause = f"{refusal.answer['error']} is not the file with which the task was read"
            return SimulatorError.of("env-source-changed", cause, "put it back, or read the task again with --task")
        if refusal.answer["refused"] == "autoreset":
            cure = "make it with autoreset_mode=gymnasium.vector.AutoresetMode.DISABLED, or make single environments"
            return SimulatorError.of("env-autoreset", f"{self._make}: {refusal.answer['error']}", cure)
        cause = f"{self._make} cannot be made: {refusal.answer['error']}"
        return SimulatorError.of("env-not-made", cause, f"correct it; all that it printed is in {refusal.log}")


def cpu_count() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0))
