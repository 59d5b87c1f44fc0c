"""Computing norm stats, and giving a file of them OpenPI's keys, as tracked runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow_project.comparison.evaluations import mismatch_tags
from mlflow_project.lineage.provenance import lerobot_dataset, provenance_tags
from mlflow_project.tracked import PROJECT
from mlflow_project.tracking.runs import tracked_run
from mlflow_project.vocabulary import lineage_tag
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.norm_stats import Settings, compute_norm_stats, settings_of
from rlinf_isaac.data.norm_stats.keys import Mode, canonicalise
from rlinf_isaac.data.norm_stats.parse import read_bytes
from rlinf_isaac.ground.atomic import new_directory
from rlinf_isaac.ground.digest import json_digest
from rlinf_isaac.ground.errors import Problem
from rlinf_isaac.jobs import Say, options, silent
from rlinf_isaac.preflight.norm_stats import PROVENANCE_FILE, read_provenance


def run(config: JobConfig, dataset_root: Path, output: Path, allowed: Sequence[Problem] = ()) -> Path:
    """Compute the stats and record them as one tracked run; returns the file.

    The file's directory is named by the dataset's digest and the settings, and ``provenance.json`` in it says the same.
    The run is tagged with the differences between dataset and task that are `allowed`.

    Raises:
        NormStatsError: the dataset has no statistics: too few frames, or values that are not finite.
    """
    settings = settings_of(config)
    dataset = LeRobotDataset(dataset_root)
    stats = compute_norm_stats(dataset, **settings)
    name, tags = f"norm_stats {dataset_root.name}", provenance_tags(PROJECT) | mismatch_tags(allowed)
    with tracked_run("norm_stats", output=output, name=name, tags=tags) as tracked:
        provenance = {"dataset": dataset.digest, **settings, "norm_stats": stats.digest}
        directory = output.absolute() / "norm_stats" / f"{dataset.digest[:12]}-{_suffix(settings)}"
        _write(directory, stats.to_json().encode(), provenance)
        tracked.recorder.params({"norm_stats": dict(settings)})
        tracked.recorder.dataset(lerobot_dataset(dataset_root, dataset.digest, "norm-stats"))
        tracked.recorder.tags({lineage_tag("norm_stats"): stats.digest})
        tracked.recorder.artifact(directory)
    return directory / "norm_stats.json"


def run_canonicalise(path: Path, mode: Mode, output: Path, say: Say = silent) -> Path:
    """Write the canonical form of `path` as one tracked run; returns the new file.

    Its directory is named by the source's digest and the mode. What ``provenance.json`` beside the source says of it is
    carried over; ``canonicalised`` in the new one is the record that undoes the change.

    Raises:
        NormStatsError: the file cannot be canonicalised so.
    """
    result = canonicalise(read_bytes(path), mode, str(path))
    source, changed = result.record["source_sha256"], result.record["norm_stats_sha256"]
    provenance = {**_provenance_of(path, source), "norm_stats": changed, "canonicalised": result.record}
    with tracked_run("norm_stats", output=output, name=f"norm_stats {mode}", tags=provenance_tags(PROJECT)) as tracked:
        directory = output.absolute() / "norm_stats" / f"{source[:12]}-{mode}"
        _write(directory, result.data, provenance)
        tracked.recorder.params({"norm_stats": {"mode": mode}})
        tracked.recorder.tags({lineage_tag("norm_stats"): changed, "lineage.norm_stats.source_sha256": source})
        tracked.recorder.artifact(directory)
    for old, new in result.record["keys"].items():
        say(f"{old} -> {new}" + (" (identity)" if new in result.record["identity"] else ""))
    for key in result.record["dropped"]:
        say(f"{key} dropped")
    return directory / "norm_stats.json"


def _suffix(settings: Settings) -> str:
    """The settings within a directory's name, where a comma would separate paths."""
    delta = settings["delta_actions"]
    parts = [f"h{settings['action_horizon']}", f"b{settings['batch_size']}"]
    parts += [] if delta == options.NONE else ["d" + delta.replace(",", "_")]
    special = {key: settings[key] for key in ("features", "adapt") if key in settings}
    return "-".join([*parts, json_digest(special)[:6]] if special else parts)


def _provenance_of(path: Path, digest: str) -> dict[str, Any]:
    """What ``provenance.json`` beside a ``norm_stats.json`` says, if it is of these bytes."""
    provenance = read_provenance(path.parent)
    return provenance if provenance.get("norm_stats") == digest else {}


def _write(directory: Path, norm_stats: bytes, provenance: dict[str, Any]) -> None:
    with new_directory(directory, replace=True) as temporary:
        (temporary / "norm_stats.json").write_bytes(norm_stats)
        (temporary / PROVENANCE_FILE).write_text(json.dumps(provenance, indent=2))
