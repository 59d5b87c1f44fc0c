"""Simulator processes that share the rows of one environment: every order goes to all whom it concerns before any
answer is awaited."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlinf_isaac.envs.host.process import SimulatorProcess, SimulatorRefused
from rlinf_isaac.ground.errors import SimulatorError

START_SECONDS = 900.0
"""Time limit for the start. An environment may compile kernels, or fetch its scene, when it is made first."""
ORDER_SECONDS = 300.0
"""Time limit for an order to all rows of a worker, as a reset."""
STEP_SECONDS = 60.0
"""What each further control step of all rows of a worker may add to it."""


class Crew:
    """Worker processes, each with a share of the rows. One that fails ends all of them.

    Attributes:
        owner: (N,) index of the worker that has a row.
        processes: the workers.
        reports: what each has answered when it was ready.
    """

    def __init__(
        self,
        name: str,
        python: str,
        script: Path,
        settings: Mapping[str, Any],
        num_envs: int,
        workers: int | None = None,
        shared: Sequence[int] = (),
        start_s: float = START_SECONDS,
        logs: str = "host",
    ) -> None:
        """Start the workers, and wait until each takes orders.

        Args:
            name: what a worker is called in messages.
            python: its interpreter.
            script: what it runs.
            settings: of the script, which gets the indices of its rows besides, under the key ``rows``.
            num_envs: number of rows.
            workers: number of processes; None: as many as there are CPUs, but not more than rows.
            shared: file descriptors that they inherit.
            start_s: time limit for the start.
            logs: part of the cache in which their output is kept if they fail.

        Raises:
            SimulatorError: a worker refuses its settings.
            SimulatorDied: a worker has ended, or was not ready in time.
        """
        self.closed = False
        shares = np.array_split(np.arange(num_envs), min(num_envs, workers or cpu_count()))
        self.owner = np.concatenate([np.full(len(share), index) for index, share in enumerate(shares)])
        self.processes: list[SimulatorProcess] = []
        try:
            for share in shares:
                own = {**settings, "rows": share.tolist()}
                self.processes.append(SimulatorProcess(name, python, script, own, shared, logs))
            self.reports = self._finish("start", range(len(shares)), start_s)
        except BaseException:
            self.close()
            raise

    def order(self, do: str, rows: np.ndarray, steps: int = 0, **values: Any) -> list[dict[str, Any]]:
        """Send an order to the workers that have any of the `rows` (N,), and wait for all of them.

        Args:
            do: the order.
            rows: (N,) bool.
            steps: how many control steps it takes.
            values: what the order says to each of them.

        Returns:
            The answers.

        Raises:
            SimulatorDied: a worker has ended, failed, or did not finish in time. All of them are ended.
        """
        concerned = dict.fromkeys(np.unique(self.owner[rows]).tolist(), values)
        return list(self.carry_out(do, concerned, ORDER_SECONDS + steps * STEP_SECONDS).values())

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
        answers = self.carry_out(do, shares)
        return {
            row: {name: entries[k] for name, entries in answers[worker].items()}
            for worker, share in shares.items()
            for k, row in enumerate(share["rows"])
        }

    def carry_out(
        self, do: str, values: Mapping[int, Mapping[str, Any]], timeout_s: float = ORDER_SECONDS
    ) -> dict[int, dict[str, Any]]:
        """Send an order to each of these workers with its values; returns worker -> answer. Raises as `order`."""
        for worker, each in values.items():
            self.processes[worker].begin(do, **each)
        return dict(zip(values, self._finish(do, values, timeout_s), strict=True))

    def close(self) -> None:
        """End all workers. Calling this twice is allowed."""
        self.closed = True
        for process in self.processes:
            process.ask_to_close()
        for process in self.processes:
            process.close()

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
        """What a worker's refusal means."""
        cause = f"{self.processes[0].name} cannot be made: {refusal.answer['error']}"
        return SimulatorError.of("env-not-made", cause, f"correct it; all that it printed is in {refusal.log}")


def cpu_count() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0))
