from __future__ import annotations

import os

import gymnasium
import pytest
from gymnasium.envs.classic_control import PendulumEnv

from rlinf_isaac.envs.host.worker.make import bases, draw_without_display


class Changed(PendulumEnv):
    """Somebody's environment with a few changes, as a file beside a task may have it."""


def test_what_an_environment_is_derived_from_is_named() -> None:
    assert bases(Changed()) == ["gymnasium"]
    assert bases(gymnasium.wrappers.TimeLimit(Changed(), 5)) == ["gymnasium"]
    assert bases(object()) == []


@pytest.mark.parametrize(("chosen", "then"), [(None, "egl"), ("", "egl"), ("off", "egl"), ("osmesa", "osmesa")])
def test_what_somebody_has_chosen_for_this_machine_stays(monkeypatch, chosen, then) -> None:
    monkeypatch.setenv("MUJOCO_GL", chosen or "")
    if chosen is None:
        monkeypatch.delenv("MUJOCO_GL")
    draw_without_display()
    assert os.environ["MUJOCO_GL"] == then
