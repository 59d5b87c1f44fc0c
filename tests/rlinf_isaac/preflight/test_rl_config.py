from __future__ import annotations

import pytest

from rlinf_isaac.config import load_config
from rlinf_isaac.preflight.config import check_config
from rlinf_isaac.preflight.rl_config import seed_ranges


def codes(*overrides: str) -> list[str]:
    return [problem.code for problem in check_config(load_config("tiny", overrides))]


def test_the_preset_is_sound():
    assert codes() == []


@pytest.mark.parametrize(
    "override",
    [
        "rl.algorithm=sac",
        "rl.exploration=ode",
        "rl.reward=dense",
        "rl.lr=0",
        "rl.lr=.nan",
        "rl.gamma=1.1",
        "rl.clip_ratio=1",
        "rl.dual_clip=1",
        "rl.group_size=1",
        "rl.workers=0",
        "rl.value_widths=[0]",
        "rl.target_kl=-1",
    ],
)
def test_a_value_out_of_range(override):
    assert codes(override) == ["bad-value"]


@pytest.mark.parametrize(
    ("overrides", "code"),
    [
        (["rl.num_envs=9", "rl.workers=2"], "rl-workers"),
        (["rl.algorithm=grpo", "rl.episodes=30", "rl.group_size=8"], "rl-groups"),
        (["rl.exploration=flow_noise", "rl.noise_min=0.2"], "rl-noise"),
        (["rl.first_seed=5010"], "rl-seeds"),
        (["rl.first_seed=0", "rl.iterations=40"], "rl-seeds"),
        (["rl.eval_first_seed=5049"], "rl-seeds"),
        (["rl.eval_first_seed=5050"], None),
        (["eval.episodes=1000000"], "rl-seeds"),
    ],
)
def test_values_that_do_not_fit_each_other(overrides, code):
    found = set(codes(*overrides))
    assert found == ({code} if code else set())


def test_grpo_uses_fewer_seeds():
    config = load_config("tiny", ["rl.algorithm=grpo", "rl.episodes=32", "rl.group_size=8", "rl.iterations=2"])
    assert len(seed_ranges(config)["rl.first_seed"]) == 8
