"""The keys and values of prefixes as plain tensors, which can be kept and read again row by row.

Where the vision tower and the language model are frozen, the prefix of an observation stays the same while the expert
trains. Reinforcement learning computes it once, when the observation is played, and every epoch of the update reads it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rlinf_isaac.pi0.gemma import KeysValues
from rlinf_isaac.pi0.model import Pi0, PrefixCache


class KeptPrefix(NamedTuple):
    """The prefixes of B observations; L layers, P tokens.

    Attributes:
        keys: (L, B, kv_heads, P, head_dim), rotated.
        values: (L, B, kv_heads, P, head_dim).
        valid: (B, P) bool; False on padding and on cameras that an observation lacks. Those tokens may stand anywhere.
        mean_token: (B, width of the VLM), as in `PrefixCache`; None for pi0.
    """

    keys: Tensor
    values: Tensor
    valid: Tensor
    mean_token: Tensor | None = None

    @classmethod
    def of(cls, cache: PrefixCache) -> KeptPrefix:
        """A copy of what a cache has."""
        keys, values = (torch.stack(each) for each in zip(*cache.keys_values, strict=True))
        return cls(keys, values, cache.valid, cache.mean_token)

    def cache(self, model: Pi0, *, padded: bool) -> PrefixCache:
        """The prefix cache of these observations. `padded` says whether any token is not valid."""
        layers = [KeysValues(*each) for each in zip(self.keys, self.values, strict=True)]
        unmasked = self.valid.is_cuda and not padded
        places = model.suffix_places(self.valid, self.valid.cumsum(1), unmasked, self.keys.dtype)
        return PrefixCache(layers, *places, self.valid, self.mean_token)

    def rows(self, index: Tensor) -> KeptPrefix:
        """A copy of the rows `index` (R,)."""
        mean = None if self.mean_token is None else self.mean_token[index]
        return KeptPrefix(self.keys[:, index], self.values[:, index], self.valid[index], mean)
