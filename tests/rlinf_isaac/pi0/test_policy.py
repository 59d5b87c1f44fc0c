from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from rlinf_isaac.ground.errors import InvalidJob, NormStatsError, TokenizerError
from rlinf_isaac.pi0.fast.sampler import GraphSampler
from rlinf_isaac.pi0.observation import CAMERAS
from rlinf_isaac.pi0.policy import Pi0Policy, Processor, episode_noise
from rlinf_isaac.pi0.tokenizer import ByteTokenizer
from rlinf_isaac.pi0.transforms import resize_with_pad
from rlinf_isaac.tasks.adapters import Adapter

PROMPTS = ["stack the red cube", "stack it", "stack the red cube", "stack it"]


def inputs(seed: int, size: int = 24, rows: int = 4) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    views = {
        view: rng.integers(0, 256, (rows, size, size, 3), dtype=np.uint8) for view in ("base_0_rgb", "left_wrist_0_rgb")
    }
    return views, rng.normal(size=(rows, 8)).astype(np.float32)


def noise(policy: Pi0Policy, rows: int = 4) -> np.ndarray:
    return np.stack([episode_noise(0, 5000 + row, 0, policy.noise_shape) for row in range(rows)])


@pytest.fixture
def processor(config, policy_config, norm_stats) -> Processor:
    return Processor(config, policy_config, norm_stats, ByteTokenizer())


@pytest.fixture
def policy(model, processor, policy_config) -> Pi0Policy:
    return Pi0Policy(model, processor, policy_config, "cpu")


def test_observation(processor) -> None:
    images, states = inputs(0, size=40)
    observation = processor.observation(images, states, PROMPTS)
    assert observation.present_cameras == CAMERAS[:2]
    expected = torch.from_numpy(resize_with_pad(images["left_wrist_0_rgb"], 24)).permute(0, 3, 1, 2)
    assert torch.equal(observation.images["left_wrist_0_rgb"], expected)
    assert not observation.images["right_wrist_0_rgb"].any()
    normalized = processor.state_normalizer.normalize(states)
    assert torch.equal(observation.state[:, :8], torch.from_numpy(normalized))
    assert not observation.state[:, 8:].any()
    # Trimmed to the longest prompt: BOS, text, newline.
    assert observation.prompt_tokens.shape == (4, len(PROMPTS[0]) + 2)
    assert observation.prompt_mask.sum(1).tolist() == [len(prompt) + 2 for prompt in PROMPTS]


def test_missing_view_is_masked(processor) -> None:
    images, states = inputs(0)
    del images["left_wrist_0_rgb"]
    assert processor.observation(images, states, PROMPTS).present_cameras == CAMERAS[:1]


def test_actions_round_trip(processor) -> None:
    actions = np.random.default_rng(0).normal(size=(4, 6, 7)).astype(np.float32)
    states = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
    targets = processor.target_actions(actions, states)
    assert targets.shape == (4, 6, 32)
    assert targets.dtype == torch.float32
    assert not targets[..., 7:].any()
    np.testing.assert_allclose(processor.robot_actions(targets, states), actions, atol=2e-6)


def test_act(policy) -> None:
    images, states = inputs(0)
    actions = policy.act(images, states, PROMPTS, noise(policy))
    assert actions.shape == (4, 4, 7)
    assert actions.dtype == np.float32
    np.testing.assert_array_equal(policy.act(images, states, PROMPTS, noise(policy)), actions)


def test_a_sampler_may_be_shared(model, processor, policy_config, policy) -> None:
    """It pads prompts, so the order of sums is another."""
    sampler = GraphSampler(model, policy_config.denoise_steps)
    shared = Pi0Policy(model, processor, policy_config, "cpu", sampler=sampler)
    images, states = inputs(0)
    expected = policy.act(images, states, PROMPTS, noise(policy))
    np.testing.assert_allclose(shared.act(images, states, PROMPTS, noise(policy)), expected, atol=1e-5)
    assert shared.warmup_seconds == 0


def test_what_is_prepared_before_is_acted_on_alike(policy) -> None:
    """Images of a camera that nobody has are not taken to a device."""
    images, states = inputs(0)
    prepared = policy.prepare(images, states, PROMPTS)
    policy.prepare(*inputs(1), PROMPTS)  # another batch, meanwhile
    actions = policy.act(images, states, PROMPTS, noise(policy))
    np.testing.assert_array_equal(policy.act_on(prepared, noise(policy)), actions)
    seen = prepared.observation.seen()
    assert list(seen.images) == list(CAMERAS[:2])
    alike = policy.act_on(prepared._replace(observation=seen), noise(policy))
    np.testing.assert_array_equal(alike, actions)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinned memory is that of a GPU")
def test_for_a_gpu_it_is_in_pinned_memory(model, processor, policy_config) -> None:
    images, states = inputs(0)
    observation = Pi0Policy(model, processor, policy_config, "cuda").prepare(images, states, PROMPTS).observation
    tensors = [*observation.images.values(), *observation.image_masks.values(), observation.state]
    assert all(tensor.is_pinned() for tensor in [*tensors, observation.prompt_tokens, observation.prompt_mask])


@pytest.mark.parametrize("row", [0, 1, 3])
def test_a_row_does_not_depend_on_the_others(policy, row: int) -> None:
    images, states = inputs(0)
    first = policy.act(images, states, PROMPTS, noise(policy))
    other_images, other_states = inputs(1)
    other_noise = noise(policy)[::-1].copy()
    for view in images:
        other_images[view][row] = images[view][row]
    other_states[row], other_noise[row] = states[row], noise(policy)[row]
    second = policy.act(other_images, other_states, PROMPTS, other_noise)
    assert np.array_equal(first[row], second[row])
    assert not np.array_equal(np.delete(first, row, 0), np.delete(second, row, 0))


def test_discrete_state_is_in_a_prompt_of_fixed_length(make_config, policy_config, norm_stats) -> None:
    config = make_config(True, discrete_state_input=True, max_token_len=120)
    tokenizer = ByteTokenizer()
    processor = Processor(config, policy_config, norm_stats, tokenizer)
    images, states = inputs(0)
    observation = processor.observation(images, states, PROMPTS)
    assert observation.prompt_tokens.shape == (4, 120)
    normalized = processor.state_normalizer.normalize(states)
    for row in range(4):
        expected = tokenizer.encode(PROMPTS[row], normalized[row])
        assert observation.prompt_tokens[row, observation.prompt_mask[row]].tolist() == expected


def test_refusals(config, model, policy_config, processor, norm_stats) -> None:
    images, states = inputs(0)
    with pytest.raises(NormStatsError, match="'state' has 20 dims"):
        processor.observation(images, np.zeros((4, 20), np.float32), PROMPTS)
    with pytest.raises(TokenizerError, match="max_token_len is 64"):
        processor.observation(images, states, ["x" * 100] * 4)
    with pytest.raises(NormStatsError, match="'actions' has 8 dims"):
        Processor(config, dataclasses.replace(policy_config, env_action_dim=8), norm_stats, ByteTokenizer())
    with pytest.raises(InvalidJob, match="env_action_dim 40"):
        Processor(config, dataclasses.replace(policy_config, env_action_dim=40), norm_stats, ByteTokenizer())
    with pytest.raises(InvalidJob, match=r"action_chunk 7 exceeds model\.action_horizon 6"):
        Pi0Policy(model, processor, dataclasses.replace(policy_config, action_chunk=7), "cpu")


def test_episode_noise_is_a_function_of_its_arguments() -> None:
    first = episode_noise(1, 2, 3, (6, 32))
    assert first.shape == (6, 32)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, episode_noise(1, 2, 3, (6, 32)))
    for other in [(0, 2, 3), (1, 0, 3), (1, 2, 0), (2, 1, 3)]:
        assert not np.array_equal(first, episode_noise(*other, (6, 32)))
    sample = np.stack([episode_noise(0, seed, 0, (100,)) for seed in range(100)])
    assert abs(sample.mean()) < 0.05
    assert abs(sample.std() - 1) < 0.05
    with pytest.raises(ValueError, match="policy_seed"):
        episode_noise(-1, 0, 0, (2,))


def test_episode_noise_is_the_same_on_every_machine() -> None:
    """Recorded once; a change would make old episode rows irreproducible."""
    np.testing.assert_array_equal(
        episode_noise(0, 5000, 0, (3,)), np.array([1.344157577, 0.204768762, -0.695584118], np.float32)
    )


def test_delta_actions_are_learnt_relative_and_executed_absolute(config, policy_config, norm_stats) -> None:
    """OpenPI's order: DeltaActions then Normalize for targets; Unnormalize then AbsoluteActions for samples."""
    relative = dataclasses.replace(policy_config, delta_actions="6,-1")
    processor = Processor(config, relative, norm_stats, ByteTokenizer())
    rng = np.random.default_rng(0)
    actions, states = rng.normal(size=(4, 6, 7)).astype(np.float32), rng.normal(size=(4, 8)).astype(np.float32)
    differences = actions.copy()
    differences[..., :6] -= states[:, None, :6]
    targets = processor.target_actions(actions, states)
    expected = processor.action_normalizer.normalize(differences)
    np.testing.assert_array_equal(targets[..., :7].numpy(), expected)
    np.testing.assert_allclose(processor.robot_actions(targets, states), actions, atol=4e-6)
    with pytest.raises(InvalidJob, match="names 8 dims"):
        Processor(config, dataclasses.replace(relative, delta_actions="8"), norm_stats, ByteTokenizer())


def test_a_policy_of_delta_actions_adds_the_state(model, config, policy_config, norm_stats) -> None:
    """The same model and noise: the chunk of the delta policy is the absolute one's plus the state."""
    images, states = inputs(0)
    chunks = []
    for delta in ("none", "6,-1"):
        policy = dataclasses.replace(policy_config, delta_actions=delta)
        acting = Pi0Policy(model, Processor(config, policy, norm_stats, ByteTokenizer()), policy, "cpu")
        chunks.append(acting.act(images, states, PROMPTS, noise(acting)))
    np.testing.assert_allclose(chunks[1][..., :6], chunks[0][..., :6] + states[:, None, :6], atol=1e-5)
    np.testing.assert_array_equal(chunks[1][..., 6], chunks[0][..., 6])


@pytest.mark.parametrize("delta", ["none", "6,-1"])
def test_an_adapted_robot(config, policy_config, norm_stats, delta) -> None:
    """OpenPI's order: the robot's own transform, then DeltaActions, then Normalize; and back in reverse."""
    scale = np.array([2, -1, 1, 1, 1, 1, 3], np.float32)
    adapter = Adapter(
        state=lambda states: states[..., ::-1].copy(),
        actions=lambda actions: actions * scale,
        to_robot=lambda actions: actions / scale,
    )
    policy = dataclasses.replace(policy_config, delta_actions=delta)
    processor = Processor(config, policy, norm_stats, ByteTokenizer(), adapter)
    plain = Processor(config, policy, norm_stats, ByteTokenizer())
    rng = np.random.default_rng(0)
    actions, states = rng.normal(size=(4, 6, 7)).astype(np.float32), rng.normal(size=(4, 8)).astype(np.float32)
    targets = processor.target_actions(actions, states)
    assert torch.equal(targets, plain.target_actions(actions * scale, states[:, ::-1].copy()))
    np.testing.assert_allclose(processor.robot_actions(targets, states), actions, atol=4e-6)
    observed, expected = (
        processor.observation({}, states, PROMPTS),
        plain.observation({}, states[:, ::-1].copy(), PROMPTS),
    )
    assert torch.equal(observed.state, expected.state)
    assert torch.equal(observed.prompt_tokens, expected.prompt_tokens)
