from __future__ import annotations

import pytest

from rlinf_isaac.config import load_config
from rlinf_isaac.preflight import check_config


def codes(problems):
    return [problem.code for problem in problems]


def test_the_shipped_cpu_presets_have_no_problem():
    for preset in ("tiny", "small"):
        assert check_config(load_config(preset)) == []


@pytest.mark.parametrize(
    "override",
    [
        "sft.lr=nan",
        "sft.lr=inf",
        "sft.lr=0",
        "sft.steps=0",
        "sft.beta1=1.0",
        "sft.flow_samples=0",
        "eval.episodes=0",
        "eval.video_size=17",
        "eval.first_seed=-1",
        "env.backend=pybullet",
        "policy.state_layout=pixels",
        "policy.norm=minmax",
        "demos.noise=-0.1",
        "norm_stats.batch_size=0",
        "sft.augment.crop=0",
        "sft.augment.shift=1.0",
        "sft.micro_batch=-1",
        "compute.num_processes=0",
        "model.vision.patch_size=0",
        "model.vlm.num_heads=-1",
    ],
)
def test_values_out_of_range_name_the_key_and_the_range(override):
    (problem,) = check_config(load_config("tiny", [override]))
    assert problem.code == "bad-value"
    assert problem.cause.startswith(override.split("=")[0])
    assert problem.cure.startswith(("set it to one of ", "use a value that is "))


@pytest.mark.parametrize(
    ("override", "code"),
    [
        ("env.renderer=gl", "bad-value"),
        ("env.backend=isaaclab", "isaaclab-task"),
        ("model.vision.patch_size=15", "patch-size"),
        ("model.vision.num_heads=5", "vision-heads"),
        ("model.expert.depth=3", "expert-shape"),
        ("policy.action_chunk=20", "chunk-horizon"),
        ("policy.tokenizer=/nowhere/paligemma.model", "no-tokenizer"),
        ("model.action_dim=16", "state-dim"),
        ("policy.delta_actions=six", "bad-delta-mask"),
        ("policy.delta_actions='7,1'", "bad-delta-mask"),
    ],
)
def test_values_that_do_not_fit_each_other(override, code):
    assert codes(check_config(load_config("tiny", [override]))) == [code]


@pytest.mark.parametrize(
    ("form", "settings", "found"),
    [
        ("sft", [], ["batch-processes"]),
        ("rl", [], ["rl-processes"] * 3),
        ("main", [], ["batch-processes"] + ["rl-processes"] * 3),
        ("rl", ["rl.num_envs=12", "rl.episodes=12", "rl.minibatch=12"], []),
        ("rl", ["rl.num_envs=9", "rl.workers=3", "rl.episodes=12", "rl.minibatch=12"], []),
        ("rl", ["rl.num_envs=12", "rl.workers=3", "rl.episodes=12", "rl.minibatch=12"], ["rl-processes"]),
        ("rl", ["rl.num_envs=3", "rl.episodes=12", "rl.minibatch=12", "compute.device=cuda"], []),
        ("rl", ["rl.num_envs=4", "rl.episodes=12", "rl.minibatch=12", "compute.device=cuda"], ["rl-processes"]),
        ("rl", ["rl.num_envs=12", "rl.episodes=16", "rl.minibatch=12", "rl.algorithm=grpo"], ["rl-processes"]),
        ("rl", ["rl.num_envs=12", "rl.episodes=24", "rl.minibatch=12", "rl.algorithm=grpo"], []),
        ("rl", ["rl.num_envs=12", "rl.episodes=12", "rl.minibatch=12", "compute.device=cuda:1"], ["processes-device"]),
    ],
)
def test_three_processes_have_the_same_share_of_everything(form, settings, found):
    assert codes(check_config(load_config("tiny", [*settings, "compute.num_processes=3"]), form)) == found


def test_steps_that_the_chunk_does_not_divide_come_with_the_two_nearest():
    (problem,) = check_config(load_config("tiny", ["env.max_episode_steps=250"]))
    assert (problem.code, problem.cure) == ("steps-chunk", "use 248 or 256")
    (problem,) = check_config(load_config("tiny", ["env.max_episode_steps=5"]))
    assert problem.cure == "use 8"


def test_the_expert_may_be_wider_than_the_vlm():
    assert check_config(load_config("tiny", ["model.expert.width=96", "model.expert.mlp_dim=200"])) == []


@pytest.mark.parametrize(
    ("form", "settings"),
    [
        ("eval", ["compute.num_processes=3"]),
        ("eval", ["compute.num_processes=2", "compute.device=cuda:1"]),
        ("eval", ["policy.denoise_steps=1", "rl.noise_steps=2"]),
        ("eval", ["eval.episodes=50", "rl.num_envs=3", "rl.workers=2"]),
        ("sft", ["rl.algorithm=grpo", "rl.episodes=3"]),
        ("norm_stats", ["model.action_horizon=4"]),
        ("norm_stats", ["policy.tokenizer=nowhere.model"]),
        ("demos", ["policy.tokenizer=nowhere.model"]),
        ("rl --engine rlinf", ["rl.num_envs=3", "rl.workers=2"]),
    ],
)
def test_what_a_verb_does_not_read_cannot_refuse_it(form, settings):
    """An eval could not mend the number of processes that a checkpoint was trained with, nor the section rl."""
    config = load_config("tiny", settings)
    assert codes(check_config(config)) != []
    assert check_config(config, form) == []


@pytest.mark.parametrize(
    ("form", "settings", "found"),
    [
        ("eval", ["eval.num_envs=25"], ["lanes"]),
        ("eval", ["eval.num_envs=24", "eval.episodes=7"], ["lanes"]),
        ("eval", ["eval.num_envs=24", "sft.eval_episodes=3", "rl.num_envs=6"], []),
        ("sft", ["eval.num_envs=25"], []),
        ("sft", ["eval.num_envs=25", "sft.eval_interval=400", "sft.eval_episodes=30"], ["lanes"]),
        ("sft", ["eval.num_envs=25", "sft.eval_interval=400", "sft.eval_episodes=10"], []),
        ("rl", ["eval.num_envs=24", "rl.num_envs=6"], ["lanes"]),
        ("rl", ["eval.num_envs=24", "rl.num_envs=8"], []),
        ("norm_stats", ["eval.num_envs=25"], []),
    ],
)
def test_two_lanes_have_an_even_number_of_environments(form, settings, found):
    assert codes(check_config(load_config("tiny", [*settings, "compute.lanes=2"]), form)) == found
    assert check_config(load_config("tiny", settings), form) == []


def test_how_environments_are_spread_is_read_by_who_plays():
    for form, settings, found in (
        ("eval", [], []),
        ("rl", [], []),
        ("sft", [], ["not-read", "not-read"]),
        ("sft", ["sft.eval_interval=400"], []),
        ("eval --engine rlinf", [], ["not-read", "not-read"]),
        ("eval", ["env.backend=isaaclab", "env.task=stack3"], ["not-read"]),
    ):
        overrides = ["compute.env_processes=2", "compute.lanes=1"]
        config = load_config("tiny", [*settings, *overrides])
        assert codes(check_config(config, form, overrides)) == found, (form, settings)


def test_overrides_that_do_nothing_are_found_with_the_values():
    config = load_config("tiny", ["rl.group_size=3"])
    assert codes(check_config(config, "rl", ["rl.group_size=3"])) == ["not-read"]
    assert check_config(config, "rl") == []


def test_several_processes_have_a_gpu_each():
    for device, expected in (("cuda", []), ("cpu", []), ("cuda:1", ["processes-device"])):
        config = load_config("tiny", [f"compute.device={device}", "compute.num_processes=2"])
        assert codes(check_config(config)) == expected
