"""Records demonstrations of a scripted expert as a LeRobot v2.1 dataset.

The expert's clean action is recorded, but a noisy action is executed, so the data contain recoveries with clean labels
(DART, Laskey et al. 2017). Worker processes run whole episodes. The episodes and every byte of them depend on the job
and not on the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlinf_isaac.config import flatten
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.task import task_of
from rlinf_isaac.data.lerobot.files import MAX_JSON_BYTES
from rlinf_isaac.data.lerobot.format import Feature, image_feature, vector_feature
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.lerobot.writer import LeRobotWriter
from rlinf_isaac.envs import make_env
from rlinf_isaac.envs.vector import EnvIdentity, PolicyInput
from rlinf_isaac.ground.atomic import claimed
from rlinf_isaac.ground.child_process import follow_parent
from rlinf_isaac.ground.digest import json_digest
from rlinf_isaac.ground.errors import DatasetError, InvalidJob, RlinfIsaacError
from rlinf_isaac.ground.events import Event, Progress
from rlinf_isaac.ground.reading import read_json
from rlinf_isaac.media.png import encode_png
from rlinf_isaac.tasks.task import Task

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event as StopEvent

    from rlinf_isaac.envs.vector import TaskEnv

LABEL = "demonstrations"
NOISE_STREAM = 1  # makes the noise independent of the reset, which is drawn from the seed alone
MIN_FAILURES_TO_GIVE_UP = 20
SIDE_BY_SIDE = {"isaaclab": 8}
"""Backend -> number of environments of a worker; 1 for the others. An episode does not depend on its slot. In IsaacLab,
stepping several environments together costs less than stepping them one by one."""
SIDE_BY_SIDE_ON_GPU = 64


@dataclass(frozen=True)
class RecordedEpisode:
    """One episode returned by a worker. `columns` is None if the expert failed."""

    seed: int
    columns: dict[str, Any] | None


def record_demonstrations(job: JobConfig, root: Path, env_python: str | None = None) -> Iterator[Event]:
    """Record ``demos.episodes`` successful episodes, seeds from ``demos.first_seed`` on, into the dataset `root`.

    A seed on which the expert fails is skipped and listed in ``meta/provenance.json``. If the same job has recorded the
    dataset before, it is kept.

    Args:
        job: reads `task`, `env`, `demos`, ``policy.state_layout`` and ``compute.device``.
        root: the dataset's directory; appears when it is complete.
        env_python: interpreter that has the environment; None: the one that the task, or ISAACLAB_PYTHON, names.

    Yields:
        `Progress` after every episode.

    Raises:
        DatasetError: `root` contains other files or a damaged dataset; the message names the differences or the file.
            Nothing is ever overwritten.
        InvalidJob: the number of episodes or workers is below 1, or another process records into `root`.
        RlinfIsaacError: a worker died, or the expert fails on more than half of the seeds.
    """
    if job.demos.episodes < 1 or job.demos.workers < 1:
        raise InvalidJob.of(
            "no-demonstrations",
            f"demos.episodes is {job.demos.episodes}, demos.workers is {job.demos.workers}",
            "both must be at least 1",
        )
    root = Path(root)
    with claimed(root):
        yield from _record(job, root, env_python)


def _record(job: JobConfig, root: Path, env_python: str | None) -> Iterator[Event]:
    demos = job.demos
    env = make_env(job, 1, env_python)
    try:
        identity, task = env.identity, env.task
        env.reset(seed=[demos.first_seed])
        recipe = _recipe(job, identity, env.expert().version)
        features = _features(task, env.policy_input(env.observe()))
    finally:
        env.close()
    if root.exists():
        _check_same_recipe(root, recipe)
        LeRobotDataset(root)  # raises if a file is missing or damaged
        yield Progress(LABEL, demos.episodes, demos.episodes, f"kept: {root} was recorded by the same job", "ep")
        return
    # The renderer `auto` is resolved once, so that all workers use the same one.
    if not job.task:
        job = replace(job, env=replace(job.env, renderer=identity.renderer))
    seeds: list[int] = []
    failed: list[int] = []
    writer = LeRobotWriter(root, fps=task.control_hz, features=features, robot_type=task.robot)
    most = SIDE_BY_SIDE.get(job.env.backend, 1)
    if job.env.backend == "isaaclab" and job.compute.device.startswith("cuda"):
        most = SIDE_BY_SIDE_ON_GPU
    side_by_side = min(most, -(-demos.episodes // demos.workers))
    simulator = partial(make_env, job, side_by_side, env_python)
    play = partial(_start_worker, simulator, demos.noise)
    episodes = _episodes(play, demos.first_seed, demos.workers, side_by_side)
    with writer, closing(episodes):
        for episode in episodes:
            if episode.columns is None:
                failed.append(episode.seed)
                if len(failed) >= max(MIN_FAILURES_TO_GIVE_UP, demos.episodes):
                    raise RlinfIsaacError(
                        f"the expert failed on {len(failed)} of {len(failed) + len(seeds)} seeds; lower demos.noise "
                        f"({demos.noise}) or raise env.max_episode_steps ({job.env.max_episode_steps})"
                    )
            else:
                seeds.append(episode.seed)
                writer.add_episode(episode.columns, task.prompt(episode.seed))
            note = f"{len(failed)} seeds skipped: the expert failed" if failed else ""
            yield Progress(LABEL, len(seeds), demos.episodes, note, "ep")
            if len(seeds) == demos.episodes:
                break
        writer.extra = {**recipe, "recipe_digest": json_digest(recipe), "seeds": seeds, "failed_seeds": failed}


def record_episodes(
    env: TaskEnv,
    seeds: Sequence[int],
    noise: float,
    stopped: Callable[[], bool] = lambda: False,
) -> list[RecordedEpisode]:
    """Run the expert on these seeds, each seed in its own environment, until the last episode has ended.

    An observation is recorded before each action; images are encoded as PNG. If `stopped` returns True at a step, the
    running episodes end and count as failed.
    """
    task, count = env.task, len(seeds)
    assert task.expert is not None
    disturbed = task.action.dims if task.expert.noise_dims is None else task.expert.noise_dims
    rngs = [np.random.default_rng([seed, NOISE_STREAM]) for seed in seeds]
    names = [*(camera.dataset for camera in task.cameras.values()), task.state.dataset, task.action.dataset]
    columns: list[dict[str, list[Any]]] = [{name: [] for name in names} for _ in seeds]
    succeeded = np.zeros(count, bool)
    active = np.ones(count, bool)
    observation, _ = env.reset(seed=list(seeds))
    expert = env.expert()
    while active.any() and not stopped():
        seen, actions = env.policy_input(observation), expert.act(observation, active)
        executed = np.zeros((count, 1, task.action.dims), np.float32)
        for i in np.flatnonzero(active).tolist():
            for slot, camera in task.cameras.items():
                columns[i][camera.dataset].append(encode_png(seen.images[slot][i]))
            columns[i][task.state.dataset].append(seen.states[i])
            columns[i][task.action.dataset].append(actions[i].copy())
            executed[i, 0] = actions[i]
            executed[i, 0, :disturbed] += rngs[i].normal(0.0, noise, disturbed)
        step = env.chunk_step(executed, active)
        observation = step.observation
        succeeded |= active & step.success
        active &= ~(step.terminated | step.time_out)
    vectors = (task.state.dataset, task.action.dataset)
    return [
        RecordedEpisode(seed, {**each, **{name: np.stack(each[name]) for name in vectors}} if success else None)
        for seed, each, success in zip(seeds, columns, succeeded.tolist(), strict=True)
    ]


def _recipe(job: JobConfig, identity: EnvIdentity, expert: str) -> dict[str, Any]:
    """Everything that determines the content of the dataset."""
    state = {"task": task_of(job).digest} if job.task else {"state_layout": job.policy.state_layout}
    return {
        "kind": "scripted demonstrations",
        "env": identity.as_dict(),
        "expert": expert,
        "demos": {"episodes": job.demos.episodes, "first_seed": job.demos.first_seed, "noise": job.demos.noise},
        **state,
    }


def _check_same_recipe(root: Path, recipe: Mapping[str, Any]) -> None:
    path = root / "meta" / "provenance.json"
    try:
        recorded = read_json(path, MAX_JSON_BYTES)
        if not isinstance(recorded, dict):
            raise ValueError("no object")
    except (OSError, ValueError) as error:
        cause = f"{root} exists and was not recorded by this verb ({path.name}: {type(error).__name__})"
        raise DatasetError.of("output-exists", cause, "choose another output, or remove it") from error
    before, now = flatten({key: recorded.get(key) for key in recipe}), flatten(recipe)
    differences = [
        f"{key}: {before.get(key)!r} recorded, {now.get(key)!r} requested"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if differences:
        listed = "\n  ".join(differences)
        cause = f"{root} contains demonstrations of another job\n  {listed}"
        raise DatasetError.of("output-of-another-job", cause, "choose another output, or remove it")


def _features(task: Task, seen: PolicyInput) -> dict[str, Feature]:
    images = {camera.dataset: image_feature(*seen.images[slot].shape[1:3]) for slot, camera in task.cameras.items()}
    vectors = {each.dataset: vector_feature(each.labels) for each in (task.state, task.action)}
    return images | vectors


def _episodes(
    start_worker: Callable[[StopEvent], None], first_seed: int, workers: int, side_by_side: int
) -> Generator[RecordedEpisode]:
    """Yield the episodes of `first_seed`, `first_seed` + 1, ... in this order, without end.

    `workers` processes compute episodes in advance.
    """
    context = get_context("spawn")
    stop = context.Event()
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker, initargs=(stop,))
    pending: list[Future[list[RecordedEpisode]]] = []
    next_seed = first_seed
    try:
        while True:
            while len(pending) < 2 * workers:
                pending.append(executor.submit(_work, range(next_seed, next_seed + side_by_side)))
                next_seed += side_by_side
            yield from pending.pop(0).result()
    except BrokenProcessPool as error:
        raise RlinfIsaacError(
            "a worker process that records demonstrations died (killed, or out of memory); nothing was written. "
            "Run again, with a smaller demos.workers if memory is short"
        ) from error
    finally:
        stop.set()  # stop the running episodes; they can take a minute, and nobody needs them any more
        executor.shutdown(wait=True, cancel_futures=True)


_worker: tuple[TaskEnv, float, Callable[[], bool]] | None = None


def _start_worker(simulator: Callable[[], TaskEnv], noise: float, stop: StopEvent) -> None:
    global _worker
    follow_parent()  # it winds the pool up
    _worker = simulator(), noise, stop.is_set


def _work(seeds: range) -> list[RecordedEpisode]:
    assert _worker is not None
    env, noise, stopped = _worker
    return record_episodes(env, seeds, noise, stopped)
