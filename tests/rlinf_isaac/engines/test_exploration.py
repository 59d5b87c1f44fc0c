"""The draws of both engines. That what was done is scored as it was drawn, bit by bit: local/rl/test_update.py."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from support import small_config

from rlinf_isaac.engines.exploration import exploration_draws
from rlinf_isaac.pi0.flow_policy import FlowActorCritic
from rlinf_isaac.pi0.model import Pi0

PROJECT = Path(__file__).parents[3]
ENGINES = ("rlinf_isaac/engines/local/rl/explorer.py", "rlinf_isaac/engines/rlinf/worker/rlinf_pi0.py")
KEYS = [(4, 3, 17, 2), (4, 3, 0, 0), (4, 3, 1_000_005, 9)]


def make_policy(*overrides: str) -> FlowActorCritic:
    config = small_config(["rl.seed=11", *overrides])
    return FlowActorCritic(Pi0(config.model), config.policy, config.rl)


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        (["rl.noise_steps=1"], 1),
        (["rl.noise_steps=2"], 2),
        (["rl.noise_steps=0"], None),
        (["rl.exploration=flow_noise"], None),
    ],
)
def test_a_row_is_a_function_of_the_seed_and_its_key(overrides, steps):
    """Written down once more: a training that goes on after a kill, or is repeated, needs these very numbers."""
    policy = make_policy(*overrides)
    total = policy.policy.denoise_steps
    shape, count = (policy.model.config.action_horizon, policy.model.config.action_dim), steps or total
    draws = exploration_draws(policy, KEYS)
    for row, key in enumerate(KEYS):
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((11, *key))))
        assert torch.equal(draws.start[row], torch.from_numpy(generator.standard_normal(shape, dtype=np.float32)))
        noise = generator.standard_normal((count, *shape), dtype=np.float32)
        assert torch.equal(draws.noise[row], torch.from_numpy(noise))
        assert draws.steps[row].tolist() == sorted(generator.permutation(total)[:count].tolist())


def test_a_row_does_not_depend_on_the_others():
    policy = make_policy("rl.noise_steps=2")
    together, alone = exploration_draws(policy, KEYS), exploration_draws(policy, KEYS[1:2])
    for whole, one in zip(together, alone, strict=True):
        assert torch.equal(whole[1:2], one)
    other = exploration_draws(policy, [(5, *KEYS[1][1:])])
    assert not torch.equal(other.start, alone.start)


def test_the_engines_have_streams_of_their_own():
    """RLinf's worker cannot be imported here."""
    streams = {}
    for name in ENGINES:
        for node in ast.parse((PROJECT / name).read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "STREAM":
                streams[name] = ast.literal_eval(node.value)
    assert streams == dict(zip(ENGINES, (4, 5), strict=True))
