"""Runs in an interpreter with lerobot: its own evaluation loops in a toy environment."""

import json
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import torch
from lerobot.scripts import lerobot_eval as L

torch.set_num_threads(1)


class Toy(gym.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    observation_space = gym.spaces.Dict({"agent_pos": gym.spaces.Box(-1, 1, (2,), np.float32)})
    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    _max_episode_steps = 5

    def __init__(self):
        self.render_mode = "rgb_array"

    def task_description(self):
        return "toy"

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        self.goal = self.np_random.random()
        return {"agent_pos": np.zeros(2, np.float32)}, {}

    def step(self, a):
        self.t += 1
        won = self.t == 4 and self.goal < 0.5
        return {"agent_pos": np.zeros(2, np.float32)}, float(won), won, self.t >= 5, {"is_success": won}

    def render(self):
        return np.full((32, 32, 3), 40 * self.t, np.uint8)


class Policy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.p = torch.nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(device="cpu")

    def reset(self):
        pass

    def select_action(self, obs):
        return torch.zeros(next(iter(obs.values())).shape[0], 2)


L.PreTrainedPolicy = Policy


def same(x):
    return x


def env():
    return gym.vector.SyncVectorEnv([Toy for _ in range(2)], autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)


kw = dict(policy=Policy(), env_preprocessor=same, env_postprocessor=same, preprocessor=same, postprocessor=same)
a = Path("one")
a.mkdir(exist_ok=True)
info = L.eval_policy(env=env(), n_episodes=8, max_episodes_rendered=2, videos_dir=a / "videos", start_seed=1000, **kw)
(a / "eval_info.json").write_text(json.dumps(info, indent=2))
b = Path("several")
b.mkdir(exist_ok=True)
info = L.eval_policy_all(
    envs={"suite": {0: env(), 1: env()}},
    n_episodes=8,
    max_episodes_rendered=1,
    videos_dir=b / "videos",
    start_seed=1000,
    **kw,
)
(b / "eval_info.json").write_text(json.dumps(info, indent=2))
