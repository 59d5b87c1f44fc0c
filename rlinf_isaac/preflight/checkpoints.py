"""Checkpoints against each other, and against the job that is to run them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rlinf_isaac.checkpoint.bundle import Bundle, find_bundles, read_bundle
from rlinf_isaac.checkpoint.description import config_digest
from rlinf_isaac.config import flatten, keys_of
from rlinf_isaac.engines.base import SftJob
from rlinf_isaac.ground.digest import bytes_digest
from rlinf_isaac.ground.errors import Problem


def check_bundles(bundles: Sequence[Bundle]) -> list[Problem]:
    """Checkpoints of one sweep differ in nothing but their weights, and hold what their lineage says they came from."""
    problems = []
    first = bundles[0]
    for bundle in bundles:
        trained_with, carried = bundle.lineage.get("norm_stats"), bytes_digest(bundle.norm_stats_bytes)
        if trained_with != carried:
            cause = f"{bundle.path} was trained with norm stats {trained_with}, but carries {carried}"
            problems.append(Problem("norm-stats-mismatch", cause, "take the bundle as `sft` wrote it"))
        job, recorded = bundle.config.get("job"), bundle.lineage.get("config")
        trained_by = bundle.config.get("trained_by", "sft")
        if isinstance(job, dict) and (now := config_digest(job, trained_by=trained_by)) != recorded:
            cause = f"{bundle.path}/config.json has the config {now}, but the checkpoint came from {recorded}"
            problems.append(Problem("config-changed", cause, "take the bundle as it was written"))
        for link in ("config", "dataset", "norm_stats"):
            if bundle.lineage.get(link) != first.lineage.get(link):
                cause = f"{bundle.path} and {first.path} were trained with different {link}"
                cure = "evaluate checkpoints of one training run together, others in a sweep of their own"
                problems.append(Problem("mixed-checkpoints", cause, cure))
    return problems


def check_carried(job: SftJob, overrides: Iterable[str]) -> Iterator[Problem]:
    """Overrides of what checkpoints only carry (`config.reads`), when the training's checkpoints are there already.

    No step of the training depends on it, so it goes on from them; but a checkpoint that is sealed does not change.
    """
    bundles = find_bundles(job.output / "checkpoints")
    keys = [key for item in overrides for key in keys_of(item) if key.startswith("env.")]
    if not (bundles and keys):
        return
    path, chosen = bundles[min(bundles)], flatten(job.config)
    carried = flatten(read_bundle(path, verify=False).job)
    for key in keys:
        if key in carried and carried[key] != chosen[key]:
            cause = f"{path} is there already and carries {key}={carried[key]}, the job has {chosen[key]}"
            cure = f"give {key}={chosen[key]} to eval and rl, or choose another --output"
            yield Problem("carried-otherwise", cause, cure)
