"""IsaacLab's stack-cube as a task of the kind ``isaaclab``, as which it is played; for both processes."""

from __future__ import annotations

from rlinf_isaac.envs.isaaclab.versions import TASK_ID
from rlinf_isaac.envs.stack_cube import contract
from rlinf_isaac.tasks.task import ISAACLAB, Action, Camera, Environment, Task, Vector

FILM = "film"
"""First part of the paths of images for videos."""
VIDEO_SIZE = 256
"""Their height and width in pixels."""

HOSTED = Environment(
    ISAACLAB, TASK_ID, {"assets": "standin"}, success="term:success", failure="terminated", max_steps=600
)


def hosted_task(task: Task) -> Task:
    """The task of this project, played in `HOSTED`. Its observation is that of the contract."""
    cameras = {slot: Camera(camera.dataset, camera.env) for slot, camera in task.cameras.items()}
    state = Vector("observation.state", 3, env=("policy/eef_pos",))
    return Task(task.name, task.prompts, task.control_hz, cameras, state, Action("action", contract.ACTION_DIM), HOSTED)
