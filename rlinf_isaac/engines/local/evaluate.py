"""Evaluates one or several checkpoints in one vector environment of this process."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.engines.base import EvaluationJob
from rlinf_isaac.engines.evaluation import evaluate as evaluate_with
from rlinf_isaac.engines.policies import LastModel, compiles, load_policy
from rlinf_isaac.engines.rollout import rollout
from rlinf_isaac.engines.suite_evaluation import evaluate_suite
from rlinf_isaac.envs import make_env
from rlinf_isaac.envs.vector import TaskEnv
from rlinf_isaac.ground.events import EpisodeRow, Event, Metrics
from rlinf_isaac.media.video import VideoWriter


def evaluate(job: EvaluationJob) -> Iterator[Event]:
    """Evaluate every bundle of the job on the same seeds; the environment is created once.

    Raises:
        InvalidJob: the job differs from what the weights were trained with (unless ``job.allow_mismatch``).
    """
    config = job.config
    if config.compute.threads:
        torch.set_num_threads(config.compute.threads)
    if config.suite:
        yield from evaluate_suite(job, partial(LocalPlayer, last=LastModel()))
        return
    env = make_env(config, min(config.eval.num_envs, config.eval.episodes), job.env_python)
    try:
        yield from evaluate_with(job, [LocalPlayer(job, env)])
    finally:
        env.close()


class LocalPlayer:
    """A `rlinf_isaac.engines.evaluation.Player` that uses a vector environment of this process."""

    def __init__(self, job: EvaluationJob, env: TaskEnv, last: LastModel | None = None) -> None:
        self.identity: Mapping[str, Any] = env.identity.as_dict()
        self.slots = env.num_envs
        self.settings: Mapping[str, Any] = {"compile": True} if compiles(job.config.compute) else {}
        self._job, self._env, self._last = job, env, last

    def play(
        self, bundle: Bundle, seeds: Sequence[int], finished: Collection[int], films: Mapping[int, Path]
    ) -> Iterator[EpisodeRow | Event]:
        """See `Player.play`. The compile time of the policy in seconds is yielded as the metric ``time/warm_up``."""
        config = self._job.config
        with ExitStack() as videos:
            writers: dict[int, VideoWriter] = {}

            def open_sink(seed: int) -> VideoWriter | None:
                if seed not in films:
                    return None
                writer = VideoWriter(films[seed], fps=self._env.identity.control_hz)
                writers[seed] = videos.enter_context(writer)
                return writer

            policy = load_policy(bundle, config, self._job.norm_stats, self._last)
            episodes = rollout(
                self._env,
                policy,
                seeds,
                policy_seed=config.eval.policy_seed,
                finished=finished,
                open_sink=open_sink,
                video_size=config.eval.video_size if films else 0,
            )
            for count, episode in enumerate(episodes):
                if policy.compiled and not count:
                    yield Metrics(bundle.step, {"time/warm_up": policy.warmup_seconds})
                if writer := writers.get(episode.seed):
                    writer.close()
                yield episode.row(bundle.step, bundle.digest, config.eval.policy_seed)
