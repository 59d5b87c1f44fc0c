"""A model as several processes train it: a copy in each (DDP), or its parts spread over them (FSDP2).

Copies are faster, as gradients alone are exchanged, once, while the backward pass goes on; they need a GPU that holds
parameters, gradients and the optimiser's state. Where it does not, the model is sharded in units of FSDP2: the vision
tower, each layer of the language model, the embedding and the expert. A unit is gathered when it is computed, and stays
so until its backward pass; of several machines each has all the parts (HSDP). What OpenPI keeps in float32 in a
bfloat16 model (`layout.KEPT_IN_FLOAT32`) is a few megabytes: it stays whole in every process, and its gradients are
averaged in one exchange, since a unit of FSDP2 has one number format, and units of their own would cost an exchange for
each norm.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rlinf_isaac.engines.local.training.team import Team, is_sharded
from rlinf_isaac.pi0.compiled import compile_blocks
from rlinf_isaac.pi0.layout import UNREAD
from rlinf_isaac.pi0.model import Pi0

Sharding = Literal["replicate", "shard"]
BUCKET_MIB = 200
"""Gradients that DDP exchanges at once. Larger ones begin later, smaller ones cost more messages."""


class Spread:
    """`model`, spread over the processes of `team` in place; its parameters keep their names.

    Args:
        model: in its number format, with what is frozen marked.
        team: the processes; alone nothing changes.
        sharding: ``replicate`` or ``shard``.
        compile: compile the layers.
        parts: how many micro-batches a step has.
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
        """`Pi0.forward`."""
        return self._forward(*inputs)

    def part(self, *, last: bool) -> AbstractContextManager[None]:
        """Around the forward and backward pass of a micro-batch: gradients are exchanged after the last one alone."""
        if isinstance(self._forward, nn.parallel.DistributedDataParallel) and not last:
            return self._forward.no_sync()
        if self._team.size > 1 and self._sharding == "shard":
            self.model.set_requires_gradient_sync(last)  # type: ignore[operator]  # of FSDP2
        return nullcontext()

    def average_whole_gradients(self) -> None:
        """Average the gradients of what every process holds whole; those of shards are averaged already."""
        if self._team.size == 1 or self._sharding == "replicate":
            return
        gradients = [each.grad for each in self.model.parameters() if each.grad is not None and not is_sharded(each)]
        if gradients:
            together = torch.cat([gradient.reshape(-1) for gradient in gradients])
            dist.all_reduce(together)
            together /= self._team.size
            pieces = together.split([gradient.numel() for gradient in gradients])
            torch._foreach_copy_(gradients, [p.view_as(g) for p, g in zip(pieces, gradients, strict=True)])

    def _replicate(self, parts: int) -> None:
        device = next(self.model.parameters()).device
        self._forward = nn.parallel.DistributedDataParallel(
            self.model,
            device_ids=[device] if device.type == "cuda" else None,
            bucket_cap_mb=BUCKET_MIB,
            gradient_as_bucket_view=True,
            broadcast_buffers=False,
            # Some parameters never get a gradient (`layout.UNREAD`). What is known to stay so for ever costs nothing,
            # but cannot be told apart from a micro-batch that is not exchanged.
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
        else:  # layers are gathered within a machine, and between machines gradients alone are exchanged (HSDP)
            mesh = init_device_mesh(kind, (machines, self._team.local_size), mesh_dim_names=("machine", "shard"))
        whole = set(_kept_whole(model))
        # The parameters of a layer stay gathered from its forward pass to its backward pass: in bfloat16 they are a
        # sixth of what the optimiser has of them, which no process holds whole.
        shard = partial(fully_shard, mesh=mesh, reshard_after_forward=False)
        vision, language, expert = model.stacks
        for unit in (vision, *language.layers, expert):
            shard(unit, ignored_params=whole)
        # The embedding, a seventh of all, is exchanged on its own while the vision tower has its backward pass. The
        # head that is tied to it computes nothing, and is given the same shard.
        paligemma = model.paligemma_with_expert.paligemma
        embedding = language.embed_tokens
        shard(embedding, ignored_params=whole)
        paligemma.lm_head.weight = embedding.weight
        shard(model, ignored_params=whole | {embedding.weight})
        # Only the keys and values of the last one are computed, past its forward().
        register_fsdp_forward_method(model.vlm.language_model.layers[-1], "keys_values")
        register_fsdp_forward_method(model, "sample")


def _kept_whole(model: Pi0) -> Iterator[nn.Parameter]:
    """What every process has whole: the float32 parameters of a bfloat16 model, and what nothing reads."""
    mixed = len({parameter.dtype for parameter in model.parameters()}) > 1
    for name, parameter in model.named_parameters():
        if name in UNREAD or (mixed and parameter.dtype == torch.float32):
            yield parameter
