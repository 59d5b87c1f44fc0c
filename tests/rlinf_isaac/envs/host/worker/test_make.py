from __future__ import annotations

import os
from importlib.metadata import packages_distributions

import gymnasium
import pytest
from gymnasium.envs.classic_control import PendulumEnv

from rlinf_isaac.envs.host.worker.make import _providers, bases, draw_without_display


class Changed(PendulumEnv):
    """Somebody's environment with a few changes, as a file beside a task may have it."""


def test_what_an_environment_is_derived_from_is_named() -> None:
    assert bases(Changed()) == ["gymnasium"]
    assert bases(gymnasium.wrappers.TimeLimit(Changed(), 5)) == ["gymnasium"]
    assert bases(object()) == []


def test_who_provides_a_module_is_what_the_library_says_of_all() -> None:
    said = packages_distributions()
    assert {module: set(names) for module, names in _providers(said).items()} == {
        module: set(names) for module, names in said.items()
    }
    assert _providers(["builtins", "rlinf_isaac_task_0"]) == {"builtins": [], "rlinf_isaac_task_0": []}


@pytest.mark.parametrize(("chosen", "then"), [(None, "egl"), ("", "egl"), ("off", "egl"), ("osmesa", "osmesa")])
def test_what_somebody_has_chosen_for_this_machine_stays(monkeypatch, chosen, then) -> None:
    monkeypatch.setenv("MUJOCO_GL", chosen or "")
    if chosen is None:
        monkeypatch.delenv("MUJOCO_GL")
    draw_without_display()
    assert os.environ["MUJOCO_GL"] == then
