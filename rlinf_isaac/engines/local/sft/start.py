"""Creates the model and the optimiser at the start of a training, or when it resumes."""

from __future__ import annotations

from typing import Any

import torch

from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.foreign.load_base import load_base
from rlinf_isaac.checkpoint.weights import load_weights
from rlinf_isaac.engines.base import SftJob
from rlinf_isaac.engines.local.sft.update import parts_of
from rlinf_isaac.engines.local.training.optimiser import MasterAdamW, by_kind
from rlinf_isaac.engines.local.training.spread import Spread
from rlinf_isaac.engines.local.training.team import Team
from rlinf_isaac.pi0.compiled import checkpoint_activations, recompute_products
from rlinf_isaac.pi0.lora import add_adapters
from rlinf_isaac.pi0.model import Pi0, initialise
from rlinf_isaac.pi0.precision import to_precision
from rlinf_isaac.pi0.trainable import is_trained


def _load(model: Pi0, job: SftJob, start: Bundle | None) -> None:
    """Load the weights of the bundle `start`, or those of the job's base at the first start.

    A LoRA training always loads the base, because adapters are merged into the weights of `start`. Its adapters and
    other trained parameters are restored from the training state.
    """
    sft = job.config.sft
    if start is not None and sft.trainable != "lora":
        load_weights(start, model)
    elif job.base is not None:
        load_base(job.base.named.path, model, job.config.model, sft.fresh)


def model_and_optimiser(job: SftJob, team: Team, start: Bundle | None) -> tuple[Spread, torch.optim.AdamW]:
    """The model of this process of `team`, with the weights of `start`, of the job's base, or random ones; and its
    optimiser.

    Frozen parameters have no gradient, no optimiser state and no float32 copy. If the whole VLM is frozen, autograd
    saves none of its activations, because no gradient flows through its keys and values.
    """
    config = job.config
    device = team.device(config.compute.device)
    masters = config.compute.dtype == "bfloat16" and config.compute.master_weights
    with device:  # initialising a full-size model takes seconds on a GPU, and minutes on a CPU
        model = Pi0(config.model)
    initialise(model, config.sft.seed)
    _load(model, job, start)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_trained(name, config.sft))
    # Keep the float32 values of trained parameters before rounding to bfloat16; they become the float32 copies.
    exact = {name: each.detach() for name, each in model.named_parameters() if masters and each.requires_grad}
    to_precision(model, config.compute.dtype).train()
    if config.sft.trainable == "lora":
        add_adapters(model, config)
    checkpoint_activations(model, config.sft.activation_checkpointing)
    compiled = device.type == "cuda" and config.compute.compile
    # LoRA is for GPUs with little memory, so recompute these products, at a cost of about a percent of the speed.
    recompute_products(model, compiled and config.sft.trainable == "lora")
    spread = Spread(model, team, job.sharding, compile=compiled, parts=parts_of(config, team))
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    options: dict[str, Any] = {
        "lr": config.sft.lr,
        "betas": (config.sft.beta1, config.sft.beta2),
        "weight_decay": config.sft.weight_decay,
        "fused": True,
    }
    if masters:
        return spread, MasterAdamW(trained, exact, **options)
    return spread, torch.optim.AdamW(by_kind(parameter for _, parameter in trained), **options)
