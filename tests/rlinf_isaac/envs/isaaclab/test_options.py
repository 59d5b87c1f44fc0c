from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlinf_isaac.envs.isaaclab import kinematics
from rlinf_isaac.envs.isaaclab.options import CameraOptions, LabOptions, TermOptions, look_at, read_options


def test_nothing_is_needed():
    assert read_options({}) == (LabOptions("newton", "own", (), {}, {}), [])


def test_all_that_can_be_chosen():
    options = {
        "launcher": "kit",
        "assets": "standin",
        "overrides": ["env.episode_length_s=8"],
        "cameras": {"front": {"prim": "front", "pos": [1, 0, 0.5], "look_at": [0, 0, 0], "width": 64, "height": 48}},
        "terminations": {"success": {"func": "terms.py:done", "params": {"distance": 0.05}}},
    }
    found, wrong = read_options(options)
    assert wrong == []
    camera = CameraOptions("front", (1.0, 0.0, 0.5), look_at=(0.0, 0.0, 0.0), width=64, height=48)
    terms = {"success": TermOptions("terms.py:done", {"distance": 0.05})}
    assert found == LabOptions("kit", "standin", ("env.episode_length_s=8",), {"front": camera}, terms)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"launchr": "kit"}, "env.options has no key 'launchr'; did you mean launcher?"),
        ({"launcher": "gazebo"}, "env.options.launcher is 'gazebo', neither newton nor kit"),
        ({"assets": "none"}, "env.options.assets is 'none'"),
        ({"overrides": "env.seed=1"}, "env.options.overrides is 'env.seed=1', not a list"),
        ({"overrides": ["seed"]}, "env.options.overrides is ['seed']"),
        ({"cameras": ["front"]}, "env.options.cameras is ['front'], not a section"),
        ({"cameras": {"a b": {}}}, "env.options.cameras.a b: use letters"),
        ({"cameras": {"front": 64}}, "env.options.cameras.front is 64, not a section"),
        ({"cameras": {"front": {"size": 64}}}, "env.options.cameras.front has no key 'size'"),
        ({"cameras": {"front": {"pos": [0, 1]}}}, "front.pos is [0, 1], not a list of 3 numbers"),
        ({"cameras": {"front": {"rot": "up"}}}, "front.rot is 'up', not a list of 4 numbers"),
        ({"cameras": {"front": {"width": 1.5}}}, "front.width is 1.5, not a whole number above 0"),
        ({"cameras": {"front": {"width": True}}}, "front.width is True"),
        ({"cameras": {"front": {"focal_length": 0}}}, "front.focal_length is 0, not a number above 0"),
        ({"cameras": {"front": {"prim": "/"}}}, "front.prim is '/', not a path"),
        ({"cameras": {"front": {"convention": "usd"}}}, "front.convention is 'usd', none of ros, opengl, world"),
        ({"cameras": {"front": {"look_at": [0, 0, 0]}}}, "front has look_at but no pos"),
        (
            {"cameras": {"front": {"pos": [1, 0, 0], "look_at": [0, 0, 0], "rot": [0, 0, 0, 1]}}},
            "front has rot and look_at",
        ),
        ({"terminations": {"done": {}}}, "terminations.done.func is None, not module:function"),
        ({"terminations": {"done": {"func": "a:b", "params": 3}}}, "terminations.done.params is 3"),
    ],
)
def test_what_is_wrong_is_named(options: dict[str, Any], named):
    (wrong,) = read_options(options)[1]
    assert named in wrong


def test_all_mistakes_are_told_at_once():
    assert len(read_options({"launcher": 3, "assets": 4, "cameras": {"front": {"width": 0, "pos": 1}}})[1]) == 4


@pytest.mark.parametrize("target", [(0.0, 0, 0), (2, 1, 0.5), (1, 3, 0), (1, -2, 4), (-4, 0, 1)])
def test_a_camera_looks_where_it_shall_and_stands_upright(target):
    pos = (1.0, 0.0, 0.5)
    x, y, z, w = look_at(pos, target)
    quat = np.array([w, x, y, z])
    way = np.subtract(target, pos)
    np.testing.assert_allclose(kinematics.rotate(quat, np.array([1.0, 0, 0])), way / np.linalg.norm(way), atol=1e-12)
    assert abs(kinematics.rotate(quat, np.array([0, 1.0, 0]))[2]) < 1e-12, "it leans to a side"
    assert kinematics.rotate(quat, np.array([0, 0, 1.0]))[2] > 0, "it is upside down"
