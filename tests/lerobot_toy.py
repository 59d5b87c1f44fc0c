"""A task and data for the real ``lerobot-train`` at its smallest: two numbers as state, and a gym environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_STATE

EPISODES, FRAMES, FPS = 2, 12, 10
gym.register("gym_toy/Toy-v0", entry_point="lerobot_toy:Toy")


class Toy(gym.Env):
    """Succeeds on even seeds, after three steps."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": FPS}  # noqa: RUF012

    def __init__(self, render_mode: str = "rgb_array", **others: Any) -> None:
        self.render_mode = render_mode
        box = gym.spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space = gym.spaces.Dict({"agent_pos": box, "environment_state": box})
        self.action_space, self._max_episode_steps = box, 4

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._even, self._steps = (seed or 0) % 2 == 0, 0
        return self._seen(), {"is_success": False}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        done = self._steps == 3
        return self._seen(), float(done and self._even), done, False, {"is_success": done and self._even}

    def render(self) -> Any:
        return np.full((32, 32, 3), 20 * self._steps, np.uint8)

    def task_description(self) -> str:
        return "toy"

    def _seen(self) -> dict[str, Any]:
        return {"agent_pos": np.zeros(2, np.float32), "environment_state": np.ones(2, np.float32)}


@EnvConfig.register_subclass("toy")
@dataclass
class ToyConfig(EnvConfig):
    task: str | None = "Toy-v0"
    fps: int = FPS
    features: dict[str, PolicyFeature] = field(
        default_factory=lambda: {
            ACTION: PolicyFeature(FeatureType.ACTION, (2,)),
            "agent_pos": PolicyFeature(FeatureType.STATE, (2,)),
            "environment_state": PolicyFeature(FeatureType.ENV, (2,)),
        }
    )
    features_map: dict[str, str] = field(
        default_factory=lambda: {ACTION: ACTION, "agent_pos": OBS_STATE, "environment_state": OBS_ENV_STATE}
    )

    @property
    def package_name(self) -> str:
        return "lerobot_toy"

    @property
    def gym_id(self) -> str:
        return "gym_toy/Toy-v0"

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        return {}


def make_data(root: Path, repo_id: str = "toys/two") -> Path:
    """A dataset of lerobot's own making."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    box = {"dtype": "float32", "shape": (2,), "names": ["x", "y"]}
    data = LeRobotDataset.create(repo_id, FPS, {OBS_STATE: box, OBS_ENV_STATE: box, ACTION: box}, root=root)
    random = np.random.default_rng(0)
    for _ in range(EPISODES):
        for _ in range(FRAMES):
            frame = {name: random.normal(size=2).astype(np.float32) for name in (OBS_STATE, OBS_ENV_STATE, ACTION)}
            data.add_frame({**frame, "task": "toy"})
        data.save_episode()
    if hasattr(data, "finalize"):
        data.finalize()
    return root


def arguments(data: Path, output: Path, **options: Any) -> list[str]:
    """Arguments of ``lerobot-train`` for six steps of a tiny ACT, with two evaluations and two checkpoints."""
    values = {
        "dataset.repo_id": "toys/two",
        "dataset.root": data,
        "output_dir": output,
        "policy.type": "act",
        "policy.device": "cpu",
        "policy.push_to_hub": "false",
        "policy.dim_model": 16,
        "policy.n_heads": 2,
        "policy.dim_feedforward": 16,
        "policy.n_encoder_layers": 1,
        "policy.n_vae_encoder_layers": 1,
        "policy.chunk_size": 4,
        "policy.n_action_steps": 2,
        "env.type": "toy",
        "eval.n_episodes": 4,
        "eval.batch_size": 2,
        "eval.use_async_envs": "false",
        "eval_freq": 3,
        "save_freq": 3,
        "log_freq": 1,
        "steps": 6,
        "batch_size": 2,
        "num_workers": 0,
    } | options
    from lerobot.configs.train import TrainPipelineConfig

    if "env_eval_freq" in TrainPipelineConfig.__dataclass_fields__:  # its name since lerobot 0.6
        values["env_eval_freq"] = values.pop("eval_freq")
    return [f"--{key}={value}" for key, value in values.items()]
