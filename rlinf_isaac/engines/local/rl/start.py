"""The policy and its optimisers at the start of a training, or when it resumes."""

from __future__ import annotations

import torch

from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.engines.base import RlJob
from rlinf_isaac.engines.local.rl.memory import as_fine_tuning
from rlinf_isaac.engines.local.rl.optimisers import Optimisers
from rlinf_isaac.engines.policies import compiles, load_with_heads
from rlinf_isaac.pi0.compiled import compile_blocks
from rlinf_isaac.pi0.flow_policy import FlowActorCritic
from rlinf_isaac.pi0.lora import add_adapters
from rlinf_isaac.pi0.model import Pi0
from rlinf_isaac.pi0.precision import to_precision


def empty_policy(config: JobConfig) -> FlowActorCritic:
    """The policy of `config` in eval mode and in its dtype, with random weights; its heads are initialised."""
    return _finished(_new(config), config)


def load_actor_critic(job: RlJob) -> FlowActorCritic:
    """The policy of the start checkpoint, with its value and noise heads if it has them."""
    return load_policy_and_optimisers(job)[0]


def load_policy_and_optimisers(job: RlJob, bundle: Bundle | None = None) -> tuple[FlowActorCritic, Optimisers]:
    """The policy of the start checkpoint, or of `bundle` from which this training resumes; and new optimisers.

    Adapters are merged into the weights of `bundle`, so with them the start checkpoint is loaded in any case, and the
    training state has what trains.
    """
    config = job.config
    policy = _new(config)
    load_with_heads(bundle if bundle and config.rl.trainable != "lora" else job.start, policy.checkpoint_module())
    # Keep the float32 values of trained parameters before rounding to bfloat16; they become the float32 copies.
    rounds = config.compute.dtype == "bfloat16" and config.compute.master_weights
    named = policy.model.named_parameters()
    exact = {name: each.detach() for name, each in named if rounds and each.requires_grad}
    _finished(policy, config)
    if compiles(config.compute):
        model = policy.model
        compile_blocks(model, stacks=(model.expert,) if policy.prefix_is_frozen else model.stacks)
    return policy, Optimisers(policy, exact)


def _new(config: JobConfig) -> FlowActorCritic:
    with torch.device(config.compute.device):  # initialising a full-size model takes minutes on a CPU
        model = Pi0(config.model)
    return FlowActorCritic(model.eval(), config.policy, config.rl)


def _finished(policy: FlowActorCritic, config: JobConfig) -> FlowActorCritic:
    """Give a float32 policy the config's dtype, and adapters if it asks for them, in place."""
    to_precision(policy.model, config.compute.dtype)
    if config.rl.trainable == "lora":
        add_adapters(policy.model, as_fine_tuning(config))
    return policy
