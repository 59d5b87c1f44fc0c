"""The job that begins a task's file: what a dataset says of its own robot, as commented YAML for a person to finish."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.jobs import options
from rlinf_isaac.tasks.read import from_dict
from rlinf_isaac.tasks.task import OF_DATASET, SLOTS, Task

if TYPE_CHECKING:
    from rlinf_isaac.data.lerobot.format import Feature
    from rlinf_isaac.data.lerobot.meta import DatasetMeta
    from rlinf_isaac.preflight.findings import Findings

BASE, LEFT, RIGHT = SLOTS
ON_THE_HAND = ("wrist", "hand", "gripper", "eef", "palm")
"""Words in the names of cameras that move with a hand."""
SCENE = ("high", "top", "overhead", "base", "front", "exterior", "external", "agentview", "head", "third", "main")
ANY_CAMERA = ("scene", "image", "cam", "camera", "rgb", "side", "low", "back")
WHOLE_SCENE = (*SCENE, *ANY_CAMERA)
"""Words in the names of cameras that see the whole scene, the best ones first."""
MANY_PROMPTS = 5
"""More prompts than this are left to the dataset."""
ALOHA_DIMS = 14


@dataclass(frozen=True)
class Draft:
    """The beginning of a task's file.

    Attributes:
        path: where it goes.
        text: its content.
        task: the task that the text describes.
        root: the dataset's.
    """

    path: Path
    text: str
    task: Task
    root: Path

    def write(self) -> None:
        """Write the file.

        Raises:
            InvalidJob: there is one already.
        """
        try:
            with self.path.open("x", encoding="utf-8") as file:
                file.write(self.text)
        except FileExistsError:
            raise _exists(self.path) from None


def check(findings: Findings, *, dataset: str, repo_id: str, output: Path) -> Draft | None:
    """The file for a dataset, unless `findings` has errors. What it cannot know is among the warnings."""
    from rlinf_isaac.config import load_config
    from rlinf_isaac.config.task import filled_with
    from rlinf_isaac.data.lerobot.meta import read_meta
    from rlinf_isaac.preflight import check_dataset

    with findings.collect():
        if dataset == options.NONE:
            cause = "there is no --dataset whose robot the file would describe"
            raise InvalidJob.of("no-dataset", cause, "pass --dataset, its directory or a repo id")
        if output.exists():
            raise _exists(output)
        if not output.absolute().parent.is_dir():
            cause = f"there is no directory {output.absolute().parent}, in which {output.name} would lie"
            raise InvalidJob.of("no-directory", cause, "make it, or give another --output")
        root = options.find_dataset(dataset, repo_id)
        meta = read_meta(root)
        text = draft(meta, root)
        task = _read(text, output)
        findings.add(check_dataset(filled_with(load_config("tiny"), task), root))
        return Draft(output, text, task, root)
    return None


def _read(text: str, path: Path) -> Task:
    import yaml

    return from_dict(yaml.safe_load(text), str(path), path.absolute().parent)


def _exists(path: Path) -> InvalidJob:
    return InvalidJob.of("task-exists", f"{path} exists already", "give another --output, or move it away")


def draft(meta: DatasetMeta, root: Path) -> str:
    """The text of a task's file for this dataset.

    Raises:
        InvalidJob: it has no state or no action.
    """
    state, action = _vector(meta, root, "state"), _vector(meta, root, "action")
    lines = [
        f"# A task, begun from the features of the dataset {_yaml(root.name)}. docs/tasks.md explains every key.",
        f"name: {_yaml(re.sub(r'[^A-Za-z0-9_.-]+', '-', root.name).strip('-') or 'task')}",
        *_prompt_lines(list(meta.tasks.values())),
        f"control_hz: {meta.fps}",
    ]
    if meta.robot_type and meta.robot_type.strip() not in ("unknown", options.NONE):
        lines += [f"robot: {_yaml(meta.robot_type)}   # norm stats are filed under this name"]
    lines += [
        "",
        "# Slot of the model -> camera of the dataset. base_0_rgb sees the whole scene, the others sit on the hands; a",
        "# slot that is left out is masked.",
        *_camera_lines({name: each for name, each in meta.features.items() if each.is_visual}),
        "",
        "# What the policy reads besides images, and what it gives, in the dataset's own units.",
        *_vector_lines("state", state, meta.features[state]),
        *_vector_lines("action", action, meta.features[action]),
        "  delta: none   # dims that the model learns relative to the state: 6,-1 are six that are and one that is not",
        "  # clip: [-1, 1]   # lowest and highest value that the environment takes",
    ]
    if (meta.features[state].shape, meta.features[action].shape) == ((ALOHA_DIMS,), (ALOHA_DIMS,)):
        lines += ["# adapt: aloha   # for an ALOHA and a base of OpenPI's: joints and grippers as pi0 knows them"]
    return "\n".join([*lines, ENVIRONMENT, ""])


ENVIRONMENT = """
# Where the task is played, for demos, eval and rl. Without it there is doctor, norm_stats, sft, bundle and serve. Each
# camera and the state then say where they are in the environment's observation:
#   base_0_rgb: {dataset: observation.images.top, env: pixels/top}
#   state: {..., env: agent_pos}
# env:
#   kind: gymnasium
#   make: my_package/MyTask-v0   # an environment's id, package.module:function, or file.py:function beside this file
#   success: info.is_success     # or reward>=1, info.distance<=0.02, terminated
#   dwell: 1                     # for so many steps in a row
#   max_steps: 400
#   python: ~/venvs/my-env/bin/python   # where the environment's packages are
# expert: my_package.experts:make         # for demos"""


def _prompt_lines(prompts: Sequence[str]) -> Iterator[str]:
    usable = all(prompt.strip() and prompt not in (OF_DATASET, options.NONE) for prompt in prompts)
    if usable and len(prompts) == 1:
        yield f"prompt: {_yaml(prompts[0])}"
    elif usable and 1 < len(prompts) <= MANY_PROMPTS:
        yield "prompts:   # an episode that is played has the one that its seed picks"
        yield from (f"  - {_yaml(prompt)}" for prompt in prompts)
    else:
        shown = ", ".join(_yaml(prompt) for prompt in prompts[:2])
        yield f"prompt: {OF_DATASET}   # that of each episode, as {shown}" if shown else f"prompt: {OF_DATASET}"


def _camera_lines(cameras: Mapping[str, Feature]) -> Iterator[str]:
    slots = assign_cameras(cameras)
    yield "cameras:" if slots else "cameras: {}"
    for slot, name in slots.items():
        height, width = cameras[name].shape[:2]
        yield f"  {slot}: {_yaml(name)}   # {width} x {height}"
    for name in cameras:
        if name not in slots.values():
            yield f"  # not seen: {_yaml(name)}"


def assign_cameras(names: Iterable[str]) -> dict[str, str]:
    """Slot of the model -> camera, by the words in the cameras' names: one on a hand, by its side; of the others the
    one that sees most of the scene. What is named left or right takes a hand's place where no camera is on that hand.
    Other cameras have no place."""
    words = {name: _words(name) for name in names}
    hands = [name for name, own in words.items() if own & set(ON_THE_HAND)]
    slots: dict[str, str] = {}
    for side, slot in (("left", LEFT), ("right", RIGHT)):
        sided = [name for name in hands if side in words[name]]
        if sided:
            slots[slot] = sided[0]
    for name in hands:
        free = [slot for slot in (LEFT, RIGHT) if slot not in slots]
        if free and name not in slots.values():
            slots[free[0]] = name
    others = sorted((name for name in words if name not in hands), key=lambda name: _rank(words[name]))
    if others:
        slots[BASE] = others.pop(0)
    for side, slot in (("left", LEFT), ("right", RIGHT)):
        sided = [name for name in others if side in words[name]]
        if sided and slot not in slots:
            slots[slot] = sided[0]
    return {slot: slots[slot] for slot in SLOTS if slot in slots}


def _words(name: str) -> set[str]:
    """The words of the last part of a feature's name: ``observation.images.cam_leftWrist2`` -> cam, left, wrist."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name.removeprefix("observation.images."))}


def _rank(words: set[str]) -> int:
    if words & {"left", "right"} and not words & set(SCENE):
        return len(WHOLE_SCENE) + 1
    return min((place for place, word in enumerate(WHOLE_SCENE) if word in words), default=len(WHOLE_SCENE))


def _vector(meta: DatasetMeta, root: Path, kind: str) -> str:
    """The name of the state's or the action's feature."""
    vectors = [name for name, each in meta.features.items() if _is_vector(each)]
    usual = ("observation.state", "state") if kind == "state" else ("action", "actions")
    found = [name for name in (*usual, *vectors) if name in vectors and kind in name.lower()]
    if not found:
        cause = f"{root} has no feature that would be the {kind}; its vectors are {', '.join(vectors) or 'none'}"
        raise InvalidJob.of("no-feature", cause, f"write the file by hand, as docs/tasks.md says ({kind}: dataset)")
    return found[0]


def _is_vector(feature: Feature) -> bool:
    return len(feature.shape) == 1 and feature.dtype.startswith("float")


def _vector_lines(key: str, name: str, feature: Feature) -> Iterator[str]:
    yield f"{key}:"
    yield f"  dataset: {_yaml(name)}"
    yield f"  dims: {feature.shape[0]}"
    if feature.dim_names is not None:
        yield f"  names: [{', '.join(map(_yaml, feature.dim_names))}]"
    elif feature.names and len(feature.names) == feature.shape[0] > 1:
        yield f"  # names: [{', '.join(map(_yaml, feature.names))}]   # the dataset's; take them if they mean something"
    else:
        yield "  # names: a name for each, to have them compared"


def _yaml(text: str) -> str:
    """A text as YAML on one line. What does not print is escaped: some of it would end the line."""
    import yaml

    plain = text.isprintable()
    style = None if plain else '"'  # the other styles break the line where the text has a line break
    dumped = yaml.safe_dump(
        [text], default_flow_style=True, default_style=style, allow_unicode=plain, width=float("inf")
    )
    return dumped.strip()[1:-1]
