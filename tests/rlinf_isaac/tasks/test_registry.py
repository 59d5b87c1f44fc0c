"""How a task is found by its name; the package of another lab is a real distribution on the path."""

from __future__ import annotations

import pytest

from rlinf_isaac.config import load_config
from rlinf_isaac.config.task import task_of
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.tasks import registry

MODULE = """
from rlinf_isaac.tasks.task import Action, Camera, Task, Vector

def fold():
    cameras = {"base_0_rgb": Camera("observation.images.top")}
    return Task("lab/fold", ("Fold it.",), 50, cameras, Vector("observation.state", 14), Action("action", 14))

CUP = fold()
NUMBER = 7
"""
POINTS = """
[rlinf_isaac.tasks]
lab/fold = lab_tasks_of_a_test:fold
lab/cup = lab_tasks_of_a_test:CUP
lab/number = lab_tasks_of_a_test:NUMBER
lab/missing = lab_tasks_of_a_test:nothing
lab/absent = no_such_module_of_a_lab:task
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    (tmp_path / "lab_tasks_of_a_test.py").write_text(MODULE)
    metadata = tmp_path / "lab_tasks-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-tasks\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    caches = (registry._offered, registry._points)
    for each in caches:
        each.cache_clear()
    yield
    for each in caches:
        each.cache_clear()


def test_a_package_offers_tasks(lab):
    assert registry.find_task("lab/fold") == registry.find_task("lab/cup")
    assert registry.origin_of("lab/fold") == "lab-tasks, lab_tasks_of_a_test:fold"
    assert {"lab/fold", "stack2"} <= set(registry.task_names())
    config = load_config("tiny", ["env.task=lab/fold"])
    assert task_of(config) == registry.find_task("lab/fold")
    assert (config.policy.env_action_dim, config.env.backend) == (14, "none")


def test_what_a_package_offers_may_be_wrong(lab):
    for name, cause in (("number", "gives a int"), ("missing", "cannot be loaded"), ("absent", "cannot be loaded")):
        with pytest.raises(InvalidJob, match=cause) as refused:
            registry.find_task(f"lab/{name}")
        assert refused.value.problems[0].code == "bad-task"


def test_tasks_of_this_project_and_of_nobody(tmp_path):
    assert registry.origin_of("stack2") == "this project"
    assert registry.origin_of(str(tmp_path / "t.yaml")) == str(tmp_path / "t.yaml")
    with pytest.raises(InvalidJob, match=r"unknown-task.*\n?.*stack2"):
        registry.find_task("stack1")
    with pytest.raises(InvalidJob, match="bad-task"):
        registry.find_task(str(tmp_path / "t.yaml"))
