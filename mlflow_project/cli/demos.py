"""`demos`: record scripted demonstrations as a LeRobot dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import PROJECT, preflight, stdout, verb_session
from rlinf_isaac.config import flatten, load_config
from rlinf_isaac.config.reads import check_overrides
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.ground.digest import json_digest

if TYPE_CHECKING:
    from rlinf_isaac.preflight import Findings

EXAMPLE = """\b
Example:
  rlinf-isaac demos --episodes 150
  mlflow run . -e demos -P task=stack3 -P episodes=50"""

SECTIONS = ("demos.", "env.", "policy.state_layout")
KEYS = {
    "task": "env.task",
    "episodes": "demos.episodes",
    "first_seed": "demos.first_seed",
    "env": "env.backend",
    "renderer": "env.renderer",
    "device": "compute.device",
}


@click.command("demos", epilog=EXAMPLE)
@options.preset
@options.option("--task", "stack2 (two cubes) or stack3 (three, as upstream).")
@options.option("--episodes", "Successful demonstrations to record.")
@options.option("--first-seed", "Reset seed of the first one.")
@options.env
@options.isaaclab_python
@options.renderer
@options.option("--device", "torch device, for --env isaaclab: cpu, cuda, cuda:1.")
@options.output
@options.overrides
def command(output: Path, **settings: Any) -> None:
    """Record demonstrations of a scripted expert in the embedded MuJoCo environment, or in IsaacLab.

    The result is a LeRobot v2.1 dataset, with the features RLinf's IsaacLab data config expects. The same settings lead
    to the same directory, and a complete dataset is reused.
    """
    with verb_session():
        with preflight() as findings:
            config = check(findings, output=output, **settings)
        stdout.print(f"dataset  {run(config, output)}")


def check(
    findings: Findings, *, preset: str, output: Path, overrides: str, quick: bool = False, **chosen: str
) -> JobConfig:
    """Check these options and give their config. Everything here is quick."""
    from rlinf_isaac.preflight import check_config, check_device, check_free_space, check_simulator
    from rlinf_isaac.preflight.machine import demonstration_bytes

    changes = options.to_overrides(chosen, KEYS, overrides)
    findings.add(check_overrides("demos", changes))
    config = load_config(preset, changes)
    findings.add([*check_config(config, "demos", changes), *check_device(config, "demos"), *check_simulator(config)])
    findings.add(check_free_space(output, demonstration_bytes(config)))
    return config


def dataset_root(config: JobConfig, output: Path) -> Path:
    """Where the demonstrations of these settings lie."""
    values = flatten(config)
    settings = {key: value for key, value in values.items() if key.startswith(SECTIONS) and key != "demos.workers"}
    if config.env.backend == "isaaclab":  # which runs there; MuJoCo is on the CPU in any case
        settings["compute.device"] = config.compute.device.partition(":")[0]
    return output.absolute() / "demos" / f"{config.env.task}-{json_digest(settings)[:8]}"


def run(config: JobConfig, output: Path) -> Path:
    """Record the demonstrations as one tracked run; returns the dataset's root."""
    from mlflow_project.lineage.provenance import lerobot_dataset, provenance_tags, simulator_tags
    from mlflow_project.tracking.progress import watch
    from mlflow_project.tracking.runs import tracked_run
    from rlinf_isaac.data.lerobot.reader import LeRobotDataset
    from rlinf_isaac.engines.demonstrations import record_demonstrations

    root = dataset_root(config, output)
    with tracked_run("demos", output=output, name=f"demos {root.name}", tags=provenance_tags(PROJECT)) as tracked:
        tracked.recorder.params(_read_config(config))
        watch(record_demonstrations(config, root))
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
