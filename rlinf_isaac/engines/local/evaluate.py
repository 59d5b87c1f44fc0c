"""Evaluation of one or several checkpoints in one warm vector environment.

Episode rows are durable (``episodes.jsonl``) before they are announced; rows that an interrupted evaluation left are
announced again and not repeated. A kill costs at most the episodes that were under way, one per slot.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rlinf_isaac.atomic import append_line, locked, read_lines, write_file
from rlinf_isaac.checkpoint.bundle import Bundle, read_bundle
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.digest import json_digest
from rlinf_isaac.engines.base import EvaluationJob
from rlinf_isaac.engines.local.policies import load_policy
from rlinf_isaac.envs import make_env
from rlinf_isaac.errors import InvalidJob, Problem
from rlinf_isaac.events import (
    EpisodeDone,
    EpisodeRow,
    EvaluationFinished,
    EvaluationStarted,
    Event,
    Progress,
    VideoSaved,
)
from rlinf_isaac.rollout import Episode, rollout
from rlinf_isaac.video import VideoWriter

# What must be equal between the environment of the training data and the one of the evaluation.
ENVIRONMENT_KEYS = ("task", "prompt", "renderer", "image_size", "control_hz")


def evaluate(job: EvaluationJob) -> Iterator[Event]:
    """Evaluate every bundle of the job on the same seeds; the environment is built once.

    Raises:
        InvalidJob: the environment is not the one the checkpoints were trained for (unless ``job.allow_mismatch``).
        BundleError: a bundle's bytes are not those of its manifest.
    """
    config = job.config
    if config.compute.threads:
        torch.set_num_threads(config.compute.threads)
    bundles = [read_bundle(path) for path in job.bundles]
    slots = min(config.eval.num_envs, config.eval.episodes)
    env = make_env(config.env, num_envs=slots)
    try:
        problems = environment_problems(bundles, env.identity.as_dict())
        if problems and not job.allow_mismatch:
            raise InvalidJob(problems)
        settings = evaluation_settings(config, env.identity.as_dict(), slots)
        root = job.output / json_digest(settings)[:12]
        root.mkdir(parents=True, exist_ok=True)
        write_file(root / "settings.json", json.dumps(settings, indent=2))
        for bundle in bundles:
            yield from _evaluate_bundle(bundle, config, env, root / f"{bundle.step}-{bundle.digest[:8]}")
    finally:
        env.close()


def evaluation_settings(config: JobConfig, environment: dict[str, Any], slots: int) -> dict[str, Any]:
    """Everything besides checkpoint and seed that an episode row depends on. More episodes reuse the rows there are."""
    return {
        "environment": environment,
        "num_envs": slots,
        "first_seed": config.eval.first_seed,
        "policy_seed": config.eval.policy_seed,
        "action_chunk": config.policy.action_chunk,
        "denoise_steps": config.policy.denoise_steps,
        "device": config.compute.device,
        "threads": config.compute.threads,
    }


def environment_problems(bundles: list[Bundle], environment: dict[str, Any]) -> list[Problem]:
    """How `environment` differs from what the bundles' training data came from."""
    problems = []
    for bundle in bundles:
        trained = bundle.config.get("env") or {}
        for key in ENVIRONMENT_KEYS:
            if key in trained and trained[key] != environment[key]:
                cause = f"{bundle.path} was trained with {key}={trained[key]!r}, now it is {environment[key]!r}"
                cure = f"set env.{key} accordingly, or pass --allow-mismatch (the run is tagged with it)"
                problems.append(Problem("env-mismatch", cause, cure))
    return problems


def _evaluate_bundle(bundle: Bundle, config: JobConfig, env: Any, directory: Path) -> Iterator[Event]:
    seeds = range(config.eval.first_seed, config.eval.first_seed + config.eval.episodes)
    rows_file = directory / "episodes.jsonl"
    (directory / "videos").mkdir(parents=True, exist_ok=True)
    with locked(directory):
        rows = {row.seed: row for row in map(_parse_row, read_lines(rows_file)) if row.seed in seeds}
        wanted = set(seeds[: config.eval.videos])
        filmed = {seed for seed, row in rows.items() if row.video and (directory / row.video).is_file()}
        finished = {seed for seed in rows if seed in filmed or seed not in wanted}
        yield EvaluationStarted(bundle.step, bundle.path, bundle.digest)
        for seed in sorted(finished):
            yield from _announce(rows[seed], directory)
        label = f"eval {bundle.step}"
        yield Progress(label, len(finished), len(seeds))
        if len(finished) < len(seeds):
            with ExitStack() as videos:
                writers: dict[int, VideoWriter] = {}

                def open_sink(seed: int) -> VideoWriter | None:
                    if seed not in wanted:
                        return None
                    name = f"episode_{seed - config.eval.first_seed:03d}.mp4"
                    writer = VideoWriter(directory / "videos" / name, fps=env.identity.control_hz)
                    writers[seed] = videos.enter_context(writer)
                    return writer

                successes = sum(rows[seed].success for seed in finished)
                episodes = rollout(
                    env,
                    load_policy(bundle, config),
                    seeds,
                    state_layout=config.policy.state_layout,
                    policy_seed=config.eval.policy_seed,
                    finished=finished,
                    open_sink=open_sink,
                    video_size=config.eval.video_size,
                )
                for count, episode in enumerate(episodes, start=len(finished) + 1):
                    row = _row(episode, bundle, config)
                    if writer := writers.get(episode.seed):
                        writer.close()
                        row = replace(row, video=f"videos/{writer.path.name}")
                    append_line(rows_file, json.dumps(row.as_dict()))
                    yield from _announce(row, directory)
                    successes += row.success
                    yield Progress(label, count, len(seeds), f"{successes} of {count} solved")
        yield EvaluationFinished(bundle.step, bundle.digest, directory)


def _row(episode: Episode, bundle: Bundle, config: JobConfig) -> EpisodeRow:
    assert episode.outcome is not None
    return EpisodeRow(
        checkpoint_step=bundle.step,
        checkpoint=bundle.digest,
        seed=episode.seed,
        env_index=episode.env_index,
        success=episode.outcome == "success",
        outcome=episode.outcome,
        length=episode.length,
        episode_return=episode.episode_return,
        policy_seed=config.eval.policy_seed,
        subtasks=dict(episode.subtasks),
    )


def _announce(row: EpisodeRow, directory: Path) -> Iterator[Event]:
    yield EpisodeDone(row)
    if row.video:
        yield VideoSaved(row.checkpoint_step, row.seed, directory / row.video, row.length + 1)


def _parse_row(line: str) -> EpisodeRow:
    return EpisodeRow.from_dict(json.loads(line))
