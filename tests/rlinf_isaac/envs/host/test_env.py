from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from rlinf_isaac.engines.rollout import rollout
from rlinf_isaac.envs.host.env import HostEnv
from rlinf_isaac.envs.lanes import Lanes
from rlinf_isaac.ground.errors import SimulatorError
from rlinf_isaac.tasks.paths import leaves

N = 3
ALL = np.ones(N, bool)
Row = dict[str, np.ndarray]


@pytest.fixture(scope="module", params=["toy.py:Plane", "toy.py:Drawn"])
def env(request, toy_task) -> Iterator[HostEnv]:
    """Images with every step, or when asked for; three rows, two of which share a worker."""
    env = HostEnv(N, toy_task(make=request.param), workers=2)
    yield env
    env.close()


@pytest.fixture
def start(toy_task) -> Iterator[Callable[..., HostEnv]]:
    """Starts an environment of one row in one worker, or of as many as `rows` and `workers` say."""
    started = []

    def make(rows: int = 1, workers: int = 1, max_steps: int | None = None, **env: Any) -> HostEnv:
        started.append(HostEnv(rows, toy_task(**env), max_steps, workers=workers))
        return started[-1]

    yield make
    for each in started:
        each.close()


def random_actions(steps: int, seed: int = 0, rows: int = N) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.5, (rows, steps, 2)).astype(np.float32)


def row(observation: dict[str, Any], i: int) -> Row:
    """Of one env, without the count of drawn images, which is none of an episode's."""
    return {path: value[i] for path, value in leaves(observation).items() if path != "drawn"}


def assert_same(one: Row, other: Row) -> None:
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def test_what_it_is(env) -> None:
    observation, _ = env.reset(seed=[0, 1, 2])
    assert env.observation_space.contains(observation)
    seen = env.policy_input(observation)
    assert {slot: image.shape for slot, image in seen.images.items()} == {
        "base_0_rgb": (N, 6, 8, 3),
        "left_wrist_0_rgb": (N, 6, 8, 3),
    }
    np.testing.assert_array_equal(seen.states, observation["point"].astype(np.float32))
    assert env.prompts() == ["push the point to the middle", "bring it back", "push the point to the middle"]
    assert "name" not in observation, "a text is no array"
    identity = env.identity
    assert identity.backend.startswith("gymnasium-toy-")
    assert (identity.task, identity.prompt, identity.image_size) == ("plane", "push the point to the middle", 6)
    assert (identity.renderer, identity.control_hz, identity.max_episode_steps) == ("own", 10, 40)


def test_an_episode_is_a_function_of_its_seed_and_actions(env) -> None:
    """Not of the slot, of what its neighbours do, or of the episode before."""
    actions = random_actions(5)[0]

    def episode(slot: int, other_seed: int) -> list[Row]:
        seeds = [other_seed] * N
        seeds[slot] = 7
        rows = [row(env.reset(seed=seeds)[0], slot)]
        for t, action in enumerate(actions):
            step = random_actions(1, seed=other_seed + t)[:, 0]
            step[slot] = action
            rows.append(row(env.step(step)[0], slot))
        return rows

    first = episode(0, 100)
    assert (first[0]["point"] != first[-1]["point"]).all()
    env.chunk_step(random_actions(9, seed=3), ~env._done)
    for again in (episode(0, 100), episode(1, 200), episode(2, 300)):
        for one, other in zip(first, again, strict=True):
            assert_same(one, other)


def test_reset_mask_leaves_the_other_episodes_alone(env) -> None:
    actions = random_actions(6)

    def last(interrupted: bool) -> list[Row]:
        env.reset(seed=[0, 1, 2])
        rows = [row(env.chunk_step(actions[:, :3], ALL).observation, 2)]
        if interrupted:
            mask = np.array([True, True, False])
            rows.append(row(env.reset(seed=[9, 8, None], options={"reset_mask": mask})[0], 2))
            assert_same(*rows)
            assert env.elapsed.tolist() == [0, 0, 3]
            assert env.seeds == [9, 8, 2]
        return [rows[0], row(env.chunk_step(actions[:, 3:], ALL).observation, 2)]

    for one, other in zip(last(False), last(True), strict=True):
        assert_same(one, other)


def test_a_chunk_is_its_single_steps(env) -> None:
    actions, rewards = random_actions(6), []
    env.reset(seed=0)
    for t in range(6):
        observation, reward, *_ = env.step(actions[:, t])
        rewards.append(reward)
    env.reset(seed=0)
    chunk = env.chunk_step(actions, ALL)
    assert chunk.steps.tolist() == [6] * N
    np.testing.assert_array_equal(chunk.rewards, np.stack(rewards, axis=1))
    for i in range(N):
        assert_same(row(observation, i), row(chunk.observation, i))


def test_inactive_rows_stay(env) -> None:
    before, _ = env.reset(seed=0)
    chunk = env.chunk_step(random_actions(4), np.array([False, True, False]))
    for i in (0, 2):
        assert_same(row(before, i), row(chunk.observation, i))
    assert chunk.steps.tolist() == env.elapsed.tolist() == [0, 4, 0]
    assert not chunk.rewards[[0, 2]].any()
    assert (chunk.rewards[1] < 0).all()


def test_without_images_there_are_none_and_later_the_current_ones(env) -> None:
    env.reset(seed=0)
    chunk = env.chunk_step(random_actions(4), ALL, images=False)
    assert "pixels" not in chunk.observation
    image = env.observe()["pixels"]["top"]
    assert image[:, 0, 0].max(axis=-1).tolist() == [4] * N, "the count of steps, which is painted there"


def test_frames_come_after_every_control_step(env) -> None:
    env.reset(seed=0)
    frames: dict[tuple[int, int], np.ndarray] = {}

    def on_frame(i: int, t: int) -> None:
        frames[i, t] = env.render_frame(i, 24)

    watched = env.chunk_step(random_actions(3), ALL, on_frame)
    env.reset(seed=0)
    alone = env.chunk_step(random_actions(3), ALL)
    np.testing.assert_array_equal(watched.rewards, alone.rewards)
    assert_same(row(watched.observation, 1), row(alone.observation, 1))
    assert sorted(frames) == [(i, t) for i in range(N) for t in range(3)]
    assert {(frame.shape, str(frame.dtype)) for frame in frames.values()} == {((24, 48, 3), "uint8")}
    assert (frames[0, 0] != frames[0, 2]).any()
    assert frames[0, 0][12, 12].max() < frames[0, 0][12, 36].max(), "the first camera is on the left"


def test_time_out_keeps_the_terminal_observation_and_wants_a_reset(env) -> None:
    observation, _ = env.reset(seed=0)
    away = np.tile(np.sign(observation["point"])[:, None], (1, 45, 1))
    chunk = env.chunk_step(away, ALL)
    assert chunk.steps.tolist() == [40] * N
    assert chunk.time_out.all()
    assert not chunk.terminated.any()
    assert [chunk.outcome(i) for i in range(N)] == ["timeout"] * N
    assert chunk.observation["pixels"]["top"][:, 0, 0, 0].tolist() == [40] * N
    with pytest.raises(ResetNeeded):
        env.step(np.zeros((N, 2)))


def test_the_expert_solves_it_and_the_last_numbers_are_given(env) -> None:
    observation, _ = env.reset(seed=[4, 5, 6])
    expert, active = env.expert(), ALL
    assert expert.version.startswith("toy.py:Expert-")
    while active.any():
        step = env.chunk_step(expert.act(observation, active)[:, None], active)
        observation, active = step.observation, active & ~(step.terminated | step.time_out)
    assert step.success.all()
    assert list(step.extras) == ["distance", "even", "far", "solved"]
    np.testing.assert_allclose(step.extras["distance"], np.linalg.norm(observation["point"], axis=1), rtol=1e-6)
    assert step.extras["solved"].tolist() == [1.0] * N
    # A number that was given once and not at the last step is still known.
    assert step.extras["even"].tolist() == (env.elapsed - env.elapsed % 2).tolist()


def test_a_number_that_an_episode_has_not_had_is_not_known(env) -> None:
    env.reset(seed=0)
    env.chunk_step(random_actions(2), np.array([True, False, False]))
    step = env.chunk_step(random_actions(1), np.array([False, True, False]))
    np.testing.assert_array_equal(step.extras["even"], [2, np.nan, np.nan])


@pytest.mark.parametrize("bad", [np.zeros((2, 2)), np.zeros((2, 1, 2)), np.full((N, 1, 2), np.nan)])
def test_unusable_actions_are_refused(env, bad) -> None:
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"actions are|not finite"):
        env.chunk_step(bad, ALL)


def test_one_worker_or_three_make_no_difference(start) -> None:
    def episodes(workers: int) -> list[Any]:
        env = start(N, workers, make="toy.py:Drawn")
        assert len(env.guests.processes) == workers
        results = [env.reset(seed=[3, 1, 2])[0]]
        for seed in range(3):
            step = env.chunk_step(random_actions(4, seed), ALL)
            results += [step.observation, {"rewards": step.rewards, **step.extras}]
        return [*results, {"experts": env.expert().act({}, ALL)}]

    for one, other in zip(episodes(1), episodes(3), strict=True):
        for i in range(N):
            assert_same(row(one, i), row(other, i))


def test_images_are_drawn_only_when_asked_for(start) -> None:
    env = start(make="toy.py:Drawn")
    before = int(env.reset(seed=[0])[0]["drawn"][0])
    chunk = env.chunk_step(random_actions(6, rows=1), np.ones(1, bool))
    assert chunk.observation["drawn"].tolist() == [before + 1], "only that of the reset came before the last step"
    env.observe()
    env.render_frame(0, 8)
    chunk = env.chunk_step(random_actions(1, rows=1), np.ones(1, bool))
    assert chunk.observation["drawn"].tolist() == [before + 2], "an image of the same moment is drawn once"


def test_a_wrapper_hides_neither_the_images_nor_its_own_limit(start) -> None:
    env = start(make="toy.py:limited")
    env.reset(seed=[0])
    step = env.chunk_step(np.zeros((1, 9, 2)), np.ones(1, bool))
    assert step.observation["pixels"]["top"].shape == (1, 6, 8, 3)
    assert (step.steps.tolist(), step.outcome(0)) == ([7], "timeout")
    assert env.identity.backend.startswith("gymnasium-toy-"), "the wrapper is another's"


def test_an_environment_may_fork_processes(start) -> None:
    assert start(make="toy.py:forking").reset(seed=[1])[0]["point"].shape == (1, 2)


def test_success_has_to_last(start) -> None:
    env = start(dwell=3, options={"radius": 9.0})
    for _ in range(2):  # what lasted in one episode does not count in the next
        env.reset(seed=[0])
        step = env.chunk_step(np.zeros((1, 8, 2)), np.ones(1, bool))
        assert (step.steps.tolist(), step.outcome(0)) == ([3], "success")


def test_a_row_that_has_ended_stays_as_it_ended_while_others_go_on(start) -> None:
    env = start(rows=2, options={"radius": 0.1})
    point = env.reset(seed=[0, 0])[0]["point"][0]
    home = -point / np.abs(point).max()
    actions = np.stack([np.tile(home, (30, 1)), np.zeros((30, 2))]).astype(np.float32)
    actions[0, 10:] = 1.0  # would carry it away again
    watched: list[int] = []
    step = env.chunk_step(actions, np.ones(2, bool), lambda i, t: watched.append(i))
    ended = int(step.steps[0])
    assert step.success.tolist() == [True, False]
    assert 0 < ended < 30
    assert (watched.count(0), watched.count(1)) == (ended, 30)
    assert not step.rewards[0, ended:].any()
    assert step.observation["pixels"]["top"][:, 0, 0, 0].tolist() == [ended, 30]
    assert step.extras["solved"].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("term", "options", "steps", "outcome"),
    [
        ("info.distance>=1.2", {}, 3, "failure"),
        (None, {"ends": 5}, 5, "terminated"),
        ("info.distance>=9", {"ends": 5}, 5, "terminated"),
        (None, {"cuts": 6}, 6, "timeout"),
        ("info.far", {"ends": 5, "radius": 9.0}, 1, "success"),
    ],
)
def test_how_an_episode_ends(start, term, options, steps, outcome) -> None:
    env = start(failure=term, options=options)
    point = env.reset(seed=[1])[0]["point"][0]
    away = np.tile(np.float32(point / np.abs(point).max()), (1, 20, 1))
    step = env.chunk_step(away, np.ones(1, bool))
    assert (step.steps.tolist(), step.outcome(0)) == ([steps], outcome)
    assert tuple(step.failures) == (("failure",) if term else ()) + ("terminated",)
    assert bool(step.time_out[0]) == (outcome == "timeout")
    _, info = env.reset(seed=[1])
    assert not any(flags.any() for flags in info.values())


class Still:
    """Stays where it is."""

    noise_shape = (4, 2)

    def act(self, images: Any, states: Any, prompts: Any, noise: Any) -> np.ndarray:
        return np.zeros((len(states), 4, 2), np.float32)


def test_the_numbers_of_a_rollout_are_those_of_the_episode_alone(start) -> None:
    """That another row's environment gives one is no matter of this episode."""
    env = start(rows=2, max_steps=4, options={"cuts": 1})
    mixed = {each.seed: each.extras for each in rollout(env, Still(), [0, 1, 2], policy_seed=0)}
    env = start(rows=2, max_steps=4)
    assert all(list(each) == ["distance", "far", "solved"] for each in mixed.values())
    for each in rollout(env, Still(), [0], policy_seed=0):
        assert list(each.extras) == ["distance", "even", "far", "solved"]


def test_a_success_that_info_never_has_is_an_error(start) -> None:
    env = start(max_steps=4, options={"no_success": True})
    env.reset(seed=[0])
    with pytest.raises(
        SimulatorError, match=r"\[no-such-term\].*info\.solved(.|\n)*array, distance, even, far, nan, words"
    ):
        env.chunk_step(np.zeros((1, 4, 2)), np.ones(1, bool))


def test_a_task_without_an_expert_says_so(start) -> None:
    env = start(changes={"expert": None})
    env.reset(seed=[0])
    with pytest.raises(SimulatorError, match=r"\[no-expert\]"):
        env.expert()


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("no-such-path", {"state": {"dims": 2, "env": "points"}}),
        ("env-state-dims", {"state": {"dims": 3, "env": ["point", "point[0:2]"]}}),
        ("env-action-dims", {"action": {"dims": 7}}),
        ("env-camera", {"cameras": {"base_0_rgb": {"dataset": "top", "env": "point"}}}),
    ],
)
def test_an_environment_that_is_not_as_the_task_says_is_refused(start, code, changes) -> None:
    with pytest.raises(SimulatorError, match=rf"\[{code}\]"):
        start(changes=changes)


def test_a_closed_one_says_so(start) -> None:
    env = start()
    env.close()
    env.close()
    with pytest.raises(SimulatorError, match=r"\[env-closed\]"):
        env.reset(seed=[0])


def test_two_lanes_play_what_one_plays(toy_task) -> None:
    class Pusher:
        noise_shape = (4, 2)

        def act(self, images, states, prompts, noise):
            return (0.3 * noise + 0.1 * states[:, None]).astype(np.float32)

    task, rows = toy_task(), []
    for lanes in (Lanes([HostEnv(4, task, 12)]), Lanes([HostEnv(2, task, 12), HostEnv(2, task, 12)])):
        played = rollout(lanes, Pusher(), range(10, 17), policy_seed=0)
        rows.append({each.seed: each.row(1, "", 0) for each in played})
        lanes.close()
    assert rows[0] == rows[1]
    assert len(rows[0]) == 7
