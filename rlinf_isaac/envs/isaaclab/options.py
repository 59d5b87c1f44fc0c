"""The section `env.options` of a task of the kind ``isaaclab``, read and checked.

This module needs the standard library alone: the preflight and IsaacLab's own interpreter both import it.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LAUNCHERS = ("newton", "kit")
"""How IsaacLab is started: on Newton's physics and renderer alone, or with Isaac Sim."""
ASSETS = ("own", "standin")
"""Whose files a scene is loaded from: those that IsaacLab names, or this project's stand-ins for some of them."""
CONVENTIONS = ("ros", "opengl", "world")
Vector = tuple[float, ...]


@dataclass(frozen=True)
class CameraOptions:
    """A camera that is added to the scene, or what is changed of one that is there. None leaves a value as it is.

    Attributes:
        prim: where the camera hangs, below the env's namespace: ``Robot/panda_hand/wrist``.
        pos: position in the parent's frame, metres.
        rot: its rotation xyzw there, in IsaacLab's `convention`.
        look_at: the point in the parent's frame that it looks at, with the parent's z up; instead of `rot`.
        convention: of `rot`, as IsaacLab's ``CameraCfg.OffsetCfg``.
        width, height: pixels.
        focal_length: with IsaacLab's aperture of 20.955 (both in mm): 24 is 47 degrees wide.
        clip: nearest and farthest distance that is drawn, metres.
    """

    prim: str | None = None
    pos: Vector | None = None
    rot: Vector | None = None
    look_at: Vector | None = None
    convention: str = "ros"
    width: int | None = None
    height: int | None = None
    focal_length: float | None = None
    clip: Vector | None = None


@dataclass(frozen=True)
class TermOptions:
    """A termination term that is added to the task.

    Attributes:
        func: ``module:function``, or ``file.py:function`` beside the task's file; called as IsaacLab calls its own
            terms, with the environment and `params`; gives (N,) bool.
        params: its keyword arguments.
    """

    func: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LabOptions:
    """How a task of IsaacLab is built.

    Attributes:
        launcher: one of `LAUNCHERS`.
        assets: one of `ASSETS`.
        overrides: of its config, as IsaacLab's scripts take them: ``env.episode_length_s=8``.
        cameras: name in the scene -> camera.
        terminations: name -> term.
    """

    launcher: str = "newton"
    assets: str = "own"
    overrides: tuple[str, ...] = ()
    cameras: Mapping[str, CameraOptions] = field(default_factory=dict)
    terminations: Mapping[str, TermOptions] = field(default_factory=dict)


def read_options(options: Mapping[str, Any]) -> tuple[LabOptions, list[str]]:
    """The options, and everything that is wrong with them."""
    wrong: list[str] = []
    _known(options, LabOptions, "env.options", wrong)
    found: dict[str, Any] = {}
    for key, choices in (("launcher", LAUNCHERS), ("assets", ASSETS)):
        found[key] = options.get(key, choices[0])
        if found[key] not in choices:
            wrong.append(f"env.options.{key} is {found[key]!r}, neither {' nor '.join(choices)}")
    overrides = options.get("overrides") or ()
    if not isinstance(overrides, list | tuple) or not all(isinstance(each, str) and "=" in each for each in overrides):
        wrong.append(f"env.options.overrides is {overrides!r}, not a list of texts like env.episode_length_s=8")
        overrides = ()
    found["overrides"] = tuple(overrides)
    for key, read in (("cameras", _camera), ("terminations", _term)):
        section = options.get(key) or {}
        made: dict[str, Any] = {}
        found[key] = made
        if not isinstance(section, Mapping):
            wrong.append(f"env.options.{key} is {section!r}, not a section with a name for each")
            continue
        for name, values in section.items():
            place = f"env.options.{key}.{name}"
            if not str(name).isidentifier():
                wrong.append(f"{place}: use letters, digits and _ for the name")
            elif not isinstance(values, Mapping):
                wrong.append(f"{place} is {values!r}, not a section")
            elif (each := read(values, place, wrong)) is not None:
                made[str(name)] = each
    return LabOptions(**found), wrong


def look_at(pos: Sequence[float], target: Sequence[float]) -> tuple[float, float, float, float]:
    """Rotation xyzw of a camera at `pos` that looks at `target` with z up, in IsaacLab's convention ``world``, where a
    camera looks along x: a turn about z, and one about the new y before it."""
    x, y, z = (to - at for at, to in zip(pos, target, strict=True))
    yaw, pitch = math.atan2(y, x) / 2, -math.atan2(z, math.hypot(x, y)) / 2
    return (
        -math.sin(yaw) * math.sin(pitch),
        math.cos(yaw) * math.sin(pitch),
        math.sin(yaw) * math.cos(pitch),
        math.cos(yaw) * math.cos(pitch),
    )


def _camera(values: Mapping[str, Any], place: str, wrong: list[str]) -> CameraOptions | None:
    count = len(wrong)
    _known(values, CameraOptions, place, wrong)
    found: dict[str, Any] = {}
    for key, size in (("pos", 3), ("rot", 4), ("look_at", 3), ("clip", 2)):
        value = values.get(key)
        if value is not None:
            if not _numbers(value, size):
                wrong.append(f"{place}.{key} is {value!r}, not a list of {size} numbers")
            else:
                found[key] = tuple(map(float, value))
    for key, types in (("width", int), ("height", int), ("focal_length", (int, float))):
        value = values.get(key)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, types) or value <= 0:
                wrong.append(f"{place}.{key} is {value!r}, not a {'whole ' if types is int else ''}number above 0")
            else:
                found[key] = value
    prim, convention = values.get("prim"), values.get("convention", "ros")
    if prim is not None and (not isinstance(prim, str) or not prim.strip("/")):
        wrong.append(f"{place}.prim is {prim!r}, not a path like Robot/panda_hand/wrist")
    if convention not in CONVENTIONS:
        wrong.append(f"{place}.convention is {convention!r}, none of {', '.join(CONVENTIONS)}")
    if "rot" in found and "look_at" in found:
        wrong.append(f"{place} has rot and look_at: write one of them")
    if "look_at" in found and "pos" not in found:
        wrong.append(f"{place} has look_at but no pos")
    return CameraOptions(prim, convention=convention, **found) if len(wrong) == count else None


def _term(values: Mapping[str, Any], place: str, wrong: list[str]) -> TermOptions | None:
    count = len(wrong)
    _known(values, TermOptions, place, wrong)
    func, params = values.get("func"), values.get("params") or {}
    if not isinstance(func, str) or ":" not in func:
        wrong.append(f"{place}.func is {func!r}, not module:function or file.py:function")
    if not isinstance(params, Mapping):
        wrong.append(f"{place}.params is {params!r}, not a section of keyword arguments")
    return TermOptions(str(func), dict(params)) if len(wrong) == count else None


def _known(values: Mapping[str, Any], of: Any, place: str, wrong: list[str]) -> None:
    keys = tuple(of.__dataclass_fields__)
    for key in values:
        if key not in keys:
            near = difflib.get_close_matches(str(key), keys, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(keys)}"
            wrong.append(f"{place} has no key {key!r}; {hint}")


def _numbers(value: Any, size: int) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == size
        and all(isinstance(each, int | float) and not isinstance(each, bool) for each in value)
    )
