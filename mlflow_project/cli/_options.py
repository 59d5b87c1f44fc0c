"""Options that several verbs share.

Every option takes a value and has a default that MLproject can pass (`auto`, never an empty string), so that a verb
behaves the same from the shell and from ``mlflow run``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from mlflow_project.cli import _types as types
from rlinf_isaac.jobs.options import AUTO, NONE

UploadWeights = Literal["auto", "all", "none"]
Command = TypeVar("Command", bound=Callable[..., Any])


def option(
    name: str, help: str, default: str | None = AUTO, type: click.ParamType | None = None
) -> Callable[[Command], Command]:
    """A string option. Without a default it is required; a `type` says how it is called and completed (`_types`)."""
    if default is None:  # click 8.3 takes an explicit default of None for a value
        return click.option(name, required=True, type=type, help=help)
    return click.option(name, default=default, type=type, show_default=True, help=help)


def flag(name: str, help: str) -> Callable[[Command], Command]:
    """A switch that is off: ``--name`` and ``--name true`` turn it on (MLproject can only pass a value)."""
    settings: dict[str, Any] = {"is_flag": False, "flag_value": "true", "default": "false", "show_default": True}
    return click.option(name, type=bool, help=help, **settings)


def arms(help: str) -> Callable[[Command], Command]:
    """Recipes with the evaluations of their trainings; may be given several times, or once with all of them."""
    return click.option(
        "--arm", multiple=True, default=(NONE,), show_default=True, metavar="NAME=RUN,RUN,...", help=help
    )


preset = option("--preset", "Preset: tiny, small, pi0, pi05, or the path of a YAML file.", "tiny", types.PRESET)
task = option(
    "--task",
    "Task: stack2, stack3, metaworld/..., or a YAML file; several with commas, or a suite; docs/tasks.md.",
    type=types.TASK,
)
ckpt_root = option(
    "--ckpt-root",
    "Checkpoints: the directory of a training, of its checkpoints or of one, a run's id, or models:/NAME@ALIAS.",
    None,
    types.CHECKPOINTS,
)
output = click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("result/isaaclab_openpi"),
    show_default=True,
    help="Where results, checkpoints and the tracking journal go.",
)
overrides = option("--overrides", "Config overrides, e.g. 'sft.batch_size=16,env.task=stack3'.", NONE)
env = option("--env", "Simulator: mujoco or isaaclab.", type=types.words("TEXT", "mujoco", "isaaclab"))
renderer = option(
    "--renderer",
    "egl, rays (no GL needed) or auto; with --env isaaclab newton or auto.",
    type=types.words("TEXT", "auto", "egl", "rays", "newton"),
)


env_python = click.option(
    "--env-python",
    # The older name, as a person types it and as MLflow passes on a parameter that MLproject does not list.
    "--isaaclab-python",
    "--isaaclab_python",
    "env_python",
    default=AUTO,
    show_default=True,
    help="Interpreter that has the environment's packages; auto: the one that the task, or for --env isaaclab "
    "ISAACLAB_PYTHON, names.",
)
device = option("--device", "torch device: cpu, cuda, cuda:1.", type=types.words("TEXT", "cpu", "cuda", "cuda:0"))
repo_id = option("--repo-id", "Name of the dataset below --dataset, where that is its home.", NONE)
upload_weights = click.option(
    "--upload-weights",
    type=click.Choice(["auto", "all", "none"]),
    default="auto",
    show_default=True,
    help="Log checkpoint weights as artifacts; auto: when they are small. Manifests always are.",
)


def ckpt_steps(purpose: str) -> Callable[[Command], Command]:
    """``--ckpt-steps``; `purpose` ends the words "Steps to"."""
    text = f"Steps to {purpose}, e.g. '25000,30000' or '25000 30000'; auto: all of them."
    return option("--ckpt-steps", text, type=types.STEPS)


OF_THE_TERMINAL = ("run_name", "experiment", "tag")
"""Options that are no parameters of MLproject: `mlflow run` has its own, --run-name and --experiment-name."""


def tracking(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that name the run of a tracked verb; they hold while its command runs."""

    @click.option("--run-name", default=AUTO, show_default=True, help="Name of the run in MLflow.")
    @click.option(
        "--experiment", default=AUTO, show_default=True, help="MLflow experiment; auto: as the variables say."
    )
    @click.option(
        "--tag", multiple=True, default=(), metavar="KEY=VALUE", help="Tag of the run; may be given several times."
    )
    @wraps(command)
    def labelled(*arguments: Any, run_name: str, experiment: str, tag: tuple[str, ...], **settings: Any) -> Any:
        from mlflow_project.cli._session import verb_session
        from mlflow_project.tracking.labels import labels, read_labels

        with verb_session():
            name, place = (None if text == AUTO else text for text in (run_name, experiment))
            chosen = read_labels(name, place, tag)
        with labels(chosen):
            return command(*arguments, **settings)

    return labelled


def engine(command: Command) -> Command:
    """The options that say where a job runs; `rlinf_isaac.jobs.engine` makes an engine of them."""
    for each in reversed(
        (
            click.option(
                "--engine",
                type=click.Choice(["local", "rlinf"]),
                default="local",
                show_default=True,
                help="Where the job runs: in this process, or on RLinf and Ray.",
            ),
            option(
                "--rlinf-python",
                "Interpreter that has RLinf; auto: that of a virtual environment in --rlinf-source, else this one.",
            ),
            option(
                "--rlinf-source", "Setup scripts or virtual environments to source first, e.g. 'a.sh,venv'.", "none"
            ),
            option("--rlinf-overrides", "Changes of RLinf's config, e.g. 'rollout.pipeline_stage_num=2'.", NONE),
            option(
                "--ray-address",
                "Running Ray cluster, HOST:PORT; auto: one of its own, which ends with the job; env: what RAY_ADDRESS "
                "says, in a Ray job its cluster.",
            ),
        )
    ):
        command = each(command)
    return command


allow_other_data = flag(
    "--allow-mismatch",
    "Go on although prompt or rate of the dataset are not those of the task; the run is tagged with it.",
)


assume = option(
    "--assume",
    "What a checkpoint does not say it was trained with, e.g. \"prompt='Stack it.',control_hz=20\"; all: as this job "
    "has it. Recorded as an assumption.",
    NONE,
)
