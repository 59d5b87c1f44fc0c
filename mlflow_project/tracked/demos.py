"""Recording demonstrations, as a tracked run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow_project.lineage.provenance import lerobot_dataset, provenance_tags, simulator_tags, task_tags
from mlflow_project.tracked import PROJECT
from mlflow_project.tracked.headers import demos_header
from mlflow_project.tracking.announce import say_header
from mlflow_project.tracking.progress import watch
from mlflow_project.tracking.runs import tracked_run
from rlinf_isaac.config import flatten
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.suite import configs_of
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.engines.demonstrations import record_demonstrations
from rlinf_isaac.jobs.demos import SECTIONS, dataset_root, with_renderer


def run_all(config: JobConfig, output: Path, env_python: str | None = None) -> tuple[Path, ...]:
    """Record the demonstrations of each task that a job is about, in turn; returns the roots of the datasets.

    Several tasks have one run, with one nested in it for each.
    """
    if not config.suite:
        return (run(config, output, env_python),)
    name = f"demos {config.env.task}"
    with tracked_run("demos", output=output, name=name, tags=provenance_tags(PROJECT)):
        return tuple(run(each, output, env_python) for each in configs_of(config))


def run(config: JobConfig, output: Path, env_python: str | None = None) -> Path:
    """Record the demonstrations as one tracked run; returns the dataset's root."""
    config = with_renderer(config)
    root = dataset_root(config, output)
    with tracked_run(
        "demos", output=output, name=f"demos {root.name}", tags=provenance_tags(PROJECT) | task_tags(config)
    ) as tracked:
        tracked.recorder.params(_read_config(config))
        say_header(demos_header(config, root))
        watch(record_demonstrations(config, root, env_python))
        dataset = LeRobotDataset(root)
        tracked.recorder.tags(simulator_tags((dataset.provenance or {}).get("env", {})))
        tracked.recorder.dataset(lerobot_dataset(root, dataset.digest, "recorded"))
        tracked.recorder.metrics(
            {
                "demos/episodes": dataset.num_episodes,
                "demos/frames": dataset.num_frames,
                "demos/episode_length_mean": dataset.num_frames / dataset.num_episodes,
            }
        )
        for file in sorted((root / "meta").glob("*.json*")):
            tracked.recorder.artifact(file, f"dataset/meta/{file.name}")
    return root


def _read_config(config: JobConfig) -> dict[str, Any]:
    return {key.replace(".", "/"): value for key, value in flatten(config).items() if key.startswith(SECTIONS)}
