from __future__ import annotations

import pytest

from rlinf_isaac.envs.stack_cube.backends import BACKENDS, check_renderer, check_sizes, check_task


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_backend_has_is_no_problem(backend):
    assert [check_task(backend, task) for task in BACKENDS[backend].tasks if check_task(backend, task)] == []
    assert [name for name in BACKENDS[backend].renderers if check_renderer(backend, name)] == []


@pytest.mark.parametrize(
    ("backend", "task", "code", "cure"),
    [
        ("mujoco", "stack9", "bad-value", "set it to one of stack2, stack3"),
        ("isaaclab", "stack9", "bad-value", "set it to one of stack3"),
        ("isaaclab", "stack2", "isaaclab-task", "set env.task=stack3"),
    ],
)
def test_a_task_that_a_backend_lacks(backend, task, code, cure):
    (problem,) = check_task(backend, task)
    assert (problem.code, problem.cure) == (code, cure)
    assert problem.cause.startswith(f"env.task is {task}")


@pytest.mark.parametrize(("backend", "renderer"), [("mujoco", "newton"), ("isaaclab", "egl"), ("isaaclab", "vulkan")])
def test_a_renderer_that_a_backend_lacks(backend, renderer):
    (problem,) = check_renderer(backend, renderer)
    assert problem.cause == f"env.renderer is {renderer}"
    assert ", ".join(BACKENDS[backend].renderers) in problem.cure


@pytest.mark.parametrize("sizes", [(0, 16, 1), (1, 0, 1), (1, 16, 0)])
def test_sizes_below_one(sizes):
    assert [problem.code for problem in check_sizes(*sizes)] == ["bad-value"]
    assert check_sizes(*(max(1, each) for each in sizes)) == []
