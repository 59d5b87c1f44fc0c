"""`norm_stats`: compute the norm stats of a dataset, with the record of what they came from."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import PROJECT, stdout, verb_session
from rlinf_isaac.config import load_config
from rlinf_isaac.config.schema import JobConfig

EXAMPLE = """\b
Example:
  rlinf-isaac norm_stats --dataset result/isaaclab_openpi/demos/stack2-0123abcd
  mlflow run . -e norm_stats -P dataset=/data/generated_simdata_full -P preset=pi05"""


@click.command("norm_stats", epilog=EXAMPLE)
@options.option("--dataset", "LeRobot dataset: its directory, or a repo id under HF_LEROBOT_HOME.", None)
@options.preset
@options.output
@options.overrides
def command(dataset: str, preset: str, output: Path, overrides: str) -> None:
    """Compute norm_stats.json of a LeRobot dataset from its parquet columns, with OpenPI's semantics.

    Statistics of actions are over action chunks, clamped at the end of an episode, so the preset's action horizon
    matters. No image is decoded.
    """
    with verb_session():
        from rlinf_isaac.data.resolve import resolve_dataset
        from rlinf_isaac.preflight import check_config, check_dataset, raise_if_any

        config = load_config(preset, options.to_overrides({}, {}, overrides))
        root = resolve_dataset(dataset).root
        raise_if_any(check_config(config) or check_dataset(config, root))
        stdout.print(f"norm stats  {run(config, root, output)}")


def run(config: JobConfig, dataset_root: Path, output: Path) -> Path:
    """Compute the stats as one tracked run; returns the file.

    It is named by the dataset's digest and the horizon, and ``provenance.json`` beside it says the same.
    """
    from mlflow_project.lineage import lerobot_dataset, provenance_tags
    from mlflow_project.runs import tracked_run
    from rlinf_isaac.atomic import new_directory
    from rlinf_isaac.data.lerobot_reader import LeRobotDataset
    from rlinf_isaac.data.norm_stats import compute_norm_stats

    horizon = config.model.action_horizon
    name, tags = f"norm_stats {dataset_root.name}", provenance_tags(PROJECT)
    with tracked_run("norm_stats", output=output, name=name, tags=tags) as tracked:
        dataset = LeRobotDataset(dataset_root)
        stats = compute_norm_stats(dataset, horizon)
        directory = output.absolute() / "norm_stats" / f"{dataset.digest[:12]}-h{horizon}"
        provenance = {"dataset": dataset.digest, "action_horizon": horizon, "norm_stats": stats.digest}
        with new_directory(directory, replace=True) as temporary:
            stats.save(temporary / "norm_stats.json")
            (temporary / "provenance.json").write_text(json.dumps(provenance, indent=2))
        tracked.recorder.params({"model": {"action_horizon": horizon}})
        tracked.recorder.dataset(lerobot_dataset(dataset_root, dataset.digest, "norm-stats"))
        tracked.recorder.tags({"lineage.norm_stats.sha256": stats.digest})
        tracked.recorder.artifact(directory)
    return directory / "norm_stats.json"
