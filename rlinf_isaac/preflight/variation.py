"""Checks what `eval --vary` asks for, before a simulator is imported."""

from __future__ import annotations

from collections.abc import Iterator

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.suite import configs_of
from rlinf_isaac.config.task import task_of
from rlinf_isaac.envs import no_variation
from rlinf_isaac.envs.stack_cube.backends import BACKENDS, check_axis
from rlinf_isaac.ground.errors import Problem
from rlinf_isaac.tasks.task import BUILTIN
from rlinf_isaac.tasks.variation import axes_in, names_axes


def check_variation(config: JobConfig, engine: str = "local", until_decided: bool = False) -> Iterator[Problem]:
    """What keeps the environment of a job from being varied along the axes of its config."""
    axes = axes_in(config.vary.axes)
    if not axes or not names_axes(config.vary.axes):  # the latter is found with the other values
        return
    if engine != "local":
        cause = f"--vary {','.join(axes)} with --engine {engine}, whose environments are not varied"
        yield Problem("vary-engine", cause, "evaluate with --engine local, or leave --vary out")
    if until_decided:
        cause = "--vary with --until-decided: the outcomes of the usual episodes would decide how many are varied"
        yield Problem("vary-until-decided", cause, "leave one of the two out")
    for each in configs_of(config):
        task = task_of(each)
        if task.env is None or task.env.kind != BUILTIN:
            yield no_variation(task)
        elif each.env.backend in BACKENDS:
            for axis in axes:
                yield from check_axis(each.env.backend, axis)
