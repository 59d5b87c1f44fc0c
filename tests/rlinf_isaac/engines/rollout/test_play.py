"""Rollouts in the real environment, with a policy whose actions are a function of what it is given."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest

from rlinf_isaac.config.schema import ComputeConfig, EnvConfig, JobConfig, PolicyConfig
from rlinf_isaac.engines.rollout import Clock, rollout
from rlinf_isaac.envs import make_env
from rlinf_isaac.envs.lanes import make_lanes
from rlinf_isaac.ground.errors import SimulatorDied
from rlinf_isaac.pi0.policy import episode_noise

CHUNK = 4
ENV = EnvConfig(task="stack2", image_size=16, max_episode_steps=12)


class Wanderer:
    """Moves by its noise and, slightly, by what it sees, so that a mix-up of rows shows in the frames."""

    noise_shape = (CHUNK, 7)

    def __init__(self):
        self.batches = []

    def act(self, images, states, prompts, noise):
        self.batches.append((images["base_0_rgb"].shape, states.shape, list(prompts)))
        actions = 0.1 * noise[:, :CHUNK] + 0.01 * states[:, None, :7]
        return actions.astype(np.float32)


class Frames(list):
    def append(self, frame):
        super().append(frame.copy())


@pytest.fixture(scope="module")
def env():
    env = make_env(JobConfig(env=ENV, policy=PolicyConfig(state_layout="proprio+cubes")), 3)
    yield env
    env.close()


def run(env, seeds, **options):
    policy, sinks = Wanderer(), {}

    def open_sink(seed):
        return sinks.setdefault(seed, Frames())

    arguments = {"policy_seed": 0, "open_sink": open_sink, "video_size": 16} | options
    episodes = {episode.seed: episode for episode in rollout(env, policy, seeds, **arguments)}
    return episodes, sinks, policy


def test_every_seed_ends_once_in_its_slot(env):
    episodes, sinks, policy = run(env, range(10, 17))
    assert sorted(episodes) == list(range(10, 17))
    assert {seed: episode.env_index for seed, episode in episodes.items()} == {
        seed: (seed - 10) % 3 for seed in episodes
    }
    for seed, episode in episodes.items():
        assert (episode.outcome, episode.length, episode.calls) == ("timeout", 12, 3)
        assert len(sinks[seed]) == 13, "the first observation, every control step, the terminal one"
    assert {batch[0] for batch in policy.batches} == {(3, 16, 16, 3)}, "the policy always sees a full batch"
    assert policy.batches[0][2] == [env.identity.prompt] * 3


def test_an_episode_does_not_depend_on_what_else_runs(env):
    _, all_frames, _ = run(env, range(10, 17))
    _, some_frames, _ = run(env, range(10, 17), finished={10, 11, 13, 16})
    assert sorted(some_frames) == [12, 14, 15]
    for seed, frames in some_frames.items():
        np.testing.assert_array_equal(np.stack(frames), np.stack(all_frames[seed]))


def test_seed_and_policy_seed_decide(env):
    _, first, _ = run(env, [10])
    _, again, _ = run(env, [10])
    _, other, _ = run(env, [10], policy_seed=1)
    np.testing.assert_array_equal(np.stack(first[10]), np.stack(again[10]))
    np.testing.assert_array_equal(first[10][0], other[10][0])
    assert (np.stack(first[10]) != np.stack(other[10])).any()


def test_draw_is_all_the_randomness(env):
    """It sees the episodes in the slots, and what it gives is what the policy gets."""
    seen = []

    def draw(running):
        seen.append([episode and (episode.seed, episode.index, episode.calls) for episode in running])
        return np.stack([episode_noise(0, e.seed, e.calls, (CHUNK, 7)) if e else np.zeros((CHUNK, 7)) for e in running])

    _, drawn, _ = run(env, range(10, 15), draw=draw, policy_seed=99)
    _, default, _ = run(env, range(10, 15))
    for seed, frames in default.items():
        np.testing.assert_array_equal(np.stack(frames), np.stack(drawn[seed]))
    assert seen[:3] == [[(10, 0, calls), (11, 1, calls), (12, 2, calls)] for calls in range(3)]
    assert seen[3:] == [[(13, 3, calls), (14, 4, calls), None] for calls in range(3)]


def test_chunks_say_which_call_gave_them_and_what_came_of_them(env):
    episodes, _, policy = run(env, range(10, 15))
    assert len(policy.batches) == 6
    assert [chunk.call for chunk in episodes[10].chunks] == [0, 1, 2]
    assert [chunk.call for chunk in episodes[14].chunks] == [3, 4, 5]
    assert {chunk.row for chunk in episodes[14].chunks} == {1}
    for episode in episodes.values():
        assert sum(chunk.reward for chunk in episode.chunks) == episode.episode_return


def test_nothing_to_do(env):
    assert run(env, [10, 11], finished={10, 11})[0] == {}
    assert run(env, [])[0] == {}


def test_the_expert_succeeds_in_a_rollout():
    """Success ends an episode in the middle of a chunk; its return is 1 and its subtask flags are kept."""
    from rlinf_isaac.envs.stack_cube.expert import ScriptedExpert

    env = make_env(JobConfig(env=EnvConfig(task="stack2", image_size=16, max_episode_steps=240)), 1)
    expert = ScriptedExpert()

    class OneStep:
        noise_shape = (1, 7)

        def act(self, images, states, prompts, noise):
            return expert.act(env.observe(images=False)["policy"])[None, None]

    (episode,) = rollout(env, OneStep(), [0], policy_seed=0)
    env.close()
    assert (episode.outcome, episode.episode_return) == ("success", 1.0)
    assert episode.subtasks == {"grasp_1": True, "stack_1": True}
    assert [chunk.reward for chunk in episode.chunks] == [0.0] * (episode.calls - 1) + [1.0]
    assert {flag for chunk in episode.chunks for flag in chunk.subtasks} == {"grasp_1", "stack_1"}
    assert 50 < episode.length < 150


def lane_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("lane")]


@pytest.fixture(scope="module")
def four():
    """Four environments in this process, for one lane."""
    env = make_env(JobConfig(env=ENV, policy=PolicyConfig(state_layout="proprio+cubes")), 4)
    yield env
    env.close()


def make_two(num_envs=4):
    policy = PolicyConfig(state_layout="proprio+cubes")
    return make_lanes(JobConfig(env=ENV, policy=policy, compute=ComputeConfig(lanes=2)), num_envs)


@pytest.fixture(scope="module")
def two():
    """Two lanes of two environments each, in processes."""
    lanes = make_two()
    yield lanes
    lanes.close()


@pytest.mark.parametrize(
    ("seeds", "finished"),
    [(range(10, 21), ()), (range(10, 21), {10, 14, 18, 13, 17}), (range(10, 13), ()), ([11], ()), ([], ())],
    ids=["all", "some", "fewer than slots", "one", "none"],
)
def test_two_lanes_play_what_one_plays(four, two, seeds, finished):
    """The same episodes in the same slots, by frames and rows; a lane goes on when the other's list is at its end."""
    expected, all_frames, _ = run(four, seeds, finished=finished)
    episodes, frames, policy = run(two, seeds, finished=finished)
    assert episodes.keys() == expected.keys() == set(seeds) - set(finished)
    for seed, episode in episodes.items():
        assert episode.row(1, "", 0) == expected[seed].row(1, "", 0)
        assert [chunk[2:] for chunk in episode.chunks] == [chunk[2:] for chunk in expected[seed].chunks]
        np.testing.assert_array_equal(np.stack(frames[seed]), np.stack(all_frames[seed]))
    assert {batch[0] for batch in policy.batches} <= {(2, 16, 16, 3)}, "the batches have one size"
    assert lane_threads() == []


def test_lanes_take_strict_turns_and_chunks_say_their_call_and_row(two):
    order = []

    def draw(running):
        return [episode and (episode.seed, episode.calls) for episode in running]

    class Noting(Wanderer):
        def act(self, images, states, prompts, noise):
            order.append(noise)
            return np.zeros((len(states), CHUNK, 7), np.float32)

    episodes = {each.seed: each for each in rollout(two, Noting(), range(10, 16), policy_seed=0, draw=draw)}
    first = [[(10, calls), (11, calls)] for calls in range(3)]
    second = [[(12, calls), (13, calls)] for calls in range(3)]
    assert order[:6] == [batch for pair in zip(first, second, strict=True) for batch in pair]
    assert order[6:] == [[(14, calls), (15, calls)] for calls in range(3)], "the second lane has no more seeds"
    for seed, episode in episodes.items():
        assert episode.env_index == (seed - 10) % 4
        for calls, chunk in enumerate(episode.chunks):
            assert order[chunk.call][chunk.row] == (seed, calls)


def test_a_staged_policy_prepares_in_the_threads_of_the_lanes(four, two):
    """And acts in this one, on what it has prepared."""

    class Staged(Wanderer):
        def __init__(self):
            super().__init__()
            self.prepared_by, self.acted_by = set(), set()

        def prepare(self, images, states, prompts):
            self.prepared_by.add(threading.current_thread().name)
            return images, states, prompts

        def act_on(self, prepared, noise):
            self.acted_by.add(threading.current_thread())
            return super().act(*prepared, noise)

        def act(self, images, states, prompts, noise):
            raise AssertionError

    expected, _, _ = run(four, range(10, 16))
    for env, threads in ((four, {threading.current_thread().name}), (two, {"lane_0"})):
        policy = Staged()
        episodes = list(rollout(env, policy, range(10, 16), policy_seed=0))
        assert {each.seed: each.row(1, "", 0) for each in episodes} == {
            seed: each.row(1, "", 0) for seed, each in expected.items()
        }
        assert policy.prepared_by == threads
        assert policy.acted_by == {threading.current_thread()}


def test_the_clock_says_for_how_long_the_policy_waited(env, two):
    for played in (env, two):
        clock = Clock()
        assert clock.wait_share == 0
        for _ in rollout(played, Wanderer(), range(10, 14), policy_seed=0, clock=clock):
            pass
        assert 0 < clock.waited <= clock.wall
        assert clock.wait_share == clock.waited / clock.wall
        before = clock.wall
        assert list(rollout(played, Wanderer(), [10], policy_seed=0, clock=clock))
        assert clock.wall > before, "it adds up"


@pytest.mark.parametrize("fails_at", ["prepare", "draw", "sink", "step"])
def test_what_a_lane_raises_comes_up_here_and_its_threads_end(two, fails_at):
    class Failing(Wanderer):
        def prepare(self, images, states, prompts):
            if fails_at == "prepare" and len(self.batches) > 2:
                raise OSError("out of it")
            return images, states, prompts

        def act_on(self, prepared, noise):
            actions = super().act(*prepared, noise)
            return actions[:, :, :3] if fails_at == "step" and len(self.batches) > 2 else actions

    def draw(running):
        if fails_at == "draw" and any(episode and episode.calls == 2 for episode in running):
            raise OSError("out of it")
        return np.zeros((len(running), CHUNK, 7), np.float32)

    def open_sink(seed):
        if fails_at == "sink" and seed == 15:
            raise OSError("out of it")

    error = ValueError if fails_at == "step" else OSError
    with pytest.raises(error, match="actions are" if fails_at == "step" else "out of it"):
        list(rollout(two, Failing(), range(10, 20), policy_seed=0, draw=draw, open_sink=open_sink))
    assert lane_threads() == []
    assert len(run(two, range(10, 14))[0]) == 4, "the environments are as usable as before"


def test_episodes_that_have_ended_are_announced_before_the_failure_of_the_next_ones(two):
    def open_sink(seed):
        if seed == 14:
            raise OSError("out of it")

    seen = []
    played = rollout(two, Wanderer(), range(10, 20), policy_seed=0, open_sink=open_sink)
    with pytest.raises(OSError, match="out of it"):
        seen.extend(episode.seed for episode in played)
    assert seen == [10, 11]


def test_a_policy_that_raises_and_a_caller_who_leaves_end_the_threads(two):
    class Broken(Wanderer):
        def act(self, *arguments):
            if len(self.batches) > 2:
                raise RuntimeError("no memory")
            return super().act(*arguments)

    with pytest.raises(RuntimeError, match="no memory"):
        list(rollout(two, Broken(), range(10, 20), policy_seed=0))
    assert lane_threads() == []
    episodes = rollout(two, Wanderer(), range(10, 20), policy_seed=0)
    next(episodes)
    assert lane_threads()
    episodes.close()
    assert lane_threads() == []


def test_a_killed_environment_process_ends_a_rollout():
    lanes = make_two()
    episodes = rollout(lanes, Wanderer(), range(10, 40), policy_seed=0)
    next(episodes)
    os.kill(lanes.envs[1].crew.processes[0].child.pid, signal.SIGKILL)
    with pytest.raises(SimulatorDied, match="signal 9"):
        list(episodes)
    assert lane_threads() == []
    lanes.close()
