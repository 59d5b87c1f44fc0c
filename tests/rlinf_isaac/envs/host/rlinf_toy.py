"""The plane of `toy.py` with the interface of RLinf's environments. It needs numpy and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

STEP = 0.1


class Planes:
    """Points in [-1, 1]^2 that start where the generator of the config's seed puts them; solved within 0.05 of 0."""

    def __init__(self, cfg: Any, num_envs: int, seed_offset: int, total_num_processes: int, worker_info: Any) -> None:
        assert not cfg.auto_reset
        assert not cfg.ignore_terminations
        self.cfg, self.num_envs = cfg, num_envs
        self.generator = np.random.default_rng(cfg.seed + seed_offset)

    def reset(self) -> tuple[dict[str, Any], dict[str, Any]]:
        self.points = self.generator.uniform(-1, 1, (self.num_envs, 2))
        self.elapsed = 0
        self.names = [f"push point {k}" for k in self.generator.integers(0, 100, self.num_envs)]
        return self._observation(), {}

    def chunk_step(self, actions: torch.Tensor) -> tuple[Any, ...]:
        observations, flags, infos = [], [], []
        for t in range(actions.shape[1]):
            self.points = self.points + STEP * actions[:, t].numpy()
            self.elapsed += 1
            solved = torch.tensor(np.linalg.norm(self.points, axis=1) < 0.05)
            cut = torch.full((self.num_envs,), self.elapsed >= self.cfg.max_episode_steps)
            observations.append(self._observation())
            flags.append((solved.float() * self.cfg.reward_coef, solved, cut))
            infos.append(
                {
                    "success": [float(each) for each in solved],
                    "names": self.names,
                    "episode": {"success_once": solved, "return": solved.float()},
                }
            )
        rewards, terminated, truncated = (torch.stack(each, 1) for each in zip(*flags, strict=True))
        return observations, rewards, terminated, truncated, infos

    def _observation(self) -> dict[str, Any]:
        images = torch.full((self.num_envs, 6, 8, 3), self.elapsed % 256, dtype=torch.uint8)
        places = np.clip((self.points + 2) * [2, 1.5], 0, [7, 5]).astype(int)
        images[torch.arange(self.num_envs), places[:, 1], places[:, 0]] = 200
        observation = {
            "main_images": images,
            "wrist_images": None,
            "extra_view_images": torch.stack([images + 1, images + 2], 1),
            "states": torch.tensor(self.points, dtype=torch.float32),
        }
        return observation | ({"task_descriptions": self.names} if self.cfg.get("speaks", True) else {})
