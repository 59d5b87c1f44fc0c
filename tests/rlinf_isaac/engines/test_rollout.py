"""Rollouts in the real environment, with a policy whose actions are a function of what it is given."""

from __future__ import annotations

import numpy as np
import pytest

from rlinf_isaac.config.schema import EnvConfig, JobConfig, PolicyConfig
from rlinf_isaac.engines.rollout import rollout
from rlinf_isaac.envs import make_env
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
