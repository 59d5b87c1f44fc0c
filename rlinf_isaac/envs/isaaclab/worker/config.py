"""The config of any task of IsaacLab, changed so that its episodes are single rows' and its images are drawn on demand.

It is the config that IsaacLab's play scripts use (``play_mode``: no noise on observations), without what the rows would
share: curricula, and events at intervals, which draw from one random generator for all.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from rlinf_isaac.envs.host.worker.make import find_function
from rlinf_isaac.envs.isaaclab.options import CameraOptions, LabOptions, look_at

NEWTON = "newton_mjwarp"
"""IsaacLab's name of Newton's physics with MuJoCo-Warp's solver."""
CAMERAS = "cameras"
"""First part of the path of an image that no observation of the task has."""
INTERVAL = "interval"
RGB = ("image", "image_rgb")
"""IsaacLab's functions of an observation that is an image."""


class LabConfig(NamedTuple):
    """A config, and how it is started.

    Attributes:
        cfg: IsaacLab's ``ManagerBasedRLEnvCfg`` or ``DirectRLEnvCfg``.
        base: the class of the environment.
        images: path in the observation -> the camera's name in the scene.
        arguments: of IsaacLab's ``launch_simulation``; Kit's are without effect where it does not start.
    """

    cfg: Any
    base: type
    images: dict[str, str]
    arguments: dict[str, Any]


def lab_config(
    make: str, options: LabOptions, num_envs: int, device: str, directory: str | None, sources: Mapping[str, str]
) -> LabConfig:
    """The config of a task.

    Args:
        make: IsaacLab's id, or a function that returns a config, as `tasks.task.Environment.make`.
        options: see there.
        num_envs: number of rows.
        device: torch device.
        directory, sources: as for `host.worker.make.make_environment`.

    Raises:
        ValueError: IsaacLab has no such task, the task has another form, or an option does not fit it. The message
            says what there is.
    """
    cfg, base = _find(make, options, directory, sources)
    if options.launcher == "newton" and not _on_newton(cfg):
        cfg.sim.physics = _newton()
    cfg.sim.device, cfg.scene.num_envs, cfg.seed = device, num_envs, 0
    if options.launcher == "newton":
        # Newton keeps each env in a separate world. With one origin for all, rounding does not depend on the row.
        cfg.scene.env_spacing = 0.0
        cfg.scene.replicate_physics = True  # otherwise the Newton model is empty
    cfg.sim.render_interval = cfg.decimation
    for name in ("curriculum", "observation_noise_model", "action_noise_model"):
        if hasattr(cfg, name):
            setattr(cfg, name, None)
    for name, event in list(vars(cfg.events).items()) if cfg.events else ():
        if getattr(event, "mode", None) == INTERVAL:
            setattr(cfg.events, name, None)
    _hide_markers(cfg)
    _add_terms(cfg, options, directory, sources)
    images = _cameras(cfg, options)
    return LabConfig(cfg, base, images, {"device": device, "headless": True, "enable_cameras": True})


def _find(make: str, options: LabOptions, directory: str | None, sources: Mapping[str, str]) -> tuple[Any, type]:
    """The config, and the class of its environment."""
    function = find_function(make, directory, sources)
    if function is not None:
        cfg = function()
        return cfg, _class_of(cfg)
    import gymnasium
    import isaaclab_tasks  # noqa: F401  (registers IsaacLab's tasks)

    name = make.rpartition(":")[2]
    known = sorted(id for id, spec in gymnasium.registry.items() if "env_cfg_entry_point" in spec.kwargs)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=5, cutoff=0.4) or known[:5]
        raise ValueError(f"IsaacLab has no task {name!r}; of its {len(known)} the nearest are {', '.join(near)}")
    cfg = _resolved(name, options.overrides)
    chosen = any(each.startswith("physics=") for each in options.overrides)
    if options.launcher == "newton" and not chosen and not _on_newton(cfg):
        with suppress(ValueError):  # the task has no such preset
            cfg = _resolved(name, [*options.overrides, f"physics={NEWTON}"])
    entry = gymnasium.spec(name).entry_point
    base = _loaded(entry) if isinstance(entry, str) else entry
    if not isinstance(base, type) or not hasattr(base, "_reset_idx") or hasattr(cfg, "possible_agents"):
        raise ValueError(f"{name} is made by {entry}, which is no environment of one agent")
    return cfg, base


def _resolved(name: str, overrides: Sequence[str]) -> Any:
    from isaaclab_tasks.utils.hydra import resolve_task_config

    return resolve_task_config(name, None, play_mode=True, overrides=list(overrides))[0]


def _loaded(entry: str) -> Any:
    from importlib import import_module

    module, _, name = entry.partition(":")
    return getattr(import_module(module), name)


def _class_of(cfg: Any) -> type:
    """The class of the environment of a manager-based config."""
    from isaaclab.envs import ManagerBasedRLEnv, ManagerBasedRLEnvCfg

    if not isinstance(cfg, ManagerBasedRLEnvCfg):
        raise ValueError(f"the function returns {type(cfg).__name__}, not a ManagerBasedRLEnvCfg")
    return ManagerBasedRLEnv


def _on_newton(cfg: Any) -> bool:
    from isaaclab_newton.physics import NewtonCfg

    return isinstance(cfg.sim.physics, NewtonCfg)


def _newton() -> Any:
    """Newton's physics for a task that has no preset of it: that of IsaacLab's stack tasks, a Franka at a table. The
    defaults integrate explicitly, with which a stiff arm of light links is unstable."""
    from isaaclab_tasks.contrib.stack.stack_env_cfg import PhysicsCfg

    return PhysicsCfg().newton_mjwarp


def _hide_markers(cfg: Any) -> None:
    """No markers of commands and frames: they are for people, would be in the images, and are loaded from files."""
    for section in (getattr(cfg, "commands", None), cfg.scene):
        for each in vars(section).values() if section is not None else ():
            if getattr(each, "debug_vis", False):
                each.debug_vis = False


def _add_terms(cfg: Any, options: LabOptions, directory: str | None, sources: Mapping[str, str]) -> None:
    from isaaclab.managers import TerminationTermCfg

    if options.terminations and not hasattr(cfg, "terminations"):
        raise ValueError("the task is of IsaacLab's direct workflow, which has no termination terms to add to")
    for name, term in options.terminations.items():
        func = find_function(term.func, directory, sources)
        if func is None:
            raise ValueError(f"terminations.{name}.func names {term.func}, and there is no such function")
        setattr(cfg.terminations, name, TerminationTermCfg(func=func, params=dict(term.params)))


def _cameras(cfg: Any, options: LabOptions) -> dict[str, str]:
    """Set up the cameras; returns path in the observation -> camera.

    Terms of the observation that are images are taken out, as they would be drawn with every step; the images keep
    their paths. Images of other cameras have the path ``cameras/NAME``.
    """
    from isaaclab.sensors import CameraCfg

    for name, chosen in options.cameras.items():
        there = getattr(cfg.scene, name, None)
        if there is not None and not isinstance(there, CameraCfg):
            raise ValueError(f"cameras.{name} is {type(there).__name__} in the scene of the task, and no camera")
        setattr(cfg.scene, name, _changed(there, name, chosen))
    cameras = {name: each for name, each in vars(cfg.scene).items() if isinstance(each, CameraCfg)}
    for each in cameras.values():
        each.update_latest_camera_pose = True  # otherwise the camera stays at its pose of the last reset
        if options.launcher == "newton":
            from isaaclab_newton.renderers import NewtonWarpRendererCfg

            each.renderer_cfg = NewtonWarpRendererCfg()
    images, read_otherwise = {}, set()
    for group, terms in _groups(cfg).items():
        terms.concatenate_terms = False  # so that each term has its path
        for name, term in list(vars(terms).items()):
            params = getattr(term, "params", None) or {}
            sensor = getattr(params.get("sensor_cfg"), "name", None)
            if sensor in cameras and _is_image(term.func, params):
                images[f"{group}/{name}"] = sensor
                setattr(terms, name, None)
            elif sensor in cameras:
                read_otherwise.add(sensor)
    for name, each in cameras.items():
        each.data_types = ["rgb", *(each.data_types if name in read_otherwise else ())]
    return images | {f"{CAMERAS}/{name}": name for name in cameras if name not in images.values()}


def _changed(camera: Any, name: str, chosen: CameraOptions) -> Any:
    """A camera of the scene with what is chosen, or a new one."""
    from isaaclab.sensors import CameraCfg
    from isaaclab.sim import PinholeCameraCfg

    if camera is None:
        if missing := [key for key in ("prim", "pos", "width", "height") if getattr(chosen, key) is None]:
            raise ValueError(f"cameras.{name} is new in the scene of the task, and has no {', '.join(missing)}")
        camera = CameraCfg(
            prim_path="",
            spawn=PinholeCameraCfg(focal_length=24.0, horizontal_aperture=20.955, clipping_range=(0.05, 20.0)),
            width=chosen.width,
            height=chosen.height,
        )
    if chosen.prim is not None:
        camera.prim_path = f"{{ENV_REGEX_NS}}/{chosen.prim.strip('/')}"
    for key in ("width", "height"):
        if getattr(chosen, key) is not None:
            setattr(camera, key, getattr(chosen, key))
    if chosen.pos is not None:
        camera.offset.pos = chosen.pos
    if chosen.look_at is not None:
        camera.offset.rot, camera.offset.convention = look_at(chosen.pos or (), chosen.look_at), "world"
    elif chosen.rot is not None:
        camera.offset.rot, camera.offset.convention = chosen.rot, chosen.convention
    if chosen.focal_length is not None:
        camera.spawn.focal_length = chosen.focal_length
    if chosen.clip is not None:
        camera.spawn.clipping_range = chosen.clip
    return camera


def _groups(cfg: Any) -> dict[str, Any]:
    """The groups of the observation of a manager-based config."""
    observations = getattr(cfg, "observations", None)
    groups = vars(observations) if observations is not None else {}
    return {name: each for name, each in groups.items() if hasattr(each, "concatenate_terms")}


def _is_image(func: Any, params: Mapping[str, Any]) -> bool:
    """Whether a term of the observation is the RGB image of now. IsaacLab may not have loaded its function yet."""
    name = getattr(func, "__name__", None) or str(func).rpartition(":")[2]
    return name in RGB and params.get("data_type", "rgb") == "rgb" and params.get("frame_stack", 1) == 1
