"""The policy and its optimisers at the start of a training, when it resumes, and when it goes back."""

from __future__ import annotations

import torch
from torch import Tensor

from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.weights import read_weights
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.engines.base import RlJob
from rlinf_isaac.engines.local.rl.memory import as_fine_tuning
from rlinf_isaac.engines.local.rl.optimisers import Optimisers
from rlinf_isaac.engines.policies import compiles, load_with_heads
from rlinf_isaac.pi0.compiled import compile_blocks
from rlinf_isaac.pi0.flow_policy import FlowActorCritic
from rlinf_isaac.pi0.heads import initialise_heads
from rlinf_isaac.pi0.lora import add_adapters, reset_adapters
from rlinf_isaac.pi0.model import Pi0
from rlinf_isaac.pi0.precision import to_precision


def empty_policy(config: JobConfig) -> FlowActorCritic:
    """The policy of `config` in eval mode and in its dtype, with random weights; its heads are initialised."""
    policy = _without_adapters(config)
    if config.rl.trainable == "lora":
        add_adapters(policy.model, as_fine_tuning(config))
    return policy


def load_actor_critic(job: RlJob) -> FlowActorCritic:
    """The policy of the start checkpoint, with its value and noise heads if it has them."""
    return load_policy_and_optimisers(job)[0]


def load_policy_and_optimisers(job: RlJob, bundle: Bundle | None = None) -> tuple[FlowActorCritic, Optimisers]:
    """The policy of the start checkpoint, or of `bundle` from which this training resumes; and new optimisers."""
    config = job.config
    policy, source = _without_adapters(config), _source(job, bundle)
    load_with_heads(source, policy.checkpoint_module())
    if config.rl.trainable == "lora":
        add_adapters(policy.model, as_fine_tuning(config))
        _load_heads(policy, bundle or job.start)
    if compiles(config.compute):
        model = policy.model
        compile_blocks(model, stacks=(model.expert,) if policy.prefix_is_frozen else model.stacks)
    return policy, Optimisers(policy, _exact(policy, config, source))


@torch.no_grad()
def go_back(job: RlJob, policy: FlowActorCritic, bundle: Bundle | None) -> Optimisers:
    """Give a policy the weights of an earlier checkpoint of this training again, in place, or those of the start
    checkpoint (None). What is frozen has never changed. Returns new optimisers.
    """
    source = _source(job, bundle)
    initialise_heads(policy.heads, policy.rl.seed)
    reset_adapters(policy.model, policy.rl.seed)
    trained = {name: each for name, each in policy.model.named_parameters() if each.requires_grad}
    for name, value in read_weights(source, [*trained]).items():
        trained[name].copy_(value)
    _load_heads(policy, bundle or job.start)
    return Optimisers(policy, _exact(policy, job.config, source))


@torch.no_grad()
def _load_heads(policy: FlowActorCritic, bundle: Bundle) -> None:
    """Give the heads the weights of a bundle, if it has heads like these."""
    heads = dict(policy.heads.named_parameters())
    stored = read_weights(bundle, [*heads])
    if all(name in stored and stored[name].shape == each.shape for name, each in heads.items()):
        for name, each in heads.items():
            each.copy_(stored[name])


def _source(job: RlJob, bundle: Bundle | None) -> Bundle:
    """The checkpoint whose weights are loaded. Adapters are merged into those of `bundle`, so with them it is the start
    checkpoint in any case, and the training state has what trains."""
    return job.start if bundle is None or job.config.rl.trainable == "lora" else bundle


def _exact(policy: FlowActorCritic, config: JobConfig, source: Bundle) -> dict[str, Tensor]:
    """The float32 values of trained bfloat16 parameters, from which their float32 copies begin."""
    if not config.compute.master_weights:
        return {}
    rounded = {
        name: each
        for name, each in policy.model.named_parameters()
        if each.requires_grad and each.dtype != torch.float32
    }
    stored = read_weights(source, [*rounded])
    return {name: stored.get(name, each.detach()).to(each.device, torch.float32) for name, each in rounded.items()}


def _without_adapters(config: JobConfig) -> FlowActorCritic:
    with torch.device(config.compute.device):  # initialising a full-size model takes minutes on a CPU
        model = Pi0(config.model)
    return FlowActorCritic(to_precision(model, config.compute.dtype).eval(), config.policy, config.rl)
