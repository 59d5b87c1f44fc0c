"""The 50 tasks of Meta-World (Yu et al., CoRL 2019), version 3: a Sawyer arm with a gripper, in MuJoCo.

The policy sees two cameras, where the hand is and how far the gripper is open. It does not see the pose of any object,
nor the goal, except in the images.

An interpreter of its own has the package, which is not imported but by `make` and `Expert`: metaworld 3.1.1 needs an
older MuJoCo than this project, and does not say that it needs `packaging`.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from rlinf_isaac.tasks.task import Action, Camera, Environment, Task, Vector
from rlinf_isaac.tasks.task import Expert as ExpertOf

if TYPE_CHECKING:
    import numpy as np

REQUIRES = ("metaworld", "packaging")
"""Distributions that the environment's interpreter must have."""
PYTHON = "$METAWORLD_PYTHON"
SETUP = "python3.11 -m venv metaworld-venv && metaworld-venv/bin/pip install metaworld==3.1.1 packaging"

IMAGE_SIZE = 64
CONTROL_HZ = 80
"""MuJoCo's time step is 2.5 ms, and Meta-World repeats an action for five."""
MAX_STEPS = 200
SCENE, WRIST = "corner4", "gripperPOV"
"""Meta-World's names of the cameras: one that looks at the table from a corner, and one at the hand."""
_UPSIDE_DOWN = (SCENE,)
"""Cameras that Meta-World has mounted upside down."""

PROMPTS = {
    "assembly-v3": "pick up the nut and place it onto the peg",
    "basketball-v3": "dunk the basketball into the basket",
    "bin-picking-v3": "pick up the object from one bin and place it into the other bin",
    "box-close-v3": "pick up the cover and close the box with it",
    "button-press-topdown-v3": "press the button from the top",
    "button-press-topdown-wall-v3": "reach over the wall and press the button from the top",
    "button-press-v3": "press the button",
    "button-press-wall-v3": "reach around the wall and press the button",
    "coffee-button-v3": "push the button on the coffee machine",
    "coffee-pull-v3": "pull the mug away from the coffee machine",
    "coffee-push-v3": "push the mug under the coffee machine",
    "dial-turn-v3": "turn the dial by half a turn",
    "disassemble-v3": "pick the nut off the peg",
    "door-close-v3": "close the door",
    "door-lock-v3": "lock the door by turning the lock clockwise",
    "door-open-v3": "open the door",
    "door-unlock-v3": "unlock the door by turning the lock counter-clockwise",
    "drawer-close-v3": "close the drawer",
    "drawer-open-v3": "open the drawer",
    "faucet-close-v3": "turn the faucet clockwise",
    "faucet-open-v3": "turn the faucet counter-clockwise",
    "hammer-v3": "pick up the hammer and drive the screw into the wall",
    "hand-insert-v3": "insert the gripper into the hole",
    "handle-press-side-v3": "press the handle down from the side",
    "handle-press-v3": "press the handle down",
    "handle-pull-side-v3": "pull the handle up from the side",
    "handle-pull-v3": "pull the handle up",
    "lever-pull-v3": "pull the lever up",
    "peg-insert-side-v3": "pick up the peg and insert it into the hole from the side",
    "peg-unplug-side-v3": "unplug the peg from the hole",
    "pick-out-of-hole-v3": "pick the object out of the hole",
    "pick-place-v3": "pick up the object and place it at the goal",
    "pick-place-wall-v3": "pick up the object, lift it over the wall and place it at the goal",
    "plate-slide-back-side-v3": "slide the plate out of the cabinet to the side",
    "plate-slide-back-v3": "slide the plate back out of the cabinet",
    "plate-slide-side-v3": "slide the plate into the cabinet from the side",
    "plate-slide-v3": "slide the plate into the cabinet",
    "push-back-v3": "pull the object back to the goal",
    "push-v3": "push the object to the goal",
    "push-wall-v3": "push the object around the wall to the goal",
    "reach-v3": "reach the goal",
    "reach-wall-v3": "reach around the wall to the goal",
    "shelf-place-v3": "pick up the object and place it onto the shelf",
    "soccer-v3": "push the ball into the soccer goal",
    "stick-pull-v3": "grasp the stick and pull the container with it",
    "stick-push-v3": "grasp the stick and push the container with it",
    "sweep-into-v3": "sweep the object into the hole",
    "sweep-v3": "sweep the object off the table",
    "window-close-v3": "push the window closed",
    "window-open-v3": "push the window open",
}
"""Meta-World's name of a task -> the instruction."""


def metaworld(name: str) -> Task:
    """The task of this name in `PROMPTS`."""
    return Task(
        f"metaworld/{name}",
        (PROMPTS[name],),
        CONTROL_HZ,
        {
            "base_0_rgb": Camera("observation.images.scene", "images/scene"),
            "left_wrist_0_rgb": Camera("observation.images.wrist", "images/wrist"),
        },
        Vector("observation.state", 4, ("hand_x", "hand_y", "hand_z", "gripper"), ("hand", "gripper")),
        Action("action", 4, ("delta_x", "delta_y", "delta_z", "gripper"), clip=(-1.0, 1.0)),
        Environment(
            "gymnasium",
            f"{__name__}:make",
            {"name": name, "image_size": IMAGE_SIZE},
            success="info.success>=1",
            max_steps=MAX_STEPS,
            python=PYTHON,
            setup=SETUP,
        ),
        ExpertOf(f"{__name__}:Expert"),
        robot="sawyer",
    )


TASKS = {f"metaworld/{name}": partial(metaworld, name) for name in PROMPTS}
MT10 = (
    "reach-v3",
    "push-v3",
    "pick-place-v3",
    "door-open-v3",
    "drawer-open-v3",
    "drawer-close-v3",
    "button-press-topdown-v3",
    "peg-insert-side-v3",
    "window-open-v3",
    "window-close-v3",
)
"""The ten tasks that Meta-World's authors put into their multi-task benchmark MT10."""
SUITES = {"metaworld/mt10": lambda: tuple(f"metaworld/{name}" for name in MT10)}


def make(name: str, image_size: int = IMAGE_SIZE) -> MetaWorld:
    """The environment of a task, in an interpreter that has Meta-World."""
    # Where another value stands, somebody has chosen it for this machine; what switches GL off is for the parent.
    if os.environ.get("MUJOCO_GL", "disable").lower() in ("", "0", "off", "disable", "disabled"):
        os.environ["MUJOCO_GL"] = "egl"
    return MetaWorld(name, image_size)


class MetaWorld:
    """An environment of Meta-World, whose episodes depend on their seed and whose images are drawn when asked for.

    Attributes:
        name: Meta-World's name of the task.
        unwrapped: Meta-World's own environment.
        full: (39,) its last observation, with the poses of the objects and the goal; the expert reads it.
    """

    def __init__(self, name: str, image_size: int) -> None:
        import mujoco
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS

        self.name, self.unwrapped = name, ALL_V3_ENVIRONMENTS[name]()
        env, visual = self.unwrapped, self.unwrapped.model.vis
        # Without these two, every episode starts alike, or from numpy's global generator.
        env._freeze_rand_vec, env.seeded_rand_vec = False, True
        env._set_task_called = True
        env._partially_observable = False  # the goal is in the observation, which the experts need
        env.__dict__.pop("sawyer_observation_space", None)  # computed for an observation without it
        self.action_space = env.action_space
        # Shadows and multisampling take nine tenths of the time of an image on a CPU.
        visual.quality.shadowsize = visual.quality.offsamples = 0
        visual.global_.offwidth = visual.global_.offheight = image_size  # a larger buffer takes longer to clear
        self._scene, self._options = mujoco.MjvScene(env.model, maxgeom=1000), mujoco.MjvOption()
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = False
        key = name, image_size
        self._canvas = _CANVASES.get(key) or _CANVASES.setdefault(key, _Canvas(env.model, image_size))

    def reset(self, *, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start the episode of a seed; Meta-World's own `reset` does not read one."""
        self.unwrapped.seed(seed)
        self.full, info = self.unwrapped.reset()
        return self._observation(), info

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """A control step. `action` (4,): the motion of the hand in cm, and the force with which the gripper closes."""
        self.full, reward, terminated, truncated, info = self.unwrapped.step(action)
        return self._observation(), float(reward), terminated, truncated, info

    def observe_images(self) -> dict[str, np.ndarray]:
        """The images of both cameras, (image_size, image_size, 3) uint8."""
        return {"images/scene": self._image(SCENE), "images/wrist": self._image(WRIST)}

    def close(self) -> None:
        self.unwrapped.close()

    def _observation(self) -> dict[str, Any]:
        return {"hand": self.full[:3], "gripper": self.full[3:4]}

    def _image(self, name: str) -> np.ndarray:
        import mujoco

        model, data = self.unwrapped.model, self.unwrapped.data
        camera = mujoco.MjvCamera()
        camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, model.camera(name).id
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, data, self._options, None, camera, everything, self._scene)
        image = self._canvas.draw(self._scene)
        return image[::-1, ::-1] if name in _UPSIDE_DOWN else image


class _Canvas:
    """A GL context with the meshes and textures of a task. All environments of the task in a process draw on it: one
    takes longer to make than the rest of an environment, and nearly as much memory."""

    def __init__(self, model: Any, image_size: int) -> None:
        import mujoco

        self._gl = mujoco.GLContext(image_size, image_size)
        self._gl.make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR  # as mujoco.Renderer: nearer is more exact
        self._area = mujoco.MjrRect(0, 0, image_size, image_size)

    def draw(self, scene: Any) -> np.ndarray:
        """The image (image_size, image_size, 3) uint8 of a scene."""
        import mujoco
        import numpy as np

        self._gl.make_current()
        mujoco.mjr_render(self._area, scene, self._context)
        image = np.empty((self._area.height, self._area.width, 3), np.uint8)
        mujoco.mjr_readPixels(image, None, self._area, self._context)
        return image[::-1]  # GL begins at the bottom


_CANVASES: dict[tuple[str, int], _Canvas] = {}
"""Task and image size -> what its environments draw on."""


class Expert:
    """Meta-World's scripted policy of the task, which reads the poses of the objects."""

    def __init__(self, env: MetaWorld) -> None:
        from metaworld.policies import ENV_POLICY_MAP

        self.env, self._make = env, ENV_POLICY_MAP[env.name]

    def reset(self, seed: int) -> None:
        """Begin an episode. Nothing in a policy is random."""
        self._policy = self._make()

    def act(self, observation: dict[str, Any]) -> np.ndarray:
        """(4,) the action."""
        return self._policy.get_action(self.env.full).clip(-1, 1)
