"""Exploring by the fast path against `FlowActorCritic.sample`, and what follows a change of the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rlinf_isaac.config import load_config
from rlinf_isaac.config.rl_schema import RlConfig
from rlinf_isaac.pi0.fast.explorer import Explored, GraphExplorer
from rlinf_isaac.pi0.flow_policy import Draws, FlowActorCritic
from rlinf_isaac.pi0.lora import add_adapters
from rlinf_isaac.pi0.precision import to_precision

STEPS = 2
EXPLORATIONS = {"one": ("flow_sde", 1), "all": ("flow_sde", 0), "noise": ("flow_noise", 1)}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
both = pytest.mark.parametrize("config", [False, True], ids=["pi0", "pi05"], indirect=True)
everywhere = pytest.mark.parametrize("exploration", EXPLORATIONS)
# Of the interpreter, which takes seconds for each, half of all: every two of the three meet in every way.
CASES = [
    pytest.param(pi05, exploration, padded, id=f"{'pi05' if pi05 else 'pi0'}-{exploration}-{'un' * (not padded)}padded")
    for pi05 in (False, True)
    for number, exploration in enumerate(EXPLORATIONS)
    for padded in (True, False)
    if torch.cuda.is_available() or (pi05 + number + padded) % 2
]


@pytest.fixture
def exploration() -> str:
    return "one"


@pytest.fixture
def policy(model, policy_config, exploration, device) -> FlowActorCritic:
    kind, count = EXPLORATIONS[exploration]
    rl = RlConfig(exploration=kind, noise_steps=count, noise_level=0.5, value_widths=[16, 8])
    policy_config.action_chunk, policy_config.denoise_steps = 2, STEPS
    return FlowActorCritic(model.to(device), policy_config, rl)


@pytest.fixture
def fits_all(monkeypatch) -> None:
    """The kernels run in float32, too, as they must where they are interpreted; prompts stay short."""
    monkeypatch.setattr("rlinf_isaac.pi0.fast.sampler.PROMPT_STEP", 1)
    monkeypatch.setattr("rlinf_isaac.pi0.fast.sampler.fits", lambda model: True)


@pytest.fixture
def inputs(make_observation, config) -> Callable:
    def make(policy: FlowActorCritic, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        shape, count = (config.action_horizon, config.action_dim), policy.stochastic_steps
        chosen = torch.arange(STEPS).expand(3, STEPS) if count > 1 else torch.tensor([1, 0, 1])[:, None]
        start, noise = torch.randn(3, *shape, generator=generator), torch.randn(3, count, *shape, generator=generator)
        return make_observation(config, seed), Draws(start, noise, chosen)

    return make


def plain(policy: FlowActorCritic, observation, draws: Draws) -> list[Tensor]:
    device = policy.model.action_in_proj.weight.device
    observation = observation.to(device)
    drawn = Draws(*(tensor.to(device) for tensor in draws))
    actions, transitions, evaluated = policy.sample(observation.state, policy.prefix(observation), drawn)
    return [actions, *transitions, *evaluated]


def results(explored: Explored) -> list[Tensor]:
    return [explored.actions, *explored.transitions, *explored.evaluated]


def close(found: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


def moved(policy: FlowActorCritic, seed: int = 9) -> None:
    """Changes every parameter of policy and heads in place, by much more than rounding."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            change = 0.05 * torch.randn(parameter.shape, generator=generator)
            parameter.add_(change.to(parameter))


@pytest.mark.parametrize(("config", "exploration", "padded"), CASES, indirect=["config"])
def test_it_explores_as_the_plain_policy(config, policy, inputs, fits_all, padded: bool) -> None:
    """And its prefix, kept, is one behind which `log_probabilities` finds the same."""
    observation, draws = inputs(policy)
    if padded:
        masks = observation.image_masks | {"base_0_rgb": torch.tensor([True, False, True])}
        observation = replace(observation, image_masks=masks)
    else:
        observation = replace(observation, prompt_mask=torch.ones_like(observation.prompt_mask), padded=None)
    on_cpu = not torch.cuda.is_available()
    wanted = plain(policy, observation, draws)
    explored = GraphExplorer(policy)(observation, draws)
    close(results(explored), wanted, 2e-5 if on_cpu else 2e-2)

    assert int(explored.prefix.valid.sum()) == int(policy.prefix(observation.to(wanted[0].device)).valid.sum())
    cache = explored.prefix.cache(policy.model, padded=padded)
    again = policy.log_probabilities(observation.state.to(wanted[0].device), cache, explored.transitions)
    close([tensor.detach() for tensor in again], list(explored.evaluated), 2e-5 if on_cpu else 2e-2)


@both
@pytest.mark.parametrize("exploration", ["noise"])
def test_refreshed_is_new(config, policy, inputs, fits_all) -> None:
    observation, draws = inputs(policy)
    explorer = GraphExplorer(policy)
    moved(policy)
    explorer.refresh()
    found, wanted = explorer(observation, draws), GraphExplorer(policy)(observation, draws)
    assert all(torch.equal(one, other) for one, other in zip(results(found), results(wanted), strict=True))


@both
def test_adapters_are_merged_and_followed(config, policy, inputs, fits_all) -> None:
    job = load_config("tiny", ["sft.trainable=lora", "sft.lora.vlm_rank=3", "sft.lora.vlm_alpha=6"])
    job.model = config
    add_adapters(policy.model, job)
    names = [name for name, _ in policy.model.named_parameters()]
    explorer = GraphExplorer(policy)
    moved(policy)
    explorer.refresh()
    observation, draws = inputs(policy)
    on_cpu = not torch.cuda.is_available()
    close(results(explorer(observation, draws)), plain(policy, observation, draws), 5e-5 if on_cpu else 2e-2)
    assert [name for name, _ in policy.model.named_parameters()] == names


def test_parameters_must_stay_where_they_are(config, policy, fits_all) -> None:
    explorer = GraphExplorer(policy)
    weight = policy.heads["value_head"].mlp[0].weight
    weight.data = weight.data.clone()
    with pytest.raises(RuntimeError, match="have moved"):
        explorer.refresh()


@everywhere
def test_a_model_that_does_not_fit_takes_the_plain_path(policy, inputs, make_config) -> None:
    observation, draws = inputs(policy)
    explorer = GraphExplorer(policy)
    assert explorer.sampler.network is None
    close(results(explorer(observation, draws)), plain(policy, observation, draws), 1e-5)


@needs_gpu
@both
@everywhere
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_graphs(config, policy, inputs, kind: str) -> None:
    """Replayed, the graph gives what the same kernels give outside of it, also after a change of the weights."""
    to_precision(policy.model, kind)
    explorer = GraphExplorer(policy)
    assert (explorer.sampler.network is None) == (kind == "float32")
    for seed in (0, 1, 2):
        observation, draws = inputs(policy, seed)
        found = explorer(observation, draws)
        kept = [found.prefix.keys.clone(), found.prefix.values.clone(), found.prefix.valid.clone()]
        direct = GraphExplorer(policy)
        direct.sampler.graphs.pool = None
        outside = direct(observation, draws)
        pairs = zip(
            [*results(found), *kept],
            [*results(outside), outside.prefix.keys, outside.prefix.values, outside.prefix.valid],
            strict=True,
        )
        assert all(torch.equal(one, other) for one, other in pairs)
        close(results(found), plain(policy, observation, draws), 1e-4 if kind == "float32" else 0.1)
        # What the trainer's kernels find behind the kept prefix differs by the rounding of the velocity.
        padded = [found.prefix.cache(policy.model, padded=True), found.transitions]
        again = policy.log_probabilities(observation.state.cuda(), *padded).log_prob.detach()
        assert (again - found.evaluated.log_prob).abs().max() < (1e-2 if kind == "float32" else 0.3)
        explorer.sampler(observation, draws.start)
        moved(policy, seed)
        explorer.refresh()
    assert len(explorer.sampler.graphs) == 2
    assert explorer.warmup_seconds > 0
