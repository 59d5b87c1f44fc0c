"""The table of what verbs read, by itself; `tests/mlflow_project/cli/test_reads.py` compares it with what they read."""

from __future__ import annotations

import pytest

from rlinf_isaac.config import known_keys, load_config
from rlinf_isaac.config.reads import FORMS, acts, check_overrides, readers

OVERRIDES = [f"{key}=1" for key in known_keys()]


@pytest.mark.parametrize("form", FORMS)
def test_every_key_is_read_or_refused(form):
    problems = {problem.cause.partition("=1")[0]: problem for problem in check_overrides(form, OVERRIDES)}
    assert set(problems) | set(FORMS[form].free) == set(known_keys())
    assert not set(problems) & set(FORMS[form].free)
    for key, problem in problems.items():
        assert problem.code == ("not-overridable" if key in FORMS[form].fixed else "not-read")
        if problem.code == "not-read":
            named = problem.cure.partition("read it: ")[2].split(", ")
            assert all(key in FORMS[other].free for other in named), "some verb reads every key, and takes it"


@pytest.mark.parametrize("form", FORMS)
def test_what_acts_only_sometimes_says_when(form):
    free = FORMS[form].free
    for settings in ([], ["rl.algorithm=grpo", "rl.exploration=flow_noise"]):
        config = load_config("tiny", settings)
        problems = check_overrides(form, [f"{key}=1" for key in free], config)
        assert {each.code for each in problems} <= {"not-read"}
        found = {each.cause.partition("=1")[0]: each.cause for each in problems}
        assert set(found) == {key for key in free if not acts(form, key, config)}
        assert all(free[key].words in cause for key, cause in found.items())


def test_the_conditions():
    found = {
        "eval.videos=0": {"eval.video_size": "eval"},
        "rl.algorithm=grpo": {"rl.gamma": "rl", "rl.gae_lambda": "rl"},
        "rl.exploration=flow_noise": {"rl.noise_level": "rl", "rl.noise_steps": "rl"},
        "rl.eval_interval=0": {"rl.eval_episodes": "rl", "rl.eval_first_seed": "rl"},
        "rl.reward=success": {"rl.subtask_reward": "rl"},
        "rl.algorithm=ppo": {"rl.group_size": "main"},
        "rl.exploration=flow_sde": {"rl.noise_min": "rl --engine rlinf"},
        "compute.device=cpu": {"compute.compile": "eval"},
        "compute.device=cuda": {"compute.device": "demos"},
        "compute.dtype=float32": {"compute.master_weights": "sft"},
    }
    for setting, unread in found.items():
        config = load_config("tiny", [setting])
        assert [key for key, form in unread.items() if acts(form, key, config)] == [], setting
    config = load_config("tiny", ["compute.device=cuda:0", "env.backend=isaaclab", "env.task=stack3"])
    assert all(acts(form, "compute.compile", config) for form in ("sft", "eval", "rl", "main"))
    assert all(acts(form, "compute.device", config) for form in ("demos", "eval --engine rlinf", "rl --engine rlinf"))
    assert not acts("sft", "compute.sharding", config)
    config = load_config("tiny", ["compute.device=cuda", "compute.num_processes=2"])
    assert all(acts("sft", key, config) for key in ("compute.compile", "compute.sharding"))


def test_several_keys_in_braces_are_several_keys():
    problems = check_overrides("eval", ["model={action_horizon: 4}", "sft={lr: 1, augment: {crop: 0.9}}", "nonsense"])
    assert [(each.code, each.cause.split()[0]) for each in problems] == [
        ("not-overridable", "model={action_horizon:"),
        ("not-read", "sft={lr:"),
        ("not-read", "sft={lr:"),
    ]


def test_keys_that_do_not_exist_are_for_the_config_to_refuse():
    assert check_overrides("sft", ["sft.larning_rate=1", "nonsense"]) == []


def test_the_number_format_of_rl_is_refused_where_it_does_not_act():
    (problem,) = check_overrides("rl --engine rlinf", ["compute.dtype=bfloat16"])
    assert "train rl in float32" in problem.cause
    assert check_overrides("rl", ["compute.dtype=bfloat16"]) == []
    assert "rl" in readers("compute.dtype")


def test_what_loads_batches_and_mixes_datasets_is_for_those_who_do():
    changes = ["sft.mix=[2,1]", "sft.loader_workers=2"]
    read = {"sft": 2, "main": 1, "main --rl-iterations 0": 1, "sft --engine rlinf": 0, "eval": 0}
    assert {form: 2 - len(check_overrides(form, changes)) for form in read} == read
