"""A LeRobot dataset against what the policy and the task of a job expect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rlinf_isaac.config import load_config
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.envs.contract import ACTION_NAMES, CONTROL_HZ, STATE_LAYOUTS, TASKS, state_names
from rlinf_isaac.errors import Problem
from rlinf_isaac.preflight.findings import Findings
from rlinf_isaac.preflight.norm_stats import check_given_norm_stats


def check_dataset(config: JobConfig, root: Path) -> list[Problem]:
    """A LeRobot dataset against what the policy and the task expect; reads ``meta/`` only.

    Raises:
        DatasetError: ``meta/`` itself is damaged.
    """
    # pyarrow takes a moment; --help should not wait for it
    from rlinf_isaac.data.lerobot_format import ACTION, FRONT_IMAGE, STATE, WRIST_IMAGE
    from rlinf_isaac.data.lerobot_meta import read_meta

    meta = read_meta(root)
    task = TASKS[config.env.task]
    problems = []
    expected = {
        FRONT_IMAGE: None,
        WRIST_IMAGE: None,
        STATE: state_names(config.policy.state_layout, task.num_cubes),
        ACTION: list(ACTION_NAMES),
    }
    for name, names in expected.items():
        feature = meta.features.get(name)
        if feature is None:
            cause = f"{root} has no feature '{name}'; it has {', '.join(sorted(meta.features))}"
            cure = "convert the dataset to the names that RLinf's IsaacLab data config uses"
            problems.append(Problem("no-feature", cause, cure))
        elif names is not None and feature.shape != (len(names),):
            cause = f"{root}: feature '{name}' has shape {list(feature.shape)}, expected [{len(names)}]"
            cure = f"set env.task and policy.state_layout (now {task.name}, {config.policy.state_layout}) as recorded"
            problems.append(Problem("feature-dim", cause, cure))
        elif name == STATE and feature.names and list(feature.names) != names:
            cause = f"{root}: the state is {', '.join(feature.names)}, expected {', '.join(names or [])}"
            problems.append(Problem("state-layout", cause, "set policy.state_layout to the one of the dataset"))
    if meta.fps != CONTROL_HZ:
        cause = f"{root} was recorded at {meta.fps} Hz, the task is controlled at {CONTROL_HZ} Hz"
        problems.append(Problem("fps", cause, "resample the dataset; a policy at another rate moves at another speed"))
    for prompt in meta.tasks.values():
        if prompt != task.prompt:
            cause = f"{root} has the prompt {prompt!r}, the task {task.name} gives {task.prompt!r}"
            problems.append(Problem("prompt", cause, "set env.task to the one the dataset was recorded for"))
    return problems


def suitable_job(root: Path) -> tuple[str, str, list[Problem]]:
    """The task and state layout that a dataset suits best, and what is still wrong with it for those.

    Raises:
        DatasetError: ``meta/`` itself is damaged.
    """
    config = load_config("tiny")
    fits = []
    for task in TASKS:
        for layout in STATE_LAYOUTS:
            candidate = replace(
                config, env=replace(config.env, task=task), policy=replace(config.policy, state_layout=layout)
            )
            fits.append((task, layout, check_dataset(candidate, root)))
    return min(fits, key=lambda fit: len(fit[2]))


def check_training_data(config: JobConfig, root: Path, norm_stats: Path | None, *, quick: bool) -> list[Problem]:
    """Everything about a dataset, and the norm stats that are said to be its own, that can fail a training.

    Args:
        config: of the job.
        root: of the dataset.
        norm_stats: a ``norm_stats.json``; None when it will be computed.
        quick: do not read much more than ``meta/`` of a large dataset.
    """
    # pyarrow takes a moment; --help should not wait for it
    from rlinf_isaac.data.validate import validate_dataset

    findings = Findings(validate_dataset(root))
    with findings.collect():
        findings.add(check_dataset(config, root))
    if norm_stats is not None:
        with findings.collect():
            findings.add(check_given_norm_stats(norm_stats, root, config, quick=quick))
    return findings.problems
