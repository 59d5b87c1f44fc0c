"""The description of a task: its prompt, its rate, which camera and which numbers the policy reads and gives, and its
environment.

A job, a dataset's provenance, a checkpoint and a server all carry this description, and two of them that differ in it
are refused, field by field (`differences`). A person writes it as YAML (`read`), or in Python.

This module needs the standard library alone: an environment's own interpreter imports it as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Any

NAME = re.compile(r"[\w.-]+(/[\w.-]+)*")
"""Pattern of the name of a task."""
SLOTS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
"""OpenPI's names of the three images that a pi0 reads."""
BUILTIN = "builtin"
RLINF = "rlinf"
ISAACLAB = "isaaclab"
KINDS = (BUILTIN, "gymnasium", "lerobot", RLINF, ISAACLAB)
"""What `Environment.kind` may be."""
OF_THE_MACHINE = ("env.python", "env.directory", "env.setup")
"""Fields that say where this machine has something, or how it gets it; they are no part of a task's digest."""
OF_DATASET = "dataset"
"""Spelling of a prompt that every episode of the dataset has for itself."""


@dataclass(frozen=True)
class Camera:
    """One of the policy's images.

    Attributes:
        dataset: the feature of a LeRobot dataset.
        env: the path in the environment's observation (`paths`); None: the environment has no such camera.
    """

    dataset: str
    env: str | None = None


@dataclass(frozen=True)
class Vector:
    """The robot's state, or an action, in the robot's own units.

    Attributes:
        dataset: the feature of a LeRobot dataset.
        dims: number of entries.
        names: a name for each entry, or None.
        env: paths in the environment's observation (`paths`), whose values are joined in this order. An action has
            none.
    """

    dataset: str
    dims: int
    names: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The names, or numbers in their place."""
        return self.names or tuple(map(str, range(self.dims)))


@dataclass(frozen=True)
class Action(Vector):
    """An action.

    Attributes:
        delta: which dims the model learns relative to the state, as ``policy.delta_actions``.
        clip: lowest and highest value that the environment takes, for all dims; None leaves actions as they are.
    """

    delta: str = "none"
    clip: tuple[float, float] | None = None


@dataclass(frozen=True)
class Environment:
    """Where the task is played.

    Attributes:
        kind: one of `KINDS`.
        make: what is built: an environment's id, ``package.module:function``, or ``file.py:function`` beside the YAML.
            In lerobot, the type of an environment or the class of its config; in RLinf, the type of an environment or
            its class; in IsaacLab a task's id.
        options: keyword arguments of `make`, entries of RLinf's config, or how IsaacLab's task is built.
        success: the term (`terms`) that ends an episode as solved.
        failure: the term that ends it as failed, or None.
        dwell: for how many control steps in a row `success` must hold.
        max_steps: control steps until an episode's time is up.
        python: the interpreter that has the environment's packages; ``$NAME`` and ``~`` are expanded. It depends on
            the machine, so it is no part of the digest, nor are `directory` and `setup`.
        directory: where files that `make` and the expert name are looked for.
        sources: file -> sha256 of what `make` and the expert name as files.
        setup: the command that makes the interpreter, for a person who does not have it.
    """

    kind: str
    make: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    success: str = "info.is_success"
    failure: str | None = None
    dwell: int = 1
    max_steps: int = 400
    python: str | None = None
    directory: str | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    setup: str | None = None

    @property
    def seeded(self) -> bool:
        """Whether an episode is a function of its seed. Otherwise episodes of equal seeds are no pairs, and those of
        all rows begin together."""
        return self.kind != RLINF


@dataclass(frozen=True)
class Expert:
    """A scripted policy that solves the task, for demonstrations.

    Attributes:
        make: as `Environment.make`; it is called with the environment and gives an object with ``reset(seed)`` and
            ``act(observation)``.
        noise_dims: the first so many dims of its actions are disturbed by ``demos.noise``; None: all.
    """

    make: str
    noise_dims: int | None = None


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
        name: for people, and the key ``env.task``.
        prompts: instructions; an episode has the one that its seed picks. None: those of the dataset.
        control_hz: control steps per second, a whole number as LeRobot's ``fps``.
        cameras: slot of the model (`SLOTS`) -> camera. A slot that is left out is masked.
        state: what the policy reads besides images.
        action: what it gives.
        env: where it is played; without one there is training and serving, but no evaluation.
        expert: for demonstrations.
        robot: what the robot is called, in datasets; norm stats of one robot have one name.
        adapt: name of the `adapters.Adapter` that brings the robot's numbers into the model's form, or None.
    """

    name: str
    prompts: tuple[str, ...] | None
    control_hz: int
    cameras: Mapping[str, Camera]
    state: Vector
    action: Action
    env: Environment | None = None
    expert: Expert | None = None
    robot: str | None = None
    adapt: str | None = None

    @property
    def failures(self) -> tuple[str, ...]:
        """The outcomes of an episode that the task calls failed. An environment may end one otherwise, too."""
        if self.env is None:
            return ()
        if self.env.kind == BUILTIN:
            return ("drop",)
        return ("failure",) if self.env.failure else ()

    @property
    def asset_id(self) -> str:
        """The name under which norm stats lie in a checkpoint."""
        return re.sub(r"[^\w.-]+", "_", self.robot or self.name)

    @property
    def instructed_by_env(self) -> bool:
        """Whether the environment gives the instruction of each episode where the task has none."""
        return not self.prompts and self.env is not None and self.env.kind == RLINF

    def prompt(self, seed: int) -> str:
        """The instruction of the episode with this seed; empty where only the dataset knows it."""
        return self.prompts[seed % len(self.prompts)] if self.prompts else ""

    def as_dict(self) -> dict[str, Any]:
        """A JSON-ready dict; `read.from_dict` is its inverse."""
        return json.loads(json.dumps(asdict(self)))

    @property
    def digest(self) -> str:
        """sha256 of everything that does not depend on the machine."""
        text = json.dumps(_portable(self).as_dict(), sort_keys=True, separators=(",", ":"))
        return sha256(text.encode()).hexdigest()


def differences(one: Task, other: Task) -> list[tuple[str, Any, Any]]:
    """(field, value in `one`, value in `other`) for each field that differs. Names of dims, and prompts, are compared
    only where both tasks have them; what depends on the machine is not compared."""
    left, right = (dict(_flat(_portable(task).as_dict())) for task in (one, other))
    for key in ("prompts", "state.names", "action.names"):
        if left[key] is None or right[key] is None:
            del left[key], right[key]
    keys = [*left, *(key for key in right if key not in left)]
    return [(key, left.get(key), right.get(key)) for key in keys if left.get(key) != right.get(key)]


def _portable(task: Task) -> Task:
    return task if task.env is None else replace(task, env=replace(task.env, python=None, directory=None, setup=None))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
