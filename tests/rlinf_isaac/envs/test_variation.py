"""Each axis of robustness changes one thing, by a function of the episode's seed alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlinf_isaac.config import load_config
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.vary_schema import VaryConfig
from rlinf_isaac.engines.robustness import variations_of
from rlinf_isaac.envs import make_env
from rlinf_isaac.envs.mujoco.varied import AXES as IN_MUJOCO
from rlinf_isaac.envs.stack_cube import contract, variation
from rlinf_isaac.envs.vector import Observation, TaskEnv
from rlinf_isaac.ground.errors import SimulatorError
from rlinf_isaac.preflight import check_config, check_variation
from rlinf_isaac.tasks.variation import AXES, Variation

IMAGES, BOTH = contract.CAMERA_NAMES, np.ones(2, bool)
PUSH = np.array([0.1, 0, -0.2, 0, 0, 0, -1], np.float32)  # onto the table, with closing fingers


def config_of(*overrides: str) -> JobConfig:
    return load_config("tiny", ["env.image_size=24", "env.renderer=rays", *overrides])


@contextmanager
def env_of(varied: Variation | None, workers: int = 1) -> Iterator[TaskEnv]:
    env = make_env(config_of(), 2, workers=workers, varied=varied)
    try:
        yield env
    finally:
        env.close()


def played(env: TaskEnv, seeds: list[int], action: np.ndarray = PUSH) -> Observation:
    """The observation after two control steps of an action in the episodes of these seeds."""
    env.reset(seed=seeds)
    return env.chunk_step(np.tile(action, (2, 2, 1)), BOTH).observation["policy"]


@pytest.mark.parametrize("axis", IN_MUJOCO)
def test_it_depends_on_the_seed_alone_and_changes_one_thing(axis):
    with env_of(None) as env:
        usual = played(env, [5, 6])
    with env_of(Variation(axis, 1.0)) as env:
        first, others, again = played(env, [5, 6]), played(env, [7, 5]), played(env, [6, 5])
        start = env.reset(seed=[5, 6])[0]["policy"]
    for key, values in first.items():
        np.testing.assert_array_equal(values[0], others[key][1], err_msg=f"{key}: another row, after other episodes")
        np.testing.assert_array_equal(values[::-1], again[key], err_msg=f"{key}: rows in another order")
    changed = {key for key, values in first.items() if not np.array_equal(values, usual[key])}
    if axis == "mass":
        assert not changed & {"eef_pos", "joint_pos"}, "what touches no cube moves as before"
    else:
        assert changed == ({"table_cam"} if axis == "camera" else {*IMAGES})
    with env_of(None) as env:
        np.testing.assert_array_equal(env.reset(seed=[5, 6])[0]["policy"]["object"], start["object"])
    with env_of(Variation(axis, 1.0), workers=2) as env:
        for key, values in played(env, [5, 6]).items():
            np.testing.assert_array_equal(values, first[key], err_msg=f"{key}: in processes")


def test_masses_and_friction_are_those_of_the_episode():
    from rlinf_isaac.envs.mujoco.simulation import Simulation

    varied = Variation("mass", 1.0)
    simulation = Simulation(2, 2, varied)
    usual = simulation.model.body("cube_1").mass[0]
    for seed in (3, 4, 3):
        simulation.reset(0, seed)
        drawn, model = variation.mass(varied, seed, 2), simulation.models[0]
        assert model.body("cube_1").mass[0] == pytest.approx(usual * drawn.cubes[0])
        # What MuJoCo derives of it: of a free body, the inverse of its mass.
        assert model.body("cube_1").invweight0[0] == pytest.approx(1 / (usual * drawn.cubes[0]))
        assert model.geom("pad_1").friction[0] == pytest.approx(1.5 * drawn.friction)
    assert simulation.model.body("cube_1").mass[0] == usual == simulation.models[1].body("cube_1").mass[0]


def test_delayed_actions_arrive_so_many_steps_later_across_chunks():
    rng = np.random.default_rng(0)
    sent = rng.uniform(-0.2, 0.2, (2, 9, contract.ACTION_DIM)).astype(np.float32)
    arriving = np.concatenate([np.zeros((2, 4, contract.ACTION_DIM), np.float32), sent[:, :5]], axis=1)
    with env_of(None) as env:
        env.reset(seed=[5, 6])
        expected = env.chunk_step(arriving, BOTH).observation["policy"]
    with env_of(Variation("delay", 4)) as env:
        for _ in range(2):  # nothing under way is left at a reset
            env.reset(seed=[5, 6])
            for part in (sent[:, :3], sent[:, 3:6], sent[:, 6:]):  # chunks shorter than the delay
                env.chunk_step(part, BOTH)
            for key, values in env.observe()["policy"].items():
                np.testing.assert_array_equal(values, expected[key], err_msg=key)
        assert env.elapsed.tolist() == [9, 9]
        assert env.seeds == [5, 6]


@given(st.integers(0, 2**40), st.floats(0.01, 2))
def test_draws_stay_in_their_ranges(seed, strength):
    light = variation.light(Variation("light", strength), seed)
    assert abs(light.intensity - 1) <= strength * variation.LIGHT_INTENSITY
    assert abs(np.degrees(light.angle)) <= strength * variation.LIGHT_TILT
    camera = variation.camera(Variation("camera", strength), seed)
    assert np.abs(camera.shift).max() <= strength * variation.CAMERA_SHIFT
    assert np.linalg.norm(camera.axis) == pytest.approx(1)
    mass = variation.mass(Variation("mass", strength), seed, 3)
    assert (np.abs(np.log2(mass.cubes)) <= strength * np.log2(variation.CUBE_MASS) + 1e-12).all()
    texture = variation.texture(Variation("texture", strength), seed, 3, 2)
    assert np.abs(texture.surfaces).max() <= strength * variation.SURFACE_COLOUR
    assert (texture.shades >= 1 - strength * variation.CUBE_SHADE - 1e-12).all()


def test_what_cannot_be_varied_is_refused():
    def codes(*overrides: str, **how) -> list[str]:
        return [problem.code for problem in check_variation(config_of(*overrides), **how)]

    everything = f"vary.axes={','.join(AXES)}"
    assert codes(everything) == codes() == codes("vary.axes=delay", "env.backend=isaaclab", "env.renderer=auto") == []
    assert codes(everything, "env.backend=isaaclab", "env.renderer=auto") == ["vary-backend"] * 4
    assert codes("vary.axes=light", "env.task=metaworld/reach-v3") == ["vary-task"]
    assert codes("vary.axes=light", engine="rlinf", until_decided=True) == ["vary-engine", "vary-until-decided"]
    for wrong in ("vary.axes=wind", "vary.axes='light light'", "vary.light=0", "vary.delay=0"):
        assert [each.code for each in check_config(config_of(wrong), "eval") if wrong[:9] in each.cause] == [
            "bad-value"
        ]
    with pytest.raises(SimulatorError, match="delay alone"):
        make_env(config_of("env.backend=isaaclab", "env.task=stack3"), 1, varied=Variation("light", 1.0))


def test_what_is_not_varied_leaves_no_trace_in_a_config():
    config = config_of()
    assert "vary" not in config.as_dict()
    assert variations_of(config) == ()
    varied = config_of("vary.axes='mass light'", "vary.mass=0.5")
    assert varied.as_dict()["vary"]["axes"] == "mass light"
    assert variations_of(varied) == (Variation("mass", 0.5), Variation("light", 1.0))
    assert {name for name in vars(VaryConfig()) if name != "axes"} == {*AXES} == {*IN_MUJOCO, "delay"}
