"""Lays out a safetensors checkpoint byte for byte as the safetensors library and huggingface_hub write it.

https://github.com/huggingface/safetensors/blob/main/safetensors/src/tensor.rs (``prepare``),
https://github.com/huggingface/huggingface_hub/blob/main/src/huggingface_hub/serialization/_base.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence

from rlinf_isaac.checkpoint.convert.tensors import bytes_of
from rlinf_isaac.checkpoint.header import WEIGHTS_FILE, TensorInfo
from rlinf_isaac.ground.errors import InvalidJob

# The order of safetensors' enum Dtype. Files hold tensors of the last of these first, so that every tensor is aligned.
_ORDER = (
    "BOOL F4 F6_E2M3 F6_E3M2 U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ I16 U16 F16 BF16 I32 U32 F32 C64"
    " F64 I64 U64"
)
_RANK = {dtype: rank for rank, dtype in enumerate(_ORDER.split())}
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def file_order(tensors: Mapping[str, TensorInfo]) -> list[str]:
    """Names in the order in which safetensors stores the tensors: the widest dtype first, then by name."""
    return sorted(tensors, key=lambda name: (-_RANK[tensors[name].dtype], name))


def header(tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str]) -> bytes:
    """The bytes before the data of tensors in this order: the length of the JSON, the JSON, and padding.

    Raises:
        UnicodeEncodeError: a name is not Unicode text.
    """
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, info in tensors.items():
        begin, end = end, end + bytes_of(info.dtype, info.shape)
        entries[name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def split(sizes: Mapping[str, int], max_shard_size: int | None) -> list[list[str]]:
    """Names of the tensors of each shard.

    Shards are filled in the given order. A tensor that is larger than a shard gets a shard of its own.
    """
    shards: list[list[str]] = []
    current: list[str] = []
    filled = 0
    for name, size in sizes.items():
        if max_shard_size is not None and size > max_shard_size:
            shards.append([name])
            continue
        if max_shard_size is not None and filled + size > max_shard_size:
            shards.append(current)
            current, filled = [], 0
        current.append(name)
        filled += size
    return [shard for shard in [*shards, current] if shard]


def file_names(count: int) -> list[str]:
    """File names of `count` shards, as transformers expects them. A single file is called ``model.safetensors``."""
    if count == 1:
        return [WEIGHTS_FILE]
    stem = WEIGHTS_FILE.removesuffix(".safetensors")
    return [f"{stem}-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def index(files: Iterable[tuple[str, Sequence[str]]], total_size: int) -> bytes:
    """Content of ``model.safetensors.index.json``: the total size of the tensors, and the file of each tensor."""
    weight_map = {tensor: name for name, tensors in files for tensor in tensors}
    return json.dumps({"metadata": {"total_size": total_size}, "weight_map": weight_map}, indent=2).encode()


def parse_size(text: str) -> int:
    """The number of bytes that a text like ``5GB`` (10^9) or ``512MiB`` (2^20) means.

    Raises:
        InvalidJob: the text is not a size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]I?|)B?", text.strip().upper())
    size = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if size < 1:
        raise InvalidJob.of("bad-size", f"{text!r} is not a size", "write it like 5GB, 512MiB, or none")
    return size
