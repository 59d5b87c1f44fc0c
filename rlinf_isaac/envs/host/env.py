"""The vector environment for anybody's environments, in the parent process."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from rlinf_isaac.envs.host.crew import START_SECONDS
from rlinf_isaac.envs.host.expert import HostExpert
from rlinf_isaac.envs.host.guests import SERVER, Guests
from rlinf_isaac.envs.host.interpreter import find_python
from rlinf_isaac.envs.host.protocol import BLOCK, Leaf, SharedArrays
from rlinf_isaac.envs.host.spec import check_report, nested, observation_space
from rlinf_isaac.envs.stack_cube.backends import check_sizes
from rlinf_isaac.envs.vector import ChunkStep, EnvIdentity, ExpertPolicy, Observation, TaskEnv, checked_actions, indices
from rlinf_isaac.ground.errors import Problem, SimulatorError
from rlinf_isaac.tasks.paths import read_path
from rlinf_isaac.tasks.task import Task

ENDED = "terminated"
"""The outcome of an episode that the environment itself has ended, without success or failure by the task's terms."""


class HostEnv(TaskEnv):
    """N single environments of a task, in worker processes.

    An episode ends with the first of these, in this order within a step:

    * the success term has held for ``env.dwell`` steps in a row: success;
    * the failure term holds: ``failure``;
    * the environment itself says ``terminated``: `ENDED`. So one that ends before its success has held long
      enough has not been solved;
    * it says ``truncated``, or `max_steps` are over: time-out.

    Attributes:
        guests: the workers.
        report: what a worker reported of the environment, as `worker.rows.Rows.report`.
        script: what the workers run.
        settings: further settings of it.
    """

    script: Path = SERVER
    settings: Mapping[str, Any] = MappingProxyType({})

    def __init__(
        self,
        num_envs: int,
        task: Task,
        max_steps: int | None = None,
        env_python: str | None = None,
        workers: int | None = None,
        start_s: float = START_SECONDS,
    ) -> None:
        """
        Args:
            num_envs: number of environments.
            task: what is played; it has an `env`.
            max_steps: control steps until time-out; None: those of the task.
            env_python: interpreter that has the environment; None: that of the task, or else this process's own.
            workers: number of processes; None: as many as there are CPUs, but not more than environments.
            start_s: time limit for the start.

        Raises:
            SimulatorError: there is no such interpreter, the environment cannot be made, or it is not as the task says.
            SimulatorDied: a worker did not start.
        """
        assert task.env is not None
        max_steps = max_steps or task.env.max_steps
        if problems := check_sizes(num_envs, 1, max_steps):
            raise SimulatorError(problems)
        python = find_python(task, env_python)
        # RLinf's environments have processes of their own, and ask for the length of an episode.
        self.together = not task.env.seeded
        workers = 1 if self.together else workers
        played = replace(task, env=replace(task.env, max_steps=max_steps))
        self.guests = Guests(python, played, num_envs, workers, start_s, self.script, self.settings)
        try:
            self.report = self.guests.report
            leaves = {path: Leaf(tuple(shape), *rest) for path, (shape, *rest) in self.report["leaves"].items()}
            if problems := check_report(task, leaves, self.report) + self.check_terms(task):
                raise SimulatorError(problems)
            self.guests.build(task.action.dims)
            self._shared = SharedArrays(self.guests.memory, num_envs, task.action.dims, leaves)
        except BaseException:
            self.guests.close()
            raise
        super().__init__(num_envs, task, observation_space(leaves))
        low, high = self.report["action"]["bounds"]
        self.action_range, self.rates = (np.array(low), np.array(high)), self.report["rates"]
        # Images are what is drawn only when asked for, or else what the task calls a camera.
        drawn = {path for path, leaf in leaves.items() if leaf.rendered}
        self._drawn, self._images = bool(drawn), drawn or {str(camera.env) for camera in task.cameras.values()}
        self.identity = self._identity(max_steps)
        self._stale, self._success, self._time_out = np.zeros((3, num_envs), bool)
        self._failures = {name: np.zeros(num_envs, bool) for name in (*task.failures, ENDED)}
        self._numbers: list[dict[str, float]] = [{} for _ in range(num_envs)]
        self._said: list[str | None] = [None] * num_envs

    def chunk_step(
        self,
        actions: np.ndarray,
        active: np.ndarray,
        on_frame: Callable[[int, int], None] | None = None,
        images: bool = True,
    ) -> ChunkStep:
        """See `TaskEnv.chunk_step`.

        Raises:
            SimulatorError: an episode has ended, and `info` never had what the success term reads.
            SimulatorDied: a worker has ended, failed, or did not finish in time.
        """
        actions, active = checked_actions(actions, active, self._done, self.task.action.dims)
        if self.task.action.clip:
            actions = np.clip(actions, *self.task.action.clip)
        horizon = actions.shape[1]
        rewards = np.zeros((self.num_envs, horizon), np.float32)
        steps = np.zeros(self.num_envs, np.int64)
        # Rows take whole blocks of steps by themselves, except where somebody wants to look after each.
        block, alive = BLOCK if on_frame is None else 1, active.copy()
        for t in range(0, horizon, block):
            if not alive.any():
                break
            seen = images or on_frame is not None
            self._play(actions[:, t : t + block], alive, rewards[:, t : t + block], steps, seen)
            if on_frame is not None:
                for i in indices(alive):
                    on_frame(i, t)
            alive &= ~self._done
        names = sorted({name for numbers in self._numbers for name in numbers})
        return ChunkStep(
            self.observe(images),
            rewards,
            steps,
            self._success.copy(),
            self._time_out.copy(),
            {name: flags.copy() for name, flags in self._failures.items()},
            extras={name: np.array([each.get(name, np.nan) for each in self._numbers]) for name in names},
        )

    def observe(self, images: bool = True) -> Observation:
        if images:
            self._draw(self._stale)
        return nested(
            {
                path: array.copy()
                for path, array in self._shared.observation.items()
                if images or path not in self._images
            }
        )

    def render_frame(self, env_index: int, size: int) -> np.ndarray:
        """A frame for a video: (size, cameras x size, 3) uint8, the task's cameras side by side."""
        self._draw(self._stale & (np.arange(self.num_envs) == env_index))
        observation = nested({path: array[env_index] for path, array in self._shared.observation.items()})
        images = [read_path(observation, str(camera.env)) for camera in self.task.cameras.values()]
        frames = [Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC) for image in images]
        return np.concatenate([np.asarray(frame) for frame in frames], axis=1)

    def prompts(self) -> list[str]:
        """The instruction of each env's episode: that of the task, or the one that the environment itself gives."""
        own = super().prompts()
        return own if self.task.prompts else [said or prompt for said, prompt in zip(self._said, own, strict=True)]

    def expert(self) -> ExpertPolicy:
        """The task's expert: a new one for each row, of the episode that it plays now. Its version is that of the
        environment's package, or the digest of its file."""
        assert self.task.env is not None
        if self.task.expert is None:
            cause = f"the task {self.task.name} has no expert"
            raise SimulatorError.of("no-expert", cause, "name one in its description; docs/tasks.md says how")
        rows = [i for i, seed in enumerate(self.seeds) if seed is not None]
        self._about("expert", rows, seeds=[self.seeds[i] for i in rows])
        make = self.task.expert.make
        digest = self.task.env.sources.get(make.rpartition(":")[0])
        return HostExpert(f"{make}-{digest[:8] if digest else self.report['provider'][1]}", self._act)

    def check_terms(self, task: Task) -> list[Problem]:
        """What is wrong with the task's terms, where the environment says beforehand which it has."""
        return []

    def close_extras(self, **kwargs: Any) -> None:
        if hasattr(self, "guests"):  # a VectorEnv of gymnasium 0.29 closes itself, even one that was never made
            self.guests.close()

    def _start(self, seeds: Mapping[int, int]) -> None:
        for row, answer in self._about("reset", list(seeds), seeds=list(seeds.values())).items():
            self._said[row] = answer.get("prompts")
        self._stale[list(seeds)] = True

    def _clear(self, rows: np.ndarray) -> None:
        for flags in (self._success, self._time_out, *self._failures.values()):
            flags[rows] = False
        for i in indices(rows):
            self._numbers[i] = {}

    def _info(self) -> dict[str, np.ndarray]:
        flags = {"success": self._success, **self._failures, "time_out": self._time_out}
        return {name: each.copy() for name, each in flags.items()}

    def _play(
        self, actions: np.ndarray, alive: np.ndarray, rewards: np.ndarray, steps: np.ndarray, images: bool
    ) -> None:
        """Up to T control steps of the rows that are `alive` (N,).

        Args:
            actions: (N, T, A); T is at most `BLOCK`.
            alive: (N,) bool.
            rewards: (N, T), which is filled in.
            steps: (N,), to which the steps taken are added.
            images: whether the images of the last observations may be asked for.
        """
        shared, count = self._shared, actions.shape[1]
        shared.actions[alive, :count], shared.active[:] = actions[alive], alive
        shared.limits[:] = np.minimum(count, self.identity.max_episode_steps - self.elapsed)
        self._check_open()
        for answer in self.guests.order("step", alive, count, images=images):
            for row, numbers in zip(answer["rows"], answer["numbers"], strict=True):
                self._numbers[row] = numbers
        rewards[alive] = shared.rewards[alive, :count]
        for counts in (steps, self.elapsed):
            counts[alive] += shared.steps[alive]
        self._stale |= alive
        self._judge(alive)

    def _judge(self, rows: np.ndarray) -> None:
        """Note which of the rows (N,) that were stepped have ended, and how."""
        shared = self._shared
        running = rows.copy()
        limit = shared.truncated | (self.elapsed >= self.identity.max_episode_steps)
        failures = {"failure": shared.failure, ENDED: shared.terminated}
        for flags, now in (
            (self._success, shared.success),
            *((each, failures[name]) for name, each in self._failures.items()),
            (self._time_out, limit),
        ):
            flags |= running & now
            running &= ~now
        ended = rows & ~running
        self._done |= ended
        if (unknown := indices(ended & ~shared.judged)) and self.task.env is not None:
            keys = self._about("keys", unknown[:1])[unknown[0]]["keys"]
            cause = f"an episode of {self.task.name} has ended, and info never had what {self.task.env.success} reads"
            cure = f"name in env.success what it has: {', '.join(keys) or 'nothing'}; or reward>=..., or terminated"
            raise SimulatorError.of("no-such-term", cause, cure)

    def _draw(self, rows: np.ndarray) -> None:
        """Let the images of these rows (N,) be drawn, in an environment that does so when asked."""
        if self._drawn and rows.any():
            self._about("images", indices(rows))
        self._stale &= ~rows

    def _act(self, active: np.ndarray) -> np.ndarray:
        self._shared.active[:] = active
        self._check_open()
        self.guests.order("act", active)
        return self._shared.actions[:, 0].copy()

    def _about(self, do: str, rows: list[int], **lists: list[Any]) -> dict[int, dict[str, Any]]:
        self._check_open()
        return self.guests.order_rows(do, rows, **lists)

    def _check_open(self) -> None:
        if self.closed:
            raise SimulatorError.of("env-closed", "the environment is closed", "make a new one")

    def _identity(self, max_steps: int) -> EnvIdentity:
        task, (name, version) = self.task, self.report["provider"]
        assert task.env is not None
        content = {"task": task.digest, "provider": [name, version], "versions": self.report["versions"]}
        content |= {key: self.report[key] for key in ("assets",) if key in self.report}
        observation = nested(self._shared.observation)
        shapes = {
            camera.dataset.rpartition(".")[2]: read_path(observation, str(camera.env)).shape[1:3]
            for camera in task.cameras.values()
        }
        size = next(iter(shapes.values()), (0, 0))[0]
        return EnvIdentity(
            backend=self.report.get("backend") or f"{task.env.kind}-{name}-{version}",
            task=task.name,
            prompt=task.prompts[0] if task.prompts else "",
            renderer=self.report.get("renderer") or "own",
            image_size=size,
            control_hz=task.control_hz,
            max_episode_steps=max_steps,
            assets=sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
            seeded=task.env.seeded,
            image_shapes={view: shape for view, shape in shapes.items() if shape != (size, size)},
        )
