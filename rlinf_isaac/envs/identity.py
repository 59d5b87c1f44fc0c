"""What tells one environment from another: two with the same identity play the same episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class EnvIdentity:
    """The properties of an environment on which its observations and episodes depend.

    Attributes:
        backend: simulator and version (``mujoco-4.0.0``).
        task: the task's name.
        prompt: the language instruction; the first one of several.
        renderer: ``egl`` or ``rays``, whose images differ in shading; ``own`` where the environment draws by itself.
        image_size: height of the images in pixels.
        control_hz: control steps per second.
        max_episode_steps: control steps until the episode times out.
        assets: sha256 of the scene description, or of the task and the versions of its packages.
        seeded: whether an episode is a function of its seed and actions; otherwise evaluations are not paired.
        image_shapes: view, which is the last part of the dataset's feature -> height and width of its images, of
            those that are no squares of `image_size`.
    """

    backend: str
    task: str
    prompt: str
    renderer: str
    image_size: int
    control_hz: int
    max_episode_steps: int
    assets: str
    seeded: bool = True
    image_shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """A JSON-ready dict. Of `seeded` and `image_shapes` it has only what is unusual, so that it is the same as in
        records of earlier releases."""
        values = asdict(self)
        usual = {"seeded": True, "image_shapes": {}}
        return {name: value for name, value in values.items() if name not in usual or value != usual[name]}
