"""Distributes a model over several processes: replicated in each process (DDP), or sharded (FSDP2).

Replicas are faster, because only gradients are exchanged, once, during the backward pass; but each GPU must hold the
parameters, gradients and optimiser state. If it cannot, the model is sharded in units of FSDP2: the vision tower, each
layer of the language model, the embedding and the expert. A unit is all-gathered for its forward pass and stays
gathered until its backward pass. With several machines, each machine has a complete set of shards (HSDP).

The parameters that OpenPI keeps in float32 in a bfloat16 model (`layout.KEPT_IN_FLOAT32`) are a few megabytes. They
stay unsharded in every process, and one all-reduce averages their gradients, because a unit of FSDP2 has a single
dtype, and separate units would cost a collective call for each norm layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rlinf_isaac.engines.local.training.team import BUCKET_MIB, Team, is_sharded
from rlinf_isaac.pi0.compiled import compile_blocks
from rlinf_isaac.pi0.layout import UNREAD
from rlinf_isaac.pi0.model import Pi0

Sharding = Literal["replicate", "shard"]


class Spread:
    """Distributes `model` over the processes of `team`, in place; the parameters keep their names.

    Args:
        model: the model in its final dtype, with `requires_grad` set.
        team: the processes; a single process leaves the model unchanged.
        sharding: ``replicate`` or ``shard``.
        compile: whether to compile the layers.
        parts: number of micro-batches in a step.
    """

    def __init__(self, model: Pi0, team: Team, sharding: Sharding, *, compile: bool, parts: int = 1) -> None:
        self.model, self._team, self._sharding = model, team, sharding
        self._forward: nn.Module = model
        if compile:
            compile_blocks(model, inside_hooks=team.size > 1 and sharding == "shard")
        if team.size > 1 and sharding == "shard":
            self._shard()
        elif team.size > 1:
            self._replicate(parts)

    def __call__(self, *inputs: Any) -> Tensor:
        """Call `Pi0.forward`."""
        return self._forward(*inputs)

    def part(self, *, last: bool) -> AbstractContextManager[None]:
        """Context for the forward and backward pass of a micro-batch; gradients are reduced only in the `last` one."""
        if isinstance(self._forward, nn.parallel.DistributedDataParallel) and not last:
            return self._forward.no_sync()
        if self._team.size > 1 and self._sharding == "shard":
            self.model.set_requires_gradient_sync(last)  # type: ignore[operator]  # of FSDP2
        return nullcontext()

    def average_whole_gradients(self) -> None:
        """Average the gradients of unsharded parameters of a sharded model over the processes (a collective call). The
        backward pass has averaged those of sharded parameters already."""
        if self._team.size == 1 or self._sharding == "replicate":
            return
        gradients = [each.grad for each in self.model.parameters() if each.grad is not None and not is_sharded(each)]
        if gradients:
            self._team.add_up(gradients)
            torch._foreach_div_(gradients, self._team.size)

    def _replicate(self, parts: int) -> None:
        device = next(self.model.parameters()).device
        self._forward = nn.parallel.DistributedDataParallel(
            self.model,
            device_ids=[device] if device.type == "cuda" else None,
            bucket_cap_mb=BUCKET_MIB,
            gradient_as_bucket_view=True,
            broadcast_buffers=False,
            # Some parameters never get a gradient (`layout.UNREAD`). With a static graph DDP learns this once, at no
            # cost, but a static graph does not work with micro-batches that are not reduced.
            static_graph=parts == 1,
            find_unused_parameters=parts > 1,
        )

    def _shard(self) -> None:
        from torch.distributed.device_mesh import init_device_mesh  # slow to import
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        model = self.model
        machines, kind = self._team.machines, next(model.parameters()).device.type
        if machines == 1:
            mesh = init_device_mesh(kind, (self._team.size,))
        else:  # HSDP: layers are all-gathered within a machine; between machines only gradients are exchanged
            mesh = init_device_mesh(kind, (machines, self._team.local_size), mesh_dim_names=("machine", "shard"))
        whole = set(_kept_whole(model))
        # The parameters of a layer stay gathered from its forward pass to its backward pass. In bfloat16 they are only
        # a sixth of the size of the optimiser's state, which stays sharded.
        shard = partial(fully_shard, mesh=mesh, reshard_after_forward=False)
        vision, language, expert = model.stacks
        for unit in (vision, *language.layers, expert):
            shard(unit, ignored_params=whole)
        # The embedding, a seventh of all parameters, is a unit of its own, reduced during the backward pass of the
        # vision tower. The tied head computes nothing; it gets the same shard.
        paligemma = model.paligemma_with_expert.paligemma
        embedding = language.embed_tokens
        shard(embedding, ignored_params=whole)
        paligemma.lm_head.weight = embedding.weight
        shard(model, ignored_params=whole | {embedding.weight})
        # Of the last layer only keys and values are computed, by a method other than forward().
        register_fsdp_forward_method(model.vlm.language_model.layers[-1], "keys_values")
        register_fsdp_forward_method(model, "sample")


def _kept_whole(model: Pi0) -> Iterator[nn.Parameter]:
    """Parameters that stay unsharded: the float32 ones of a bfloat16 model, and those that the model never uses."""
    mixed = len({parameter.dtype for parameter in model.parameters()}) > 1
    for name, parameter in model.named_parameters():
        if name in UNREAD or (mixed and parameter.dtype == torch.float32):
            yield parameter
