"""Datasets of robots that are not this project's, written by lerobot's own writer or, without it, by ours."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import Result

from rlinf_isaac.data.lerobot.format import Feature, image_feature
from rlinf_isaac.data.lerobot.writer import LeRobotWriter
from rlinf_isaac.tasks.adapters import Adapter

SIDE = 64
Invoke = Callable[..., Result]
ALOHA_MOTORS = tuple(
    f"{arm}_{joint}"
    for arm in ("left", "right")
    for joint in ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
)


@dataclass(frozen=True)
class Robot:
    """A robot as its dataset describes it.

    Attributes:
        names: as the dataset names the dims of state and action: a list, or lists under a heading.
        cameras: slot of the model -> feature, as a person would assign them.
        sent: key of an observation that this robot's client sends -> feature.
    """

    name: str
    fps: int
    state: int
    action: int
    names: Any
    cameras: dict[str, str]
    sent: dict[str, str]
    prompts: tuple[str, ...]
    robot_type: str

    @property
    def features(self) -> dict[str, Feature]:
        """As our writer takes them, with a name for each dim or none."""
        vectors = {"observation.state": self.state, "action": self.action}
        named = {name: self.names if len(self.names) == dims else None for name, dims in vectors.items()}
        images = dict.fromkeys(self.cameras.values(), image_feature(SIDE, SIDE))
        return {name: Feature("float32", (dims,), named[name]) for name, dims in vectors.items()} | images

    def frame(self, episode: int, step: int) -> dict[str, np.ndarray]:
        """What is recorded of one control step."""
        random = np.random.default_rng([episode, step])
        numbers = {
            "observation.state": random.uniform(0, 1, self.state).astype(np.float32),
            "action": random.uniform(0, 1, self.action).astype(np.float32),
        }
        shape = (SIDE, SIDE, 3)
        return numbers | {name: random.integers(0, 256, shape, np.uint8) for name in self.cameras.values()}

    def observation(self, *, channels_first: bool = False) -> dict[str, Any]:
        """What this robot's client sends."""
        frame = self.frame(99, 0)
        sent: dict[str, Any] = {}
        for key, feature in self.sent.items():
            value = frame[feature]
            if channels_first and value.ndim == 3:
                value = value.transpose(2, 0, 1)
            outer, _, inner = key.partition("/")
            if outer == "images":
                sent.setdefault(outer, {})[inner] = value
            else:
                sent[key] = value
        return sent

    def write(self, root: Path, episodes: int = 3, steps: int = 12) -> Path:
        """By our own writer."""
        with LeRobotWriter(root, fps=self.fps, features=self.features, robot_type=self.robot_type) as writer:
            for episode in range(episodes):
                frames = [self.frame(episode, step) for step in range(steps)]
                columns = {name: np.stack([frame[name] for frame in frames]) for name in frames[0]}
                writer.add_episode(columns, self.prompts[episode % len(self.prompts)])
        return root

    def write_with_lerobot(self, root: Path, *, videos: bool, episodes: int = 3, steps: int = 12) -> Path:
        """By lerobot's own writer, in the version that it has."""
        package = "lerobot.datasets" if importlib.util.find_spec("lerobot.datasets") else "lerobot.common.datasets"
        module = importlib.import_module(f"{package}.lerobot_dataset")
        vectors = {"observation.state": self.state, "action": self.action}
        described: dict[str, Any] = {
            name: {"dtype": "float32", "shape": (dims,), "names": self._listed(dims)} for name, dims in vectors.items()
        }
        camera = {"dtype": "video" if videos else "image", "shape": (SIDE, SIDE, 3)}
        described |= {name: {**camera, "names": ["height", "width", "channels"]} for name in self.cameras.values()}
        options = {"fps": self.fps, "features": described, "root": root, "robot_type": self.robot_type}
        dataset = module.LeRobotDataset.create("owner/data", use_videos=videos, **options)
        for episode in range(episodes):
            for step in range(steps):
                frame, task = self.frame(episode, step), self.prompts[episode % len(self.prompts)]
                try:  # the task is an entry of the frame in some releases and an argument in others
                    dataset.add_frame(frame | {"task": task})
                except (TypeError, ValueError):
                    dataset.add_frame(frame, task)
            dataset.save_episode()
        if hasattr(dataset, "finalize"):
            dataset.finalize()
        return root

    def _listed(self, dims: int) -> Any:
        return self.names if isinstance(self.names, dict) else list(self.names)


def _aloha(name: str, names: Any) -> Robot:
    cameras = ("cam_high", "cam_left_wrist", "cam_right_wrist")
    slots = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
    return Robot(
        name,
        fps=50,
        state=14,
        action=14,
        names=names,
        cameras={slot: f"observation.images.{camera}" for slot, camera in zip(slots, cameras, strict=True)},
        sent={f"images/{camera}": f"observation.images.{camera}" for camera in cameras}
        | {"state": "observation.state"},
        prompts=("Fold the shirt.", "Fold the trousers: twice."),
        robot_type="aloha",
    )


ALOHA = _aloha("aloha", ALOHA_MOTORS)
ALOHA_GROUPED = _aloha("aloha-grouped", {"motors": list(ALOHA_MOTORS)})
FRANKA = Robot(
    "franka",
    fps=10,
    state=8,
    action=7,
    names=("state",),
    cameras={"base_0_rgb": "observation.images.image", "left_wrist_0_rgb": "observation.images.wrist_image"},
    sent={
        "observation/image": "observation.images.image",
        "observation/wrist_image": "observation.images.wrist_image",
        "observation/state": "observation.state",
    },
    prompts=("Put the bowl on the plate.",),
    robot_type="panda",
)
ROBOTS = (ALOHA, ALOHA_GROUPED, FRANKA)
AS_IT_IS = Adapter(*[np.array] * 3)
"""An adapter of a package of one's own, which changes nothing."""


def succeed(result: Result) -> Result:
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result


def begin(invoke: Invoke, dataset: Path, **changes: str) -> Path:
    """The file that `task init` writes, with some of its lines changed; doctor has nothing against it."""
    file = dataset.with_name("task.yaml")
    succeed(invoke("task", "init", "--dataset", dataset, "--output", file))
    text = file.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)
    report = succeed(invoke("doctor", "--dataset", dataset, "--task", file, "--json"))
    assert json.loads(report.stdout)["ok"]
    return file
