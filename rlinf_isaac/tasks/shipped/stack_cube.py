"""Franka stack-cube with two or three cubes: this project's own simulation in MuJoCo, or IsaacLab's task."""

from __future__ import annotations

from functools import partial

from rlinf_isaac.envs.stack_cube import contract
from rlinf_isaac.tasks.task import BUILTIN, Action, Camera, Environment, Expert, Task, Vector


def stack_cube(name: str, state_layout: str = contract.STATE_LAYOUTS[0]) -> Task:
    """The task of this name in `contract.TASKS`.

    Args:
        name: ``stack2`` or ``stack3``.
        state_layout: one of `contract.STATE_LAYOUTS`.
    """
    spec = contract.TASKS[name]
    names = tuple(contract.state_names(state_layout, spec.num_cubes))
    return Task(
        name,
        (spec.prompt,),
        contract.CONTROL_HZ,
        {
            "base_0_rgb": Camera("observation.images.front", f"policy/{contract.TABLE_CAM}"),
            "left_wrist_0_rgb": Camera("observation.images.wrist", f"policy/{contract.WRIST_CAM}"),
        },
        Vector("observation.state", len(names), names, (f"stack_cube:{state_layout}",)),
        Action("action", contract.ACTION_DIM, contract.ACTION_NAMES),
        Environment(BUILTIN, name, success="info.success", failure="info.dropped", max_steps=600),
        Expert("rlinf_isaac.envs.stack_cube.expert:ScriptedExpert", contract.MOTION_DIMS),
        robot="franka",
    )


TASKS = {name: partial(stack_cube, name) for name in contract.TASKS}
