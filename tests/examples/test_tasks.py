"""The tasks in examples/tasks: as descriptions in the default suite, and as environments where one is installed.

docs/environments.md has a line for each that makes its interpreter. Then, for those whose variable is set:

PUSHT_PYTHON=pusht-venv/bin/python OGBENCH_PYTHON=ogbench-venv/bin/python python -m pytest -m guests

(IsaacLab's example is among them where ISAACLAB_PYTHON is set.)
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mlflow_project.cli import cli
from rlinf_isaac.envs.host.env import HostEnv
from rlinf_isaac.envs.host.interpreter import check_host
from rlinf_isaac.envs.isaaclab.task_env import LabEnv
from rlinf_isaac.tasks.paths import leaves
from rlinf_isaac.tasks.read import from_dict, read_task
from rlinf_isaac.tasks.task import Task

PROJECT = Path(__file__).parents[2]
FILES = sorted((PROJECT / "examples" / "tasks").glob("*.yaml"))
DIMS = {
    "pusht": (2, 2, 10),
    "aloha_transfer_cube": (14, 14, 50),
    "ogbench_cube": (7, 5, 20),
    "so101_pick_cube": (14, 4, 10),
    "isaaclab_lift_cube": (12, 7, 50),
    "rlinf_metaworld": (4, 4, 80),
}
N = 2
ALL = np.ones(N, bool)
each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def variable(task: Task) -> str:
    """The environment variable that names the interpreter."""
    assert task.env is not None
    assert task.env.python is not None
    return task.env.python.removeprefix("$")


@each_file
def test_it_is_read_and_shown(file) -> None:
    task = read_task(file)
    assert (task.state.dims, task.action.dims, task.control_hz) == DIMS[file.stem]
    assert from_dict(task.as_dict(), "a test") == task
    shown = CliRunner().invoke(cli, ["task", "show", str(file)])
    assert shown.exit_code == 0, shown.output
    assert task.digest in shown.output


@each_file
def test_a_job_can_be_planned_with_it(file, monkeypatch) -> None:
    """An interpreter is there, but nothing of the environment is imported by `doctor`."""
    task = read_task(file)
    monkeypatch.setenv(variable(task), sys.executable)
    done = CliRunner().invoke(cli, ["doctor", "--task", str(file)])
    assert done.exit_code in (0, 2), done.output
    errors = [line for line in done.output.splitlines() if line.startswith("error")]
    if task.env.kind in ("lerobot", "rlinf", "isaaclab") and importlib.util.find_spec(task.env.kind) is None:
        assert [line.split()[1] for line in errors] == ["no-env-package"]
    else:
        assert not errors, done.output


@each_file
def test_without_its_interpreter_the_line_that_makes_it_is_said(file, monkeypatch) -> None:
    task = read_task(file)
    monkeypatch.delenv(variable(task), raising=False)
    (problem,) = check_host(task)
    assert problem.code == "no-env-python"
    assert task.env.setup in problem.cure
    assert variable(task) in problem.cure


@each_file
def test_the_page_has_that_line(file) -> None:
    task = read_task(file)
    rows = (PROJECT / "docs" / "environments.md").read_text().splitlines()
    (row,) = (row for row in rows if re.match(rf"\| `examples/tasks/{file.name}`", row))
    assert f"{task.env.setup} && export {variable(task)}=" in row


@pytest.fixture(scope="module", params=FILES, ids=lambda file: file.stem)
def env(request) -> Iterator[HostEnv]:
    task = read_task(request.param)
    if not task.env.seeded:
        pytest.skip("its episodes are no functions of their seeds; tests/rlinf_isaac/envs/host/worker plays in it")
    if variable(task) not in os.environ:
        pytest.skip(f"{variable(task)} names no interpreter")
    assert check_host(task) == []
    env = LabEnv(N, task) if task.env.kind == "isaaclab" else HostEnv(N, task, workers=2)
    yield env
    env.close()


def actions(env: HostEnv, steps: int, seed: int = 0) -> np.ndarray:
    low, high = env.task.action.clip or (-0.5, 0.5)
    return np.random.default_rng(seed).uniform(low, high, (N, steps, env.task.action.dims)).astype(np.float32)


@pytest.mark.guests
def test_an_episode_is_a_function_of_its_seed_and_actions(env) -> None:
    def episode(slot: int, other: int) -> list[dict[str, np.ndarray]]:
        seeds = [other] * N
        seeds[slot] = 7
        chunk = actions(env, 5, other)
        chunk[slot] = actions(env, 5)[0]
        seen = [env.reset(seed=seeds)[0], env.chunk_step(chunk, ALL).observation]
        return [{path: value[slot] for path, value in leaves(each).items()} for each in seen]

    first = episode(0, 100)
    for again in (episode(0, 101), episode(1, 102)):
        for one, other in zip(first, again, strict=True):
            for path in one:
                np.testing.assert_array_equal(one[path], other[path], err_msg=path)


@pytest.mark.guests
def test_seeds_differ_and_the_camera_sees_what_moves(env) -> None:
    before = env.policy_input(env.reset(seed=[3, 4])[0])
    after = env.policy_input(env.chunk_step(actions(env, 8), ALL).observation)
    assert (before.states != after.states).any(axis=1).all()
    # A camera on the hand may begin with the same empty table.
    assert any((images[0] != images[1]).any() for images in before.images.values()), "every episode starts alike"
    for slot, images in before.images.items():
        assert (after.images[slot] != images).any(axis=(1, 2, 3)).all(), f"{slot} shows nothing of the motion"


@pytest.mark.guests
def test_the_success_term_is_one_of_its_own(env) -> None:
    env.reset(seed=[0, 1])
    extras = env.chunk_step(actions(env, 2), ALL).extras
    assert env.task.env.success.removeprefix("info.").replace("term:", "term/") in extras


@pytest.mark.guests
def test_its_expert_solves_it(env) -> None:
    if env.task.expert is None:
        pytest.skip("it has none")
    observation, _ = env.reset(seed=[1000, 1001])
    expert, active = env.expert(), ALL
    while active.any():
        step = env.chunk_step(expert.act(observation, active)[:, None], active, images=False)
        active = active & ~(step.terminated | step.time_out)
    assert step.success.all(), env.elapsed
