"""Evaluation of one or several checkpoints in one warm vector environment.

Episode rows are durable (``episodes.jsonl``) before they are announced; rows that an interrupted evaluation left are
announced again and not repeated. A kill costs at most the episodes that were under way, one per slot.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from rlinf_isaac.atomic import append_line, locked, read_lines, write_file
from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.trained_with import mismatches
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.digest import json_digest
from rlinf_isaac.engines.base import EvaluationJob
from rlinf_isaac.engines.local.policies import load_policy
from rlinf_isaac.envs import make_env
from rlinf_isaac.errors import InvalidJob
from rlinf_isaac.events import (
    EpisodeDone,
    EpisodeRow,
    EvaluationFinished,
    EvaluationStarted,
    Event,
    Metrics,
    MismatchAllowed,
    Progress,
    VideoSaved,
)
from rlinf_isaac.pi0.tokenizer import load_tokenizer
from rlinf_isaac.rollout import Episode, rollout
from rlinf_isaac.sequential import StopRule, separate
from rlinf_isaac.video import VideoWriter


def evaluate(job: EvaluationJob) -> Iterator[Event]:
    """Evaluate every bundle of the job on the same seeds; the environment is built once.

    Raises:
        InvalidJob: the job is not what the weights were trained with (unless ``job.allow_mismatch``).
    """
    config = job.config
    if config.compute.threads:
        torch.set_num_threads(config.compute.threads)
    slots = min(config.eval.num_envs, config.eval.episodes)
    env = make_env(config.env, num_envs=slots)
    try:
        identity = env.identity.as_dict()
        problems = {
            bundle.digest: mismatches(bundle, config, norm_stats=job.norm_stats, environment=identity)
            for bundle in job.bundles
        }
        if any(problems.values()) and not job.allow_mismatch:
            raise InvalidJob([problem for each in problems.values() for problem in each])
        settings = evaluation_settings(job, identity, slots)
        root = job.output / json_digest(settings)[:12]
        root.mkdir(parents=True, exist_ok=True)
        write_file(root / "settings.json", json.dumps(settings, indent=2))
        announced = settings | ({"stop_rule": asdict(job.stop_rule)} if job.stop_rule else {})
        directories = [root / f"{bundle.step}-{bundle.digest[:8]}" for bundle in job.bundles]
        begin: dict[str, list[Event]] = {
            bundle.digest: [
                EvaluationStarted(bundle.step, bundle.path, bundle.digest, announced),
                *(MismatchAllowed(bundle.step, bundle.digest, problem) for problem in problems[bundle.digest]),
            ]
            for bundle in job.bundles
        }
        seeds = range(config.eval.first_seed, config.eval.first_seed + config.eval.episodes)
        if job.stop_rule is None:
            for bundle, directory in zip(job.bundles, directories, strict=True):
                yield from begin[bundle.digest]
                yield from _evaluate_bundle(bundle, job, env, directory, seeds)
                yield EvaluationFinished(bundle.step, bundle.digest, directory)
            return
        for events in begin.values():
            yield from events
        yield from _until_decided(job, job.stop_rule, env, directories, seeds)
        for bundle, directory in zip(job.bundles, directories, strict=True):
            yield EvaluationFinished(bundle.step, bundle.digest, directory)
    finally:
        env.close()


def evaluation_settings(job: EvaluationJob, environment: dict[str, Any], slots: int) -> dict[str, Any]:
    """Everything besides checkpoint and seed that an episode row depends on. More episodes reuse the rows there are."""
    config = job.config
    return {
        "environment": environment,
        "num_envs": slots,
        "first_seed": config.eval.first_seed,
        "policy_seed": config.eval.policy_seed,
        "norm_stats": job.norm_stats.digest if job.norm_stats else "of the checkpoint",
        "tokenizer": load_tokenizer(config.policy, config.model).fingerprint,
        "state_layout": config.policy.state_layout,
        "action_chunk": config.policy.action_chunk,
        "denoise_steps": config.policy.denoise_steps,
        "device": config.compute.device,
        "threads": config.compute.threads,
        # Rows of earlier releases know no others; what they do not say is the default.
        **({} if config.compute.dtype == "float32" else {"dtype": config.compute.dtype}),
        **({"compile": True} if config.compute.compile and config.compute.device.startswith("cuda") else {}),
    }


def _until_decided(
    job: EvaluationJob, rule: StopRule, env: Any, directories: Sequence[Path], seeds: range
) -> Iterator[Event]:
    """Batch after batch of seeds, every bundle on each; what is known after a batch goes into metrics."""
    successes: list[dict[int, bool]] = [{} for _ in job.bundles]
    for batch in rule.rounds(seeds):
        for bundle, directory, known in zip(job.bundles, directories, successes, strict=True):
            for event in _evaluate_bundle(bundle, job, env, directory, seeds, batch):
                if isinstance(event, EpisodeDone):
                    known[event.row.seed] = event.row.success
                yield event
        found = separate(successes, rule.alpha)
        best = job.bundles[found.best]
        yield Metrics(len(successes[0]), {"until_decided/e_value": found.e_value, "until_decided/best": best.step})
        if found.decided:
            return


def _evaluate_bundle(
    bundle: Bundle, job: EvaluationJob, env: Any, directory: Path, seeds: range, batch: range | None = None
) -> Iterator[Event]:
    """Announce the rows that are on disk, play the other episodes of `batch` (all seeds when None)."""
    batch = seeds if batch is None else batch
    config = job.config
    first_seed = config.eval.first_seed
    rows_file = directory / "episodes.jsonl"
    (directory / "videos").mkdir(parents=True, exist_ok=True)
    with locked(directory):
        rows = {row.seed: row for row in map(_parse_row, read_lines(rows_file)) if row.seed in batch}
        wanted = {seed for seed in batch if seed < first_seed + config.eval.videos}
        filmed = {seed for seed, row in rows.items() if row.video and (directory / row.video).is_file()}
        finished = {seed for seed in rows if seed in filmed or seed not in wanted}
        for seed in sorted(finished):
            yield from _announce(rows[seed], directory)
        label = f"eval {bundle.step}"
        before = batch.start - seeds.start
        yield Progress(label, before + len(finished), len(seeds))
        if len(finished) < len(batch):
            with ExitStack() as videos:
                writers: dict[int, VideoWriter] = {}

                def open_sink(seed: int) -> VideoWriter | None:
                    if seed not in wanted:
                        return None
                    name = f"episode_{seed - first_seed:03d}.mp4"
                    writer = VideoWriter(directory / "videos" / name, fps=env.identity.control_hz)
                    writers[seed] = videos.enter_context(writer)
                    return writer

                successes = sum(rows[seed].success for seed in finished)
                policy = load_policy(bundle, config, job.norm_stats)
                episodes = rollout(
                    env,
                    policy,
                    seeds,  # all of them, for a seed's slot must not depend on the batch
                    state_layout=config.policy.state_layout,
                    policy_seed=config.eval.policy_seed,
                    finished=finished | (set(seeds) - set(batch)),
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
                    note = f"; {policy.warmup_seconds:.1f} s warm-up" if policy.compiled else ""
                    yield Progress(label, before + count, len(seeds), f"{successes} of {count} solved{note}")


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
