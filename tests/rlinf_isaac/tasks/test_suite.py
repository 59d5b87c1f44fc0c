from __future__ import annotations

import itertools

import pytest
from walks import two_tasks, write_task

from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.tasks.registry import find_task
from rlinf_isaac.tasks.shipped.metaworld import MT10
from rlinf_isaac.tasks.suite import Suite, alike, find_suite, suite_from, suite_names


def problems_of(call, *arguments):
    with pytest.raises(InvalidJob) as raised:
        call(*arguments)
    return [(problem.code, problem.cause) for problem in raised.value.problems]


def test_names_with_commas_are_a_suite_and_a_name_alone_is_none(tmp_path):
    flat, deep = two_tasks(tmp_path)
    suite = find_suite(f"{flat},{deep}")
    assert [task.name for task in suite.tasks] == ["walk/flat", "walk/deep"]
    assert suite.name == "walk/flat,walk/deep"
    assert find_suite(str(flat)) is None
    assert find_suite("stack2") is None
    assert find_suite("no/such") is None  # `find_task` says so


def test_ten_tasks_ship_by_one_name():
    suite = find_suite("metaworld/mt10")
    assert "metaworld/mt10" in suite_names()
    assert [task.name for task in suite.tasks] == [f"metaworld/{name}" for name in MT10]
    assert len(set(MT10)) == 10
    assert suite.statistics == "shared"
    assert set(suite.asset_ids.values()) == {"sawyer"}


def test_a_file_names_tasks_and_files_beside_it(tmp_path, monkeypatch):
    two_tasks(tmp_path / "here")
    path = tmp_path / "here" / "suite.yaml"
    path.write_text("{name: table, tasks: [walk-flat.yaml, stack2], statistics: per-task}")
    monkeypatch.chdir(tmp_path)
    suite = find_suite(str(path))
    assert (suite.name, suite.statistics) == ("table", "per-task")
    assert suite.tasks == (find_task(str(tmp_path / "here" / "walk-flat.yaml")), find_task("stack2"))
    assert suite.asset_ids == {"walk/flat": "walker", "stack2": "franka"}


def test_statistics_are_shared_where_they_can_be(tmp_path):
    flat, deep = two_tasks(tmp_path)
    other = write_task(tmp_path, "walk/other", 2, hand=False, prompt="elsewhere")
    assert find_suite(f"{flat},{other}").statistics == "shared"
    assert find_suite(f"{flat},{deep}").statistics == "per-task"
    (tmp_path / "suite.yaml").write_text("{name: s, tasks: [walk-flat.yaml, walk-deep.yaml], statistics: shared}")
    ((code, cause),) = problems_of(find_suite, str(tmp_path / "suite.yaml"))
    assert code == "suite-dims"
    assert "walk/deep" in cause


def test_asset_ids_tell_tasks_of_one_robot_apart(tmp_path):
    tasks = tuple(find_task(name) for name in ("metaworld/reach-v3", "metaworld/push-v3", "stack2"))
    ids = Suite("s", tasks, "per-task").asset_ids
    assert ids == {
        "metaworld/reach-v3": "metaworld_reach-v3",
        "metaworld/push-v3": "metaworld_push-v3",
        "stack2": "franka",
    }


def test_a_suite_survives_json(tmp_path):
    flat, deep = two_tasks(tmp_path)
    for suite in (find_suite(f"{deep},{flat}"), find_suite("metaworld/mt10"), find_suite("stack2,stack3")):
        assert suite_from(suite.as_dict(), "here") == suite


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{name: s, tasks: [stack2]}", "two or more"),
        ("{name: s, tasks: [stack2, stack2]}", "2 times"),
        ("{name: s, tasks: stack2}", "not a list"),
        ("{tasks: [stack2, stack3]}", "name is None"),
        ("{name: s, tasks: [stack2, stack3], statistic: shared}", "'statistic'"),
        ("{name: s, tasks: [stack2, stack3], statistics: each}", "neither shared nor per-task"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, text, words):
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    assert words in " ".join(cause for _, cause in problems_of(find_suite, str(path)))


def test_every_unknown_task_of_a_suite_is_named():
    assert [code for code, _ in problems_of(find_suite, "stack2,stack7,stack9")] == ["unknown-task"] * 2


def test_tasks_that_are_alike_are_alike_in_any_order():
    tasks = [find_task(f"metaworld/{name}") for name in MT10[:3]]
    assert not any(alike(order) for order in itertools.permutations(tasks))
    assert alike([*tasks, find_task("stack2")])
