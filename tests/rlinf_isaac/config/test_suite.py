from __future__ import annotations

import json

import pytest
from walks import two_tasks

from rlinf_isaac.checkpoint.description import config_digest
from rlinf_isaac.config import build_config, load_config
from rlinf_isaac.config.suite import configs_of, for_task, names_of, narrowed, single, tasks_of
from rlinf_isaac.config.task import task_of
from rlinf_isaac.ground.errors import InvalidJob


@pytest.fixture
def config(tmp_path):
    flat, deep = two_tasks(tmp_path)
    return load_config("tiny", [f"env.task={flat},{deep},stack2"])


def code_of(call, *arguments):
    with pytest.raises(InvalidJob) as raised:
        call(*arguments)
    return [problem.code for problem in raised.value.problems]


def test_the_job_of_a_task_is_that_of_the_task_alone(config, tmp_path):
    assert names_of(config) == ("walk/flat", "walk/deep", "stack2")
    for name, alone in (("walk/flat", tmp_path / "walk-flat.yaml"), ("walk/deep", tmp_path / "walk-deep.yaml")):
        own, expected = for_task(config, name), load_config("tiny", [f"env.task={alone}"])
        assert (own.policy, own.env, own.task) == (expected.policy, expected.env, expected.task)
        assert task_of(own) == task_of(expected)
    own, expected = for_task(config, "stack2"), load_config("tiny")
    assert (own.env, own.task, task_of(own)) == (expected.env, {}, task_of(expected))
    assert own.policy.env_action_dim == expected.policy.env_action_dim


def test_the_job_of_all_has_room_for_each(config):
    assert config.policy.env_action_dim == 7
    assert [task.name for task in tasks_of(config)] == list(names_of(config))


def test_a_job_survives_json_with_sorted_keys(config):
    again = build_config(json.loads(json.dumps(config.as_dict(), sort_keys=True)), "here")
    assert names_of(again) == names_of(config)
    assert again == config
    assert config_digest(again) == config_digest(config) == config_digest(config.as_dict())


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("walk/deep", ("walk/deep",)),
        ("stack2,walk/flat", ("walk/flat", "stack2")),
        ("walk/flat,walk/deep,stack2", ("walk/flat", "walk/deep", "stack2")),
    ],
)
def test_a_recorded_job_is_about_the_tasks_that_are_named(config, text, names):
    chosen = build_config(config.as_dict(), "here", [f"env.task={text}"])
    assert names_of(chosen) == names
    assert [each.env.task for each in configs_of(chosen)] == list(names)
    assert chosen.suite == config.suite


def test_the_file_of_a_task_is_as_good_as_its_name(config, tmp_path):
    chosen = build_config(config.as_dict(), "here", [f"env.task={tmp_path / 'walk-deep.yaml'}"])
    assert (names_of(chosen), chosen.env.task) == (("walk/deep",), "walk/deep")
    changed = tmp_path / "walk-deep.yaml"
    changed.write_text(changed.read_text().replace("control_hz: 20", "control_hz: 21"))
    assert build_config(config.as_dict(), "here", [f"env.task={changed}"]).suite == {}


def test_another_task_takes_the_place_of_the_suite(config):
    other = build_config(config.as_dict(), "here", ["env.task=metaworld/reach-v3"])
    assert (other.suite, task_of(other).name) == ({}, "metaworld/reach-v3")


def test_what_each_task_decides_cannot_be_set(config):
    for key in ("env.max_episode_steps=8", "policy.delta_actions=all", "env.backend=none"):
        assert code_of(build_config, config.as_dict(), "here", [key]) == ["suite-key"]
        assert code_of(load_config, "tiny", ["env.task=stack2,stack3", key]) == ["suite-key"]


def test_a_training_of_one_task_takes_one_that_is_named(config):
    assert code_of(single, config) == ["suite-one-task"]
    chosen = build_config(config.as_dict(), "here", ["env.task=walk/deep"])
    assert single(chosen).suite == narrowed(chosen).suite == {}
    assert task_of(narrowed(chosen)).name == "walk/deep"
    two = narrowed(build_config(config.as_dict(), "here", ["env.task=walk/deep,stack2"]))
    assert (names_of(two), two.suite["order"]) == (("walk/deep", "stack2"), ["walk/deep", "stack2"])


def test_a_job_of_a_single_task_is_written_as_before_there_were_suites():
    config = load_config("tiny")
    assert "suite" not in config.as_dict()
    # What releases without suites computed of the same preset.
    assert config_digest(config) == config_digest({**config.as_dict()})
    assert config_digest(config) == DIGEST_OF_TINY


DIGEST_OF_TINY = "6a0966669a51889cd9f3869d531b04298e2d9f4c2325a67effb5561ccde0fe6c"


def test_where_this_machine_has_something_is_no_part_of_the_training(config, tmp_path):
    values = json.loads(json.dumps(config.as_dict()))
    values["suite"]["tasks"]["walk/deep"]["env"]["python"] = "/elsewhere/python"
    assert config_digest(values) == config_digest(config)
    values["suite"]["tasks"]["walk/deep"]["control_hz"] = 21
    assert config_digest(values) != config_digest(config)
