"""Measures the success rate of the newest checkpoint during a training, on seeds that no other evaluation uses."""

from __future__ import annotations

import time

import numpy as np

from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.engines.policies import load_policy
from rlinf_isaac.engines.rollout import rollout
from rlinf_isaac.envs.lanes import Lanes, make_lanes


class Success:
    """Plays ``sft.eval_episodes`` episodes, with seeds from ``sft.eval_first_seed`` on, in its own environments."""

    def __init__(self, config: JobConfig, env_python: str | None = None) -> None:
        self._config, self._env_python = config, env_python
        self._env: Lanes | None = None

    def measure(self, bundle: Bundle) -> dict[str, float]:
        """``heldout/success_once``, ``heldout/episode_length`` (control steps), ``time/evaluation_s``."""
        began, config, sft = time.perf_counter(), self._config, self._config.sft
        if self._env is None:
            num_envs = min(config.eval.num_envs, sft.eval_episodes)
            self._env = make_lanes(config, num_envs, self._env_python)
        policy = load_policy(bundle, config)
        seeds = range(sft.eval_first_seed, sft.eval_first_seed + sft.eval_episodes)
        played = list(rollout(self._env, policy, seeds, policy_seed=config.eval.policy_seed))
        return {
            "heldout/success_once": float(np.mean([each.outcome == "success" for each in played])),
            "heldout/episode_length": float(np.mean([each.length for each in played])),
            "time/evaluation_s": time.perf_counter() - began,
        }

    def close(self) -> None:
        """Close the environments, if they were created."""
        if self._env is not None:
            self._env.close()
