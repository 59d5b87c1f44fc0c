"""Is a job what the weights were trained with? Compares a bundle's own record with the job that is to run it.

Each difference is one that costs success silently: the policy still moves, only worse. None of it needs torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.digest import bytes_digest
from rlinf_isaac.envs.contract import CONTROL_HZ, TASKS, state_names
from rlinf_isaac.errors import Problem
from rlinf_isaac.pi0.tokenizer import load_tokenizer

ALLOW = "or pass --allow-mismatch: the run is tagged with it and cannot be promoted"

ENVIRONMENT_KEYS = ("task", "renderer", "image_size", "control_hz")
"""What must be equal between the environment of the training data and the one of the job, besides the simulator."""


@dataclass(frozen=True)
class NormStatsFile:
    """A ``norm_stats.json`` that a job brings instead of the one in the bundle."""

    path: Path
    data: bytes

    @classmethod
    def read(cls, path: Path) -> NormStatsFile:
        """Raises NormStatsError when there is no such file."""
        # pyarrow, which comes with it, takes a moment; --help should not wait for it
        from rlinf_isaac.data.norm_stats.parse import read_bytes

        return cls(path, read_bytes(path))

    @property
    def digest(self) -> str:
        """sha256 of the bytes."""
        return bytes_digest(self.data)


def mismatches(
    bundle: Bundle,
    config: JobConfig,
    *,
    norm_stats: NormStatsFile | None = None,
    environment: Mapping[str, Any] | None = None,
) -> list[Problem]:
    """Every way in which a job is not what the weights of `bundle` were trained with.

    Args:
        bundle: its ``config.json`` says what it was trained with; what that leaves out cannot be compared.
        config: of the job.
        norm_stats: what the job normalises with instead of the bundle's own.
        environment: identity of the environment as built. Before it is built, what `config` alone decides is compared.

    Raises:
        TokenizerError: the job's tokenizer cannot be read.
    """
    return [
        *_norm_stats(bundle, norm_stats),
        *_tokenizer(bundle, config),
        *_prompt(bundle, config),
        *_action_chunk(bundle, config),
        *_state_layout(bundle, config),
        *_environment(bundle, config, environment),
    ]


def _norm_stats(bundle: Bundle, given: NormStatsFile | None) -> Iterator[Problem]:
    trained = bundle.lineage.get("norm_stats")
    if given is not None and given.digest != trained:
        cause = (
            f"{bundle.path} was trained with norm stats {trained} ({bundle.asset_id}/norm_stats.json in it),"
            f" the job brings {given.digest} ({given.path})"
        )
        yield Problem("norm-stats-mismatch", cause, f"leave --norm-stats at auto, {ALLOW}")


def _tokenizer(bundle: Bundle, config: JobConfig) -> Iterator[Problem]:
    trained = bundle.config.get("tokenizer")
    now = load_tokenizer(config.policy, config.model).fingerprint
    if trained is not None and trained != now:
        cause = (
            f"{bundle.path} was trained with the tokenizer {_tokenizer_name(trained)} (its config.json),"
            f" the job has {_tokenizer_name(now)} (policy.tokenizer={config.policy.tokenizer})"
        )
        yield Problem("tokenizer-mismatch", cause, f"set policy.tokenizer to the checkpoint's, {ALLOW}")


def _prompt(bundle: Bundle, config: JobConfig) -> Iterator[Problem]:
    trained, now = list((bundle.config.get("prompts") or {}).values()), TASKS[config.env.task].prompt
    if trained and now not in trained:
        cause = (
            f"{bundle.path} was trained with the prompt {' or '.join(map(repr, trained))} (its config.json),"
            f" the task {config.env.task} gives {now!r}"
        )
        yield Problem("prompt-mismatch", cause, f"set env.task to the one it was trained for, {ALLOW}")


def _action_chunk(bundle: Bundle, config: JobConfig) -> Iterator[Problem]:
    trained = ((bundle.config.get("job") or {}).get("policy") or {}).get("action_chunk")
    now = config.policy.action_chunk
    if trained is not None and trained != now:
        cause = f"{bundle.path} was trained with policy.action_chunk {trained} (its config.json), the job has {now}"
        yield Problem("action-chunk-mismatch", cause, f"leave policy.action_chunk out, {ALLOW}")


def _state_layout(bundle: Bundle, config: JobConfig) -> Iterator[Problem]:
    trained = bundle.config.get("state_names")
    now = state_names(config.policy.state_layout, TASKS[config.env.task].num_cubes)
    if trained and list(trained) != now:
        cause = (
            f"{bundle.path} was trained with the state {_abridge(trained)} (its config.json),"
            f" {config.policy.state_layout} of {config.env.task} is {_abridge(now)}"
        )
        cure = "set env.task and policy.state_layout to the ones it was trained with"
        yield Problem("state-layout-mismatch", cause, f"{cure}, {ALLOW}")


def _environment(bundle: Bundle, config: JobConfig, built: Mapping[str, Any] | None) -> Iterator[Problem]:
    trained = bundle.config.get("env") or {}
    planned = {
        "backend": config.env.backend,
        "task": config.env.task,
        "image_size": config.env.image_size,
        "control_hz": CONTROL_HZ,
    }
    now = planned if built is None else built
    simulators = [str(each.get("backend", "")).partition("-")[0] for each in (trained, now)]
    if all(simulators) and simulators[0] != simulators[1]:
        cause = f"{bundle.path} was trained in {simulators[0]} (its config.json), the job is in {simulators[1]}"
        yield Problem("env-mismatch", cause, f"pass --env {simulators[0]}, {ALLOW}")
    for key in ENVIRONMENT_KEYS:
        if key == "renderer" and simulators[0] != simulators[1]:
            continue  # each simulator has its own
        if key in trained and key in now and trained[key] != now[key]:
            cause = f"{bundle.path} was trained with {key}={trained[key]!r} (its config.json), the job has {now[key]!r}"
            yield Problem("env-mismatch", cause, f"set env.{key} accordingly, {ALLOW}")


def _tokenizer_name(fingerprint: Mapping[str, Any]) -> str:
    return f"{fingerprint.get('kind')} ({fingerprint.get('vocab_size')} tokens, sha256 {fingerprint.get('sha256')})"


def _abridge(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return f"[{shown}, ... {len(names)} dims]" if len(names) > 3 else f"[{shown}]"
