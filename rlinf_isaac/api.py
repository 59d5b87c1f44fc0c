"""The Python API of the robotics half, which needs no MLflow; ``rlinf_isaac`` exports these names (docs/python_api.md).

Functions check what the verbs check, and raise `InvalidJob` with all findings. torch, numpy and simulators are imported
when a function needs them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rlinf_isaac.ground.hub import is_hub

if TYPE_CHECKING:
    import numpy as np

    from rlinf_isaac.checkpoint.bundle import Bundle
    from rlinf_isaac.config.schema import JobConfig
    from rlinf_isaac.data.lerobot.reader import LeRobotDataset
    from rlinf_isaac.envs.vector import TaskEnv
    from rlinf_isaac.preflight.findings import Findings

Overrides = Mapping[str, Any] | Sequence[str]
"""``{"env.max_episode_steps": 64}``, or ``["env.max_episode_steps=64"]``."""

logger = logging.getLogger("rlinf_isaac")


@contextmanager
def checking() -> Iterator[Findings]:
    """Collect findings; afterwards warnings are logged, and errors raised together.

    Raises:
        InvalidJob: with all errors.
    """
    from rlinf_isaac.preflight.findings import Findings

    findings = Findings()
    with findings.collect():
        yield findings
    for problem in findings.warnings:
        logger.warning("%s", problem)
    findings.raise_errors()


class Policy:
    """The policy of a checkpoint, with the norm stats, prompts and layout that it was trained with.

    Attributes:
        bundle: the checkpoint, with all its bytes verified.
        config: its job, on this machine's device.
    """

    def __init__(self, bundle: Bundle, config: JobConfig) -> None:
        from rlinf_isaac.engines.policies import load_policy

        self.bundle, self.config = bundle, config
        self.policy = load_policy(bundle, config)

    def act(self, observation: Mapping[str, Any], env: TaskEnv, call: int = 0) -> np.ndarray:
        """The next actions for the episodes that run in an environment.

        They are those of `eval` for the same seeds and calls, bit by bit where the batch has the same size.

        Args:
            observation: as ``env.reset`` and ``env.chunk_step`` give it.
            env: of N episodes, whose seeds decide noise and instruction (`make_env`).
            call: which call of the episodes this is, counted from 0.

        Returns:
            (N, T, A) float32: T actions for each episode, in robot units; ``env.chunk_step`` takes them.
        """
        import numpy as np

        from rlinf_isaac.pi0.policy import episode_noise

        seen, shape = env.policy_input(dict(observation)), self.policy.noise_shape
        noise = [episode_noise(self.config.eval.policy_seed, seed or 0, call, shape) for seed in env.seeds]
        return self.policy.act(seen.images, seen.states, env.prompts(), np.stack(noise))


def load_bundle(uri: str, *, verify: bool = True) -> Bundle:
    """The checkpoint bundle in a directory, or at ``hf://org/name[@revision][/folder]``, which is downloaded.

    Args:
        uri: the place.
        verify: hash the weights as well; a policy is only loaded from a bundle for which that was done.

    Raises:
        BundleError: there is no bundle, or it is damaged. ``models:/...`` and run ids are known to
            `mlflow_project.api` alone.
    """
    from rlinf_isaac.checkpoint.bundle import read_bundle
    from rlinf_isaac.checkpoint.foreign.hub import fetch

    return read_bundle(fetch(uri).path if is_hub(uri) else uri, verify=verify)


def load_policy(uri: str | Bundle, *, device: str = "auto", task: str = "auto", assume: str = "none") -> Policy:
    """The policy of a checkpoint, after the checks of `serve`.

    Args:
        uri: as for `load_bundle`, or a bundle.
        device: torch device; ``auto``: that of the checkpoint's job.
        task: the task of a checkpoint of several.
        assume: facts about the training that the checkpoint does not record, as in ``serve --assume``.

    Raises:
        InvalidJob: with all that keeps the checkpoint from being run as it was trained.
    """
    from rlinf_isaac.jobs.serving import plan

    with checking() as findings:
        job = plan(findings, load_bundle(uri) if isinstance(uri, str) else uri, device, assume, task)
    assert job is not None
    return Policy(*job)


def load_config(preset: str = "tiny", overrides: Overrides = ()) -> JobConfig:
    """The config of a preset (tiny, small, pi0, pi05, ..., or a YAML file) with overrides.

    Raises:
        InvalidJob: the preset, a key or a value is not valid.
    """
    from rlinf_isaac.config import load_config as load

    return load(preset, listed(overrides))


def make_env(
    task: str | Policy = "stack2",
    num_envs: int = 1,
    *,
    preset: str = "tiny",
    overrides: Overrides = (),
    env_python: str | None = None,
) -> TaskEnv:
    """N environments of a task, which step together; close them in the end.

    Args:
        task: name of a task, a YAML file that describes one, or a policy, in whose own environment it then plays.
        num_envs: how many.
        preset: from which the other settings come; that of a policy are its own.
        overrides: of the config.
        env_python: interpreter that has the simulator; None: the one that the task or ISAACLAB_PYTHON names.

    Raises:
        InvalidJob: a setting is not valid, or this machine cannot simulate or render it.
    """
    from rlinf_isaac.config import build_config
    from rlinf_isaac.envs import make_env as make
    from rlinf_isaac.preflight import check_simulator

    with checking() as findings:
        if isinstance(task, Policy):
            place = f"{task.bundle.path}/config.json"
            config = build_config(task.config.as_dict(), place, listed(overrides))
        else:
            config = load_config(preset, [f"env.task={task}", *listed(overrides)])
        findings.add(check_simulator(config, env_python))
    return make(config, num_envs, env_python)


def open_dataset(name: str) -> LeRobotDataset:
    """A LeRobot dataset: a directory, a repo id under HF_LEROBOT_HOME, or ``hf://org/name``, which is downloaded.

    Raises:
        DatasetError: there is none, or it is damaged.
    """
    from rlinf_isaac.data.lerobot.reader import LeRobotDataset
    from rlinf_isaac.jobs.options import find_dataset

    return LeRobotDataset(find_dataset(name))


def listed(overrides: Overrides) -> list[str]:
    """Overrides as ``key=value``."""
    return [f"{key}={value}" for key, value in overrides.items()] if isinstance(overrides, Mapping) else list(overrides)
