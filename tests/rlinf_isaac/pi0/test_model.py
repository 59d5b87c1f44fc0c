from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from rlinf_isaac.config import load_config
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.pi0.gemma import MASKED, Rope
from rlinf_isaac.pi0.model import Pi0, initialise, sinusoidal_embedding
from rlinf_isaac.pi0.observation import CAMERAS

NUM_KEYS = {"pi0": 778, "pi05": 813}


def openpi_shapes(preset: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of OpenPI's full-size state dict, expanded from ``openpi_keys.txt``."""
    shapes = {}
    for line in (Path(__file__).parent / "openpi_keys.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        presets, name, shape = line.split()
        if preset not in presets.split(","):
            continue
        last = re.search(r"\{0\.\.(\d+)\}", name)
        numbers = range(int(last[1]) + 1) if last else [None]
        for number in numbers:
            full = name if last is None else name.replace(last[0], str(number))
            shapes[full] = tuple(int(size) for size in shape.split("x"))
    return shapes


@pytest.mark.parametrize("preset", ["pi0", "pi05"])
def test_full_size_state_dict_is_openpis(preset: str) -> None:
    expected = openpi_shapes(preset)
    assert len(expected) == NUM_KEYS[preset]
    with torch.device("meta"):
        model = Pi0(load_config(preset).model)
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == expected


def joint_velocity(model: Pi0, observation, x_t: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """The velocity by the definition, as OpenPI trains: one attention over prefix and suffix at once, the full
    boolean mask from cumulative block numbers, softmax written out, every camera encoded, nothing cached."""
    vlm, expert = model.vlm, model.expert
    images = [vlm.encode_images(observation.images[camera]) for camera in CAMERAS]
    prefix = torch.cat([*images, vlm.encode_prompt(observation.prompt_tokens)], dim=1)
    masks = [observation.image_masks[camera][:, None].expand(-1, images[0].shape[1]) for camera in CAMERAS]
    suffix, condition = model._suffix(observation.state, x_t, time)
    batch, num_prefix, num_suffix = len(x_t), prefix.shape[1], suffix.shape[1]
    valid = torch.cat([*masks, observation.prompt_mask, torch.ones(batch, num_suffix, dtype=torch.bool)], dim=1)
    starts = torch.zeros(num_prefix + num_suffix)  # 1 where a new block begins: the state (pi0), the first action
    starts[num_prefix] = 1
    if not model.config.pi05:
        starts[num_prefix + 1] = 1
    blocks = starts.cumsum(0)
    visible = (blocks[None, :] <= blocks[:, None]) & valid[:, None, :] & valid[:, :, None]
    bias = torch.where(visible, 0.0, MASKED)[:, None]
    rope = Rope.of(valid.cumsum(1) - 1, model.config.vlm.head_dim, torch.float32)

    streams = [(prefix, None), (suffix, condition)]
    for layers in zip(vlm.language_model.layers, expert.layers, strict=True):
        projected, gates = [], []
        for layer, (x, given) in zip(layers, streams, strict=True):
            normed, gate = layer.input_layernorm(x, given)
            gates.append(gate)
            attention = layer.self_attn
            heads = [projection(normed).unflatten(-1, (-1, attention.head_dim)) for projection in
                     (attention.q_proj, attention.k_proj, attention.v_proj)]  # fmt: skip
            projected.append(heads)
        queries, keys, values = (torch.cat(parts, dim=1) for parts in zip(*projected, strict=True))
        repeat = queries.shape[2] // keys.shape[2]
        keys = rope.rotate(keys).repeat_interleave(repeat, dim=2)
        values = values.repeat_interleave(repeat, dim=2)
        scores = torch.einsum("bqhd,bkhd->bhqk", rope.rotate(queries), keys) / queries.shape[-1] ** 0.5
        attended = torch.einsum("bhqk,bkhd->bqhd", (scores + bias).softmax(-1), values).flatten(2)
        parts = attended.split([num_prefix, num_suffix], dim=1)
        finished = []
        for layer, (x, given), gate, part in zip(layers, streams, gates, parts, strict=True):
            x = x + layer.self_attn.o_proj(part) * (1 if gate is None else gate)
            normed, gate = layer.post_attention_layernorm(x, given)
            finished.append((x + layer.mlp(normed) * (1 if gate is None else gate), given))
        streams = finished
    output, _ = expert.norm(*streams[1])
    return model.action_out_proj(output[:, -model.config.action_horizon :])


def test_loss_equals_joint_attention(model, make_observation, make_flow) -> None:
    observation = make_observation(model.config)
    actions, noise, time = make_flow(model.config)
    x_t = time[:, None, None] * noise + (1 - time[:, None, None]) * actions
    expected = (joint_velocity(model, observation, x_t, time) - (noise - actions)) ** 2
    torch.testing.assert_close(model(observation, actions, noise, time), expected, rtol=1e-4, atol=1e-5)


def test_several_flow_samples_are_as_many_passes(model, make_observation, make_flow) -> None:
    observation = make_observation(model.config)
    actions, noise, time = make_flow(model.config)
    _, other_noise, other_time = make_flow(model.config, seed=1)
    both = model(
        observation,
        actions,
        torch.stack([noise, other_noise], dim=1).flatten(0, 1),
        torch.stack([time, other_time], dim=1).flatten(),
    ).unflatten(0, (3, 2))
    torch.testing.assert_close(both[:, 0], model(observation, actions, noise, time))
    torch.testing.assert_close(both[:, 1], model(observation, actions, other_noise, other_time))


def test_cached_sampling_equals_uncached_integration(model, make_observation, make_flow) -> None:
    observation = make_observation(model.config)
    _, noise, _ = make_flow(model.config)
    x, steps = noise, 4
    with torch.no_grad():
        for step in range(steps):
            time = torch.full((len(x),), 1 - step / steps)
            x = x - joint_velocity(model, observation, x, time) / steps
    torch.testing.assert_close(model.sample(observation, noise, steps), x, rtol=1e-4, atol=1e-5)


def test_masked_camera_is_a_no_op(model, make_observation, make_flow) -> None:
    observation = make_observation(model.config)
    _, noise, _ = make_flow(model.config)
    skipped = model.sample(observation, noise, 2)
    assert observation.present_cameras == CAMERAS[:2]
    other_pixels = dict(observation.images) | {CAMERAS[2]: torch.full_like(observation.images[CAMERAS[2]], 0.7)}
    changed = dataclasses.replace(observation, images=other_pixels)
    assert torch.equal(model.sample(changed, noise, 2), skipped)
    encoded = dataclasses.replace(observation, present_cameras=CAMERAS)
    torch.testing.assert_close(model.sample(encoded, noise, 2), skipped, rtol=1e-4, atol=1e-5)
    seen = dict(observation.image_masks) | {CAMERAS[2]: torch.ones(3, dtype=torch.bool)}
    visible = dataclasses.replace(observation, image_masks=seen, present_cameras=CAMERAS)
    assert (model.sample(visible, noise, 2) - skipped).abs().max() > 1e-3


def test_camera_masked_in_one_row_changes_that_row_only(model, make_observation, make_flow) -> None:
    observation = make_observation(model.config)
    _, noise, _ = make_flow(model.config)
    before = model.sample(observation, noise, 2)
    masks = dict(observation.image_masks) | {CAMERAS[1]: torch.tensor([True, False, True])}
    after = model.sample(dataclasses.replace(observation, image_masks=masks), noise, 2)
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert (before[1] - after[1]).abs().max() > 1e-3


def test_prompt_padding_changes_nothing(model, make_observation, make_flow) -> None:
    observation = make_observation(model.config)
    _, noise, _ = make_flow(model.config)
    padded = dataclasses.replace(
        observation,
        prompt_tokens=F.pad(observation.prompt_tokens.masked_fill(~observation.prompt_mask, 5), (0, 11), value=3),
        prompt_mask=F.pad(observation.prompt_mask, (0, 11), value=False),
    )
    expected = model.sample(observation, noise, 2)
    torch.testing.assert_close(model.sample(padded, noise, 2), expected, rtol=1e-4, atol=1e-5)


def test_every_parameter_that_matters_gets_a_gradient(model, make_observation, make_flow) -> None:
    model(make_observation(model.config), *make_flow(model.config)).mean().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    last = f"layers.{model.config.vlm.depth - 1}"
    language_model = "paligemma_with_expert.paligemma.model.language_model"
    # What follows the last keys and values of the VLM is read by nobody; the expert's head neither.
    assert without == {
        f"{language_model}.norm.weight",
        f"{language_model}.{last}.self_attn.q_proj.weight",
        f"{language_model}.{last}.self_attn.o_proj.weight",
        f"{language_model}.{last}.post_attention_layernorm.weight",
        f"{language_model}.{last}.mlp.gate_proj.weight",
        f"{language_model}.{last}.mlp.up_proj.weight",
        f"{language_model}.{last}.mlp.down_proj.weight",
        "paligemma_with_expert.gemma_expert.lm_head.weight",
    }
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.abs().max() > 0, name


def test_state_reaches_pi0_but_not_pi05(model, make_observation, make_flow) -> None:
    observation = make_observation(model.config)
    _, noise, _ = make_flow(model.config)
    moved = dataclasses.replace(observation, state=observation.state + 1)
    same = torch.equal(model.sample(observation, noise, 1), model.sample(moved, noise, 1))
    assert same == model.config.pi05  # pi0.5 reads the state from the prompt, if at all


def test_overfits_one_batch_and_then_samples_it(config, make_observation, make_flow) -> None:
    """With time 1 the input is the noise, so one Euler step must land on the actions: loss and sampler agree."""
    model = Pi0(config)
    initialise(model, seed=0)
    observation, time = make_observation(config), torch.ones(3)
    actions, noise, _ = make_flow(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, fused=True)
    losses = []
    for _ in range(100):
        loss = model(observation, actions, noise, time).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.02 * losses[0]
    assert F.mse_loss(model.sample(observation, noise, 1), actions).item() < 0.05


def test_strict_load_round_trip(model) -> None:
    copy = Pi0(model.config)
    copy.load_state_dict(model.state_dict(), strict=True)
    assert all(torch.equal(copy.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    incomplete = model.state_dict()
    del incomplete["action_in_proj.bias"]
    with pytest.raises(RuntimeError, match=r"action_in_proj\.bias"):
        copy.load_state_dict(incomplete, strict=True)


def test_head_and_embedding_are_one_parameter(model) -> None:
    head = model.paligemma_with_expert.paligemma.lm_head.weight
    assert head is model.vlm.language_model.embed_tokens.weight
    model.load_state_dict(model.state_dict())
    assert model.paligemma_with_expert.paligemma.lm_head.weight is model.vlm.language_model.embed_tokens.weight


def test_same_bits_every_time(model, make_observation, make_flow) -> None:
    observation = make_observation(model.config)
    flow = make_flow(model.config)
    assert torch.equal(model.sample(observation, flow[1], 3), model.sample(observation, flow[1], 3))
    gradients = []
    for _ in range(2):
        model.zero_grad()
        model(observation, *flow).mean().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
    assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))


def test_initialise_depends_on_the_seed_alone(config) -> None:
    models = [Pi0(config) for _ in range(3)]
    state = torch.get_rng_state()
    for model, seed in zip(models, (7, 7, 8), strict=True):
        initialise(model, seed)
    assert torch.equal(torch.get_rng_state(), state)
    first, second, third = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["action_in_proj.weight"], third["action_in_proj.weight"])


def test_initialise_gives_tokens_of_unit_size(make_config) -> None:
    model = Pi0(make_config(False))
    initialise(model, seed=0)
    assert model.vlm.encode_prompt(torch.arange(280)).std().item() == pytest.approx(1, rel=0.1)


def test_no_tensor_is_made_on_another_device(model, make_observation, make_flow) -> None:
    """The meta device refuses to mix with the CPU, so it shows what would break on a GPU."""
    observation = make_observation(model.config).to("meta")
    actions, noise, time = (tensor.to("meta") for tensor in make_flow(model.config))
    model.to("meta")
    assert model(observation, actions, noise, time).device.type == "meta"
    assert model.sample(observation, noise, 2).shape == noise.shape


def test_bfloat16_transformers_with_float32_projections(model, make_observation, make_flow) -> None:
    """OpenPI's mixed precision: transformers in bfloat16, norms, patch embedding and projections in float32."""
    observation = make_observation(model.config)
    _, noise, _ = make_flow(model.config)
    expected = model.sample(observation, noise, 3)
    model.paligemma_with_expert.bfloat16()
    for name, parameter in model.named_parameters():
        if re.search(r"(input|attention)_layernorm|model\.norm|embeddings", name):
            parameter.data = parameter.data.float()
    sample = model.sample(observation, noise, 3)
    assert sample.dtype == torch.float32
    assert (sample - expected).abs().max() < 0.1 * expected.abs().max()


def test_time_embedding() -> None:
    embedding = sinusoidal_embedding(torch.tensor([0.0, 0.25], dtype=torch.float64), 8)
    assert torch.equal(embedding[0], torch.tensor([0.0] * 4 + [1.0] * 4, dtype=torch.float64))
    slowest = 2 * torch.pi * 0.25 / 4.0
    fastest = 2 * torch.pi * 0.25 / 4e-3
    expected = torch.tensor([fastest, slowest], dtype=torch.float64).sin()
    torch.testing.assert_close(embedding[1, [0, 3]], expected)


def test_impossible_architectures_name_every_problem(make_config) -> None:
    config = make_config(False)
    config.expert.depth, config.vlm.head_dim, config.vision.image_size = 2, 16, 25
    with pytest.raises(InvalidJob) as error:
        Pi0(config)
    assert len(error.value.problems) == 3
    assert "model.expert.depth is 2" in str(error.value)
