"""Evaluates one or several checkpoints with one policy of this process, whose environments play side by side."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.config.task import task_of
from rlinf_isaac.engines.base import EvaluationJob
from rlinf_isaac.engines.evaluation import evaluate as evaluate_with
from rlinf_isaac.engines.policies import LastModel, compiles, load_policy
from rlinf_isaac.engines.rollout import Clock, rollout
from rlinf_isaac.engines.rollout.film import Film
from rlinf_isaac.engines.suite_evaluation import evaluate_suite
from rlinf_isaac.envs.lanes import Lanes, make_lanes
from rlinf_isaac.ground.events import EpisodeRow, Event, Metrics
from rlinf_isaac.media.video import VideoWriter


def evaluate(job: EvaluationJob) -> Iterator[Event]:
    """Evaluate every bundle of the job on the same seeds; the environments are created once.

    Raises:
        InvalidJob: the job differs from what the weights were trained with (unless ``job.allow_mismatch``).
    """
    config = job.config
    if config.compute.threads:
        torch.set_num_threads(config.compute.threads)
    if config.suite:
        yield from evaluate_suite(job, partial(LocalPlayer, last=LastModel()))
        return
    env = make_lanes(config, min(config.eval.num_envs, config.eval.episodes), job.env_python, job.varied)
    try:
        yield from evaluate_with(job, [LocalPlayer(job, env)])
    finally:
        env.close()


class LocalPlayer:
    """A `rlinf_isaac.engines.base.Player` that uses the environments of this process."""

    def __init__(self, job: EvaluationJob, env: Lanes, last: LastModel | None = None) -> None:
        self.identity: Mapping[str, Any] = env.identity.as_dict()
        self.slots = env.num_envs
        # What has its default is left out, so that rows of earlier releases are reused.
        self.settings: Mapping[str, Any] = {
            **({"compile": True} if compiles(job.config.compute) else {}),
            # The size of the policy's batches depends on it, and with that the rounding of its actions.
            **({"lanes": len(env.envs)} if len(env.envs) > 1 else {}),
        }
        self._job, self._env, self._last = job, env, last

    def play(
        self,
        bundle: Bundle,
        seeds: Sequence[int],
        finished: Collection[int],
        films: Mapping[int, Path],
        again: bool = False,
    ) -> Iterator[EpisodeRow | Event]:
        """See `Player.play`. Metrics of a GPU are yielded besides: ``time/warm_up``, in how many seconds the policy was
        compiled, and ``time/gpu_wait_share``, in which share of the time it waited for the environments."""
        config = self._job.config
        with ExitStack() as videos:
            opened: dict[int, Film] = {}

            def open_sink(seed: int) -> Film | None:
                if seed not in films:
                    return None
                writer = videos.enter_context(VideoWriter(films[seed], fps=self._env.identity.control_hz))
                return opened.setdefault(seed, Film(writer, seed, task_of(config)))

            policy, clock = load_policy(bundle, config, self._job.norm_stats, self._last), Clock()
            with closing(
                rollout(
                    self._env,
                    policy,
                    seeds,
                    policy_seed=config.eval.policy_seed,
                    finished=finished,
                    open_sink=open_sink,
                    video_size=config.eval.video_size if films else 0,
                    clock=clock,
                )
            ) as episodes:
                for count, episode in enumerate(episodes):
                    if policy.compiled and not count and not again:
                        yield Metrics(bundle.step, {"time/warm_up": policy.warmup_seconds})
                    if film := opened.pop(episode.seed, None):
                        film.close()
                    yield episode.row(bundle.step, bundle.digest, config.eval.policy_seed)
            if policy.device.type == "cuda" and not again:
                yield Metrics(bundle.step, {"time/gpu_wait_share": clock.wait_share})
