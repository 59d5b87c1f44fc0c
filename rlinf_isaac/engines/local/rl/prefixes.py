"""Keeps the keys and values of prefixes from the rollout for all epochs of the update, on the GPU or beyond it.

A row is an observation, contiguous: (L, 2, kv_heads, P, head_dim), keys and values of L layers; 9.8 MiB for a full-size
pi0 with two views. The first rows lie on the device of the policy, the others in pinned host memory, from which the
rows of the next piece of a minibatch are copied on a stream of their own while the present one is computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlinf_isaac.config.schema import ModelConfig
from rlinf_isaac.pi0.kept_prefix import KeptPrefix

HOST_BLOCK = 1 << 30
"""Bytes of pinned host memory that are allocated at a time; torch rounds each up to a power of two."""


def row_shape(model: ModelConfig, tokens: int) -> tuple[int, ...]:
    """Shape of the keys and values of one prefix of `tokens` tokens."""
    return model.vlm.depth, 2, model.vlm.num_kv_heads, tokens, model.vlm.head_dim


class _Fetched(NamedTuple):
    """Rows on their way to the device: which ones, and the tensor that they fill once `done` has happened."""

    rows: np.ndarray
    tensor: Tensor
    done: torch.cuda.Event | None


class PrefixStore:
    """Prefixes by row.

    Args:
        near: (N, L, 2, kv_heads, P, head_dim) on the device of the policy, the rows 0 to N - 1.
        valid: (R, P) bool on this device, for all rows.
        mean_token: (R, width of the VLM) on this device; None for pi0.

    Attributes:
        padded: whether a token of any row is not valid.
    """

    def __init__(self, near: Tensor, valid: Tensor, mean_token: Tensor | None) -> None:
        self.near, self.valid, self.mean_token = near, valid, mean_token
        self.padded = False
        self._far: list[Tensor] = []
        self._shape = near.shape[1:]
        self._block = max(1, HOST_BLOCK // (int(np.prod(self._shape)) * near.element_size()))
        self._fetched: _Fetched | None = None
        self._buffers: list[Tensor] = []
        self._copying = torch.cuda.Stream(near.device) if near.is_cuda else None

    @property
    def tokens(self) -> int:
        """P, the most tokens that a prefix may have."""
        return self.valid.shape[1]

    @property
    def host_bytes(self) -> int:
        """Bytes of pinned host memory that are allocated so far."""
        return sum(block.numel() * block.element_size() for block in self._far)

    def write(self, first: int, prefix: KeptPrefix, chosen: Tensor | None, *, padded: bool) -> None:
        """Keep the observations `chosen` (None: all) of a policy call as the rows from `first` on.

        The copies are queued: on a GPU, `prefix` may be overwritten by what is queued afterwards. Its valid tokens come
        first. `padded` says whether one of the rows has fewer than P of them.
        """
        if chosen is not None:
            prefix = prefix.rows(chosen)
        # Behind the most tokens that a prefix can have there is nothing but padding.
        count, tokens = len(prefix.valid), min(prefix.valid.shape[1], self.tokens)
        rows, self._fetched = slice(first, first + count), None
        self.padded |= padded
        self.valid[rows, :tokens] = prefix.valid[:, :tokens]
        self.valid[rows, tokens:] = False
        if self.mean_token is not None and prefix.mean_token is not None:
            self.mean_token[rows] = prefix.mean_token
        near = min(max(len(self.near) - first, 0), count)
        for part, source in enumerate((prefix.keys, prefix.values)):
            place = self.near[first : first + near, :, part]
            place[:, :, :, :tokens] = source[:, :near, :, :tokens].transpose(0, 1)
            if tokens < self.tokens:
                place[:, :, :, tokens:] = 0  # masked, but a NaN there would still spread
        if near < count:
            self._write_far(first + near, prefix.keys[:, near:], prefix.values[:, near:], tokens)

    def read(self, rows: np.ndarray, following: np.ndarray | None = None) -> KeptPrefix:
        """The prefixes of `rows`. Those of `following` are fetched from the host while these are used."""
        if not self._far:
            index = on_device(rows, self.near.device)
            gathered = self.near.index_select(0, index)
        else:
            index = on_device(rows, self.near.device)
            fetched = self._fetched
            if fetched is None or not np.array_equal(fetched.rows, rows):
                fetched = self._fetch(rows)
            if fetched.done is not None:
                torch.cuda.current_stream().wait_event(fetched.done)
            gathered, self._fetched = fetched.tensor, None
            if following is not None:
                self._fetched = self._fetch(following)
        keys, values = gathered.permute(2, 1, 0, 3, 4, 5)
        mean = None if self.mean_token is None else self.mean_token[index]
        return KeptPrefix(keys, values, self.valid[index], mean)

    def _write_far(self, first: int, keys: Tensor, values: Tensor, tokens: int) -> None:
        whole = torch.zeros(keys.shape[1], *self._shape, dtype=self.near.dtype, device=self.near.device)
        for part, source in enumerate((keys, values)):
            whole[:, :, part, :, :tokens] = source[:, :, :, :tokens].transpose(0, 1)
        with self._on_copying_stream():
            if self._copying is not None:
                whole.record_stream(self._copying)
            for number in range(len(whole)):
                self._host_row(first + number).copy_(whole[number], non_blocking=True)

    def _host_row(self, row: int) -> Tensor:
        block, place = divmod(row - len(self.near), self._block)
        while len(self._far) <= block:
            pin = self._copying is not None
            self._far.append(torch.empty(self._block, *self._shape, dtype=self.near.dtype, pin_memory=pin))
        return self._far[block][place]

    def _fetch(self, rows: Sequence[int] | np.ndarray) -> _Fetched:
        """Queue the copy of rows into one of two buffers. The other one holds the rows that are in use; this one's
        users are queued on the present stream already, so the copy waits for them."""
        if len(self._buffers) < 2 or len(self._buffers[0]) < len(rows):
            shape = (len(rows), *self._shape)
            self._buffers = [torch.empty(shape, dtype=self.near.dtype, device=self.near.device) for _ in range(2)]
        self._buffers.reverse()
        tensor = self._buffers[0][: len(rows)]
        near = [place for place, row in enumerate(rows) if row < len(self.near)]
        done = None
        with self._on_copying_stream():
            for place, row in enumerate(rows):
                if row >= len(self.near):
                    tensor[place].copy_(self._host_row(int(row)), non_blocking=True)
            if near:
                places, kept = (on_device(np.asarray(each), tensor.device) for each in (near, [rows[i] for i in near]))
                tensor[places] = self.near[kept]
            if self._copying is not None:
                done = torch.cuda.Event()
                done.record()
        return _Fetched(np.asarray(rows), tensor, done)

    @contextmanager
    def _on_copying_stream(self) -> Iterator[None]:
        """Queue copies behind what is queued so far, beside what will be; without a GPU they are done at once."""
        if self._copying is None:
            yield
            return
        self._copying.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._copying):
            yield


def on_device(rows: np.ndarray, device: torch.device) -> Tensor:
    """Row numbers as a tensor on `device`, copied without waiting for it."""
    index = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64))
    return index.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else index
