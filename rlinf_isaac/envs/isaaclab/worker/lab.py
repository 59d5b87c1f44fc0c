"""N rows of any task of IsaacLab as a vector environment of gymnasium's form, without autoreset and with images on
demand. Runs in IsaacLab's interpreter.

Scene, managers, terms, physics and renderer are IsaacLab's. A row is reset by itself, after all random generators were
seeded with the episode's seed, so that what reset events and commands draw does not depend on other rows.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, ClassVar

import numpy as np
import torch

from rlinf_isaac.envs.isaaclab.worker.config import LabConfig
from rlinf_isaac.envs.isaaclab.worker.episodes import episodic, physics_of, record_physics, refresh

SEEDS = 2**32
"""numpy's old generator takes seeds below this."""


class Lab:
    """The rows.

    Attributes:
        env: IsaacLab's environment, which `unwrapped` names as well.
        num_envs: number of rows.
        images: path in the observation -> camera.
        physics: as `physics_of`.
        success: the termination term that is the task's success, if it is one. It ends no episode by itself.
    """

    metadata: ClassVar = {"autoreset_mode": "Disabled"}

    def __init__(self, config: LabConfig, success: str | None = None) -> None:
        """Start the simulator, and reset all rows; the seed of row i is i."""
        from isaaclab.app import launch_simulation

        self._open = ExitStack()
        self._open.enter_context(launch_simulation(config.cfg, config.arguments))
        self.env = self.unwrapped = episodic(config.base)(cfg=config.cfg)
        self.images, self.success, self.physics = config.images, success, physics_of(self.env)
        self.num_envs, self.single_action_space = self.env.num_envs, self.env.single_action_space
        self._seeds = list(range(self.num_envs))
        self._seed_commands()
        self._check()
        everywhere = np.ones(self.num_envs, bool)
        self.reset(seed=self._seeds, options={"reset_mask": everywhere})
        record_physics(self.env)
        self.reset(seed=self._seeds, options={"reset_mask": everywhere})

    def reset(self, seed: Sequence[int], options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start the episodes of these seeds (N,) in the rows of ``reset_mask`` (N,); returns the observation of all."""
        rows = np.flatnonzero(options["reset_mask"]).tolist()
        for row in rows:
            self._seeds[row] = seed[row]
        self._start(rows)
        refresh(self.env, self._ids(rows))
        return self._observation(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, Any], np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """One control step of every row with actions (N, A); what gymnasium's ``step`` gives. Rows whose episode has
        ended go on."""
        _, reward, terminated, truncated, _ = self.env.step(torch.as_tensor(actions, device=self.env.device))
        terms = self.terms()
        if self.success is not None:
            others = [name for name in self._ending if name != self.success]
            terminated = (
                torch.stack([terms[name] for name in others]).any(0) if others else torch.zeros_like(terminated)
            )
        info = {f"term/{name}": _numpy(value) for name, value in terms.items()} | self.metrics()
        return self._observation(), _numpy(reward), _numpy(terminated), _numpy(truncated), info

    def terms(self) -> dict[str, torch.Tensor]:
        """Name -> (N,) bool, the termination terms after the last step; none in IsaacLab's direct workflow."""
        manager = getattr(self.env, "termination_manager", None)
        return {name: manager.get_term(name) for name in manager.active_terms} if manager is not None else {}

    def metrics(self) -> dict[str, np.ndarray]:
        """``COMMAND/METRIC`` -> (N,), what the task's commands measure, such as the distance to a goal."""
        metrics = {name: term.metrics for name, term in self._commands().items()}
        return {f"{name}/{metric}": _numpy(value) for name, each in metrics.items() for metric, value in each.items()}

    def observe_images(self) -> dict[str, np.ndarray]:
        """Path -> (N, H, W, 3) uint8, drawn if the state has changed."""
        return {path: self.image(camera) for path, camera in self.images.items()}

    def image(self, camera: str) -> np.ndarray:
        """What a camera of the scene sees, (N, H, W, 3) uint8."""
        image = self.env.scene[camera].data.output["rgb"]
        return _numpy(getattr(image, "torch", image)[..., :3])

    def close(self) -> None:
        self.env.close()
        self._open.close()

    def _check(self) -> None:
        """Raise RuntimeError where the simulator was not built as it should be."""

    def _start(self, rows: Sequence[int]) -> None:
        """Start the episodes of `_seeds` in these rows, one after the other."""
        for row in rows:
            seed_generators(self._seeds[row])
            self.env.reset_rows(self._ids([row]))

    @property
    def _ending(self) -> list[str]:
        """The termination terms that end an episode otherwise than by its time."""
        manager = self.env.termination_manager
        return [name for name in manager.active_terms if not manager.get_term_cfg(name).time_out]

    def _observation(self) -> dict[str, Any]:
        """The observation as dicts of arrays (N, ...), without images."""
        return _numpy(dict(self.env.obs_buf))

    def _seed_commands(self) -> None:
        """Let a command that is drawn anew within an episode depend on the episode's seed, and on how often it was
        drawn before, alone."""
        for number, term in enumerate(self._commands().values()):

            def resample(env_ids: Any, term: Any = term, number: int = number, original: Any = term._resample) -> None:
                rows = range(self.num_envs)[env_ids] if isinstance(env_ids, slice) else env_ids.tolist()
                for row in rows:
                    count = int(term.command_counter[row])
                    seed_generators(np.random.SeedSequence([self._seeds[row], number, count]).generate_state(1)[0])
                    original(self._ids([row]))

            term._resample = resample

    def _commands(self) -> dict[str, Any]:
        """Name -> term, of the commands of the task; none in IsaacLab's direct workflow."""
        manager = getattr(self.env, "command_manager", None)
        return {} if manager is None else {name: manager.get_term(name) for name in manager.active_terms}

    def _ids(self, rows: Sequence[int]) -> torch.Tensor:
        return torch.tensor(rows, dtype=torch.int32, device=self.env.device)


def seed_generators(seed: int) -> None:
    """Seed every random generator that a term of IsaacLab may draw from."""
    random.seed(int(seed))
    np.random.seed(int(seed) % SEEDS)
    torch.manual_seed(int(seed))


def _numpy(value: Any) -> Any:
    """Tensors as new arrays, in dicts as well."""
    if isinstance(value, Mapping):
        return {name: _numpy(each) for name, each in value.items()}
    return torch.as_tensor(value).detach().cpu().numpy().copy()
