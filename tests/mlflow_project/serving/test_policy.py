from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from serving_support import expected, observation

from mlflow_project.serving.policy import ServedPolicy, exact_sizes, serving_config
from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.engines.policies import load_policy
from rlinf_isaac.engines.rollout import rollout
from rlinf_isaac.envs import make_env
from rlinf_isaac.ground.errors import InvalidJob, ObservationError, TokenizerError
from rlinf_isaac.pi0.policy import episode_noise


def same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


class Watched:
    """The evaluation's policy, remembering what it was asked and what it said."""

    def __init__(self, policy):
        self.policy, self.noise_shape, self.calls = policy, policy.noise_shape, []

    def act(self, images, states, prompts, noise):
        actions = self.policy.act(images, states, prompts, noise)
        self.calls.append(({view: image.copy() for view, image in images.items()}, states.copy(), prompts, actions))
        return actions


def test_the_same_actions_as_in_an_evaluation(bundle, policy):
    """Every observation of two real episodes, side by side there, one by one and all together here."""
    config = policy.config
    watched = Watched(load_policy(bundle, config))
    env = make_env(replace(config, env=replace(config.env, max_episode_steps=24)), num_envs=config.eval.num_envs)
    seeds = [5000, 5001]
    for _ in rollout(env, watched, seeds, policy_seed=0):
        pass
    env.close()
    assert len(watched.calls) == 3
    requests, actions = [], []
    for call, (images, states, prompts, acted) in enumerate(watched.calls):
        for slot, seed in enumerate(seeds):
            sent = {"images": {view: image[slot] for view, image in images.items()}, "state": states[slot]}
            sent |= {"prompt": prompts[slot], "noise_key": (0, seed, call)}
            requests.append(policy.spec.parse(sent, (9, 9, 9)))
            actions.append(acted[slot])
    assert same_bits(policy.infer(requests), np.stack(actions))
    for request, row in zip(requests, actions, strict=True):
        assert same_bits(policy.infer([request])[0], row)


@pytest.mark.parametrize("count", [2, 3, 5, 8, 11])
def test_the_batch_changes_no_bit(policy, count):
    requests = [policy.spec.parse(observation(index), (0, 0, 0)) for index in range(count)]
    assert same_bits(policy.infer(requests), np.stack([expected(policy, observation(i)) for i in range(count)]))
    assert same_bits(policy.infer(requests[::-1]), policy.infer(requests)[::-1])


def test_prompts_of_different_lengths_change_no_bit(bundle):
    policy = ServedPolicy(bundle, serving_config(bundle), any_prompt=True)
    sent = [observation(index) | {"prompt": prompt} for index, prompt in enumerate(["Stack.", "Stack them.", "Stack."])]
    together = policy.infer([policy.spec.parse(each, (0, 0, 0)) for each in sent])
    for row, each in zip(together, sent, strict=True):
        assert same_bits(row, expected(policy, each))


def test_images_of_another_size_are_resized_as_the_evaluation_does(bundle, policy):
    sent = [observation(index, size=100) for index in range(2)]
    requests = [policy.spec.parse(each, (0, 0, 0)) for each in sent]
    names = {"base_0_rgb": "observation/image", "left_wrist_0_rgb": "observation/wrist_image"}
    actions = policy.policy.act(
        {view: np.stack([each[name] for each in sent]) for view, name in names.items()},
        np.stack([each["observation/state"] for each in sent]),
        [each["prompt"] for each in sent],
        np.stack([episode_noise(*each["noise_key"], policy.policy.noise_shape) for each in sent]),
    )
    assert same_bits(policy.infer(requests), actions)


def test_only_measured_batch_sizes_are_used(policy):
    reference = min(policy.config.eval.num_envs, policy.config.eval.episodes)
    assert policy.sizes == exact_sizes(policy.policy, policy.spec, policy.sizes, reference)
    assert exact_sizes(policy.policy, policy.spec, (), reference) == (reference,)


def test_other_noise_gives_other_actions(policy):
    one, other = observation(0), observation(0) | {"noise_key": [0, 5000, 4]}
    assert not same_bits(expected(policy, one), expected(policy, other))


def test_actions_that_are_not_finite_are_not_given(policy):
    huge = observation(0) | {"observation/state": np.full(23, 3e38, np.float32)}
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(ObservationError, match="actions-not-finite"):
        expected(policy, huge)


def test_a_prompt_that_is_too_long(bundle):
    policy = ServedPolicy(bundle, serving_config(bundle), any_prompt=True, exact="false")
    with pytest.raises(TokenizerError):
        expected(policy, observation(0) | {"prompt": "x" * 1000})


def test_what_cannot_be_served(bundle):
    config = serving_config(bundle)
    with pytest.raises(ValueError, match="without hashing"):
        ServedPolicy(read_bundle(bundle.path, verify=False), config)
    tokenized = replace(bundle, config=bundle.config | {"tokenizer": {"kind": "another"}})
    with pytest.raises(InvalidJob, match="tokenizer-mismatch"):
        ServedPolicy(tokenized, config)
    with pytest.raises(InvalidJob, match="foreign-bundle"):
        serving_config(replace(bundle, config={}))
