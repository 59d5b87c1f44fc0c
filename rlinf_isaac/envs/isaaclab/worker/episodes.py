"""Episodes of single rows in an environment of IsaacLab: each ends where it ends, and begins when it is asked to.

IsaacLab resets an env within the step that ends its episode, from random generators that all envs share. Here a step
leaves the env in its final state, and rows are reset by themselves.

Two errors of IsaacLab 3.0.0 on Newton are corrected here and in `config`. After a reset, frames of bodies are those of
the previous episode until the next step. And a camera stays where it was at the last reset, because by default the
renderer gets its pose only then.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch


def episodic(base: type) -> type:
    """The class of an environment (``ManagerBasedRLEnv``, or one derived from ``DirectRLEnv``), which starts no episode
    by itself: the observation at the end of one is the terminal one."""

    class Episodic(base):
        def _reset_idx(self, env_ids: Iterable[int]) -> None:
            pass

        def reset_rows(self, env_ids: torch.Tensor) -> None:
            """Reset rows as IsaacLab does: scene, events of the mode ``reset``, managers."""
            super()._reset_idx(env_ids)

    Episodic.__module__ = base.__module__  # `host.worker.make.provider` asks whose it is
    Episodic.__name__ = base.__name__
    return Episodic


def physics_of(env: Any) -> str:
    """What computes the physics, as IsaacLab's selector ``physics=`` has it: ``newton_mjwarp``, ``isaacsim_physx``."""
    from isaaclab_newton.physics import MJWarpSolverCfg, NewtonCfg

    physics = env.cfg.sim.physics
    if isinstance(physics, NewtonCfg):
        if isinstance(physics.solver_cfg, MJWarpSolverCfg):
            return "newton_mjwarp"
        return f"newton_{type(physics.solver_cfg).__name__.removesuffix('SolverCfg').lower()}"
    return {"PhysxCfg": "isaacsim_physx"}.get(type(physics).__name__, type(physics).__name__)


def is_newton(env: Any) -> bool:
    """Whether the environment runs on Newton's physics."""
    return physics_of(env).startswith("newton")


def refresh(env: Any, rows: torch.Tensor | None = None) -> None:
    """Bring bodies, frames, cameras and the observation up to date after a state was written.

    Args:
        env: the environment.
        rows: whose sensors are told; None: those of all.
    """
    env.scene.write_data_to_sim()
    env.sim.forward()
    if is_newton(env):
        from isaaclab_newton.physics import NewtonManager

        # forward() updates the bodies, but IsaacLab 3.0.0 updates the frame sensors only in a physics step.
        NewtonManager._update_sensors(None)
    for sensor in env.scene.sensors.values():
        sensor.reset(rows)
    if not is_newton(env):
        for _ in range(max(1, env.cfg.num_rerenders_on_reset)):  # RTX draws an image only after some frames
            env.sim.render()
    if hasattr(env, "observation_manager"):
        env.obs_buf = env.observation_manager.compute(update_history=True)
    else:
        env.obs_buf = env._compute_observations()


def record_physics(env: Any) -> None:
    """On a CPU, record the kernels of a physics step once, to replay them instead of launching them one by one.

    Launching them from Python takes longer than running them for one env. On a GPU, IsaacLab records a CUDA graph. Warp
    can record on a CPU too, but IsaacLab 3.0.0 does not use that. The results are the same, bit by bit.
    """
    if env.sim.device != "cpu" or physics_of(env) != "newton_mjwarp":
        return
    import warp
    from isaaclab_newton.physics.mjwarp_manager import NewtonMJWarpManager as Manager

    env.step(torch.zeros((env.num_envs, *env.single_action_space.shape)))  # loads the kernels
    name = "_simulate_full" if Manager._is_all_graphable() else "_simulate_physics_only"
    with warp.ScopedCapture(device="cpu") as capture:
        getattr(Manager, name)()
    setattr(Manager, name, lambda: warp.capture_launch(capture.graph))
