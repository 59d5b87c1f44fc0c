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
from rlinf_isaac.data.lerobot.files import MAX_JSON_BYTES
from rlinf_isaac.data.lerobot.format import (
    ACTION,
    FRONT_IMAGE,
    STATE,
    WRIST_IMAGE,
    Feature,
    image_feature,
    vector_feature,
)
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.lerobot.writer import LeRobotWriter
from rlinf_isaac.envs import make_env
from rlinf_isaac.envs.stack_cube import contract
from rlinf_isaac.ground.atomic import claimed
from rlinf_isaac.ground.child_process import follow_parent
from rlinf_isaac.ground.digest import json_digest
from rlinf_isaac.ground.errors import DatasetError, InvalidJob, RlinfIsaacError
from rlinf_isaac.ground.events import Event, Progress
from rlinf_isaac.ground.reading import read_json
from rlinf_isaac.media.png import encode_png

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event as StopEvent

    from rlinf_isaac.envs.stack_cube.vector import StackCubeEnv

LABEL = "demonstrations"
ROBOT_TYPE = "franka"
NOISE_STREAM = 1  # makes the noise independent of the reset, which is drawn from the seed alone
MIN_FAILURES_TO_GIVE_UP = 20
SIDE_BY_SIDE = {"mujoco": 1, "isaaclab": 8}
"""Backend -> number of environments of a worker. An episode does not depend on its slot. In IsaacLab, stepping several
environments together costs less than stepping them one by one."""
SIDE_BY_SIDE_ON_GPU = 64


@dataclass(frozen=True)
class RecordedEpisode:
    """One episode returned by a worker. `columns` is None if the expert failed."""

    seed: int
    columns: dict[str, Any] | None


def record_demonstrations(job: JobConfig, root: Path, isaaclab_python: str | None = None) -> Iterator[Event]:
    """Record ``demos.episodes`` successful episodes, seeds from ``demos.first_seed`` on, into the dataset `root`.

    A seed on which the expert fails is skipped and listed in ``meta/provenance.json``. If the same job has recorded the
    dataset before, it is kept.

    Args:
        job: reads `env`, `demos`, ``policy.state_layout`` and ``compute.device``.
        root: the dataset's directory; appears when it is complete.
        isaaclab_python: interpreter that has IsaacLab; None: the one that ISAACLAB_PYTHON names.

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
        yield from _record(job, root, isaaclab_python)


def _record(job: JobConfig, root: Path, isaaclab_python: str | None) -> Iterator[Event]:
    demos = job.demos
    device = job.compute.device if job.env.backend == "isaaclab" else "cpu"
    env = make_env(job.env, 1, device, isaaclab_python)
    identity, num_cubes = env.identity, env.task.num_cubes
    env.close()
    recipe = _recipe(job, identity)
    if root.exists():
        _check_same_recipe(root, recipe)
        LeRobotDataset(root)  # raises if a file is missing or damaged
        yield Progress(LABEL, demos.episodes, demos.episodes, f"kept: {root} was recorded by the same job")
        return
    # The renderer `auto` is resolved once, so that all workers use the same one.
    env_config = replace(job.env, renderer=identity.renderer)
    features = _features(identity.image_size, job.policy.state_layout, num_cubes)
    seeds: list[int] = []
    failed: list[int] = []
    writer = LeRobotWriter(root, fps=contract.CONTROL_HZ, features=features, robot_type=ROBOT_TYPE)
    most = SIDE_BY_SIDE[job.env.backend]
    if device.startswith("cuda"):
        most = SIDE_BY_SIDE_ON_GPU
    side_by_side = min(most, -(-demos.episodes // demos.workers))
    simulator = partial(make_env, env_config, side_by_side, device, isaaclab_python)
    play = partial(_start_worker, simulator, job.policy.state_layout, demos.noise)
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
                writer.add_episode(episode.columns, identity.prompt)
            note = f"{len(failed)} seeds skipped: the expert failed" if failed else ""
            yield Progress(LABEL, len(seeds), demos.episodes, note)
            if len(seeds) == demos.episodes:
                break
        writer.extra = {**recipe, "recipe_digest": json_digest(recipe), "seeds": seeds, "failed_seeds": failed}


def record_episodes(
    env: StackCubeEnv,
    seeds: Sequence[int],
    noise: float,
    state_layout: str,
    stopped: Callable[[], bool] = lambda: False,
) -> list[RecordedEpisode]:
    """Run the expert on these seeds, each seed in its own environment, until the last episode has ended.

    An observation is recorded before each action; images are encoded as PNG. If `stopped` returns True at a step, the
    running episodes end and count as failed.
    """
    from rlinf_isaac.envs.stack_cube.expert import ScriptedExpert

    rngs = [np.random.default_rng([seed, NOISE_STREAM]) for seed in seeds]
    experts = [ScriptedExpert() for _ in seeds]
    columns: list[dict[str, list[Any]]] = [{FRONT_IMAGE: [], WRIST_IMAGE: [], STATE: [], ACTION: []} for _ in seeds]
    succeeded = np.zeros(len(seeds), bool)
    active = np.ones(len(seeds), bool)
    observation, _ = env.reset(seed=list(seeds))
    while active.any() and not stopped():
        policy_obs = observation["policy"]
        images, states = contract.policy_images(policy_obs), contract.policy_state(policy_obs, state_layout)
        executed = np.zeros((len(seeds), 1, contract.ACTION_DIM), np.float32)
        for i in np.flatnonzero(active).tolist():
            action = experts[i].act(policy_obs, i)
            columns[i][FRONT_IMAGE].append(encode_png(images["front"][i]))
            columns[i][WRIST_IMAGE].append(encode_png(images["wrist"][i]))
            columns[i][STATE].append(states[i])
            columns[i][ACTION].append(action)
            executed[i, 0] = action
            executed[i, 0, : contract.MOTION_DIMS] += rngs[i].normal(0.0, noise, contract.MOTION_DIMS)
        step = env.chunk_step(executed, active)
        observation = step.observation
        succeeded |= active & step.success
        active &= ~(step.success | step.dropped | step.time_out)
    return [
        RecordedEpisode(seed, {**each, **{name: np.stack(each[name]) for name in (STATE, ACTION)}} if success else None)
        for seed, each, success in zip(seeds, columns, succeeded.tolist(), strict=True)
    ]


def _recipe(job: JobConfig, identity: contract.EnvIdentity) -> dict[str, Any]:
    """Everything that determines the content of the dataset."""
    from rlinf_isaac.envs.stack_cube.expert import EXPERT_VERSION

    return {
        "kind": "scripted demonstrations",
        "env": identity.as_dict(),
        "expert": EXPERT_VERSION,
        "demos": {"episodes": job.demos.episodes, "first_seed": job.demos.first_seed, "noise": job.demos.noise},
        "state_layout": job.policy.state_layout,
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


def _features(image_size: int, state_layout: str, num_cubes: int) -> dict[str, Feature]:
    return {
        FRONT_IMAGE: image_feature(image_size, image_size),
        WRIST_IMAGE: image_feature(image_size, image_size),
        STATE: vector_feature(contract.state_names(state_layout, num_cubes)),
        ACTION: vector_feature(contract.ACTION_NAMES),
    }


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


_worker: tuple[StackCubeEnv, str, float, Callable[[], bool]] | None = None


def _start_worker(simulator: Callable[[], StackCubeEnv], state_layout: str, noise: float, stop: StopEvent) -> None:
    global _worker
    follow_parent()  # it winds the pool up
    _worker = simulator(), state_layout, noise, stop.is_set


def _work(seeds: range) -> list[RecordedEpisode]:
    assert _worker is not None
    env, state_layout, noise, stopped = _worker
    return record_episodes(env, seeds, noise, state_layout, stopped)
