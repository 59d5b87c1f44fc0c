"""Pickles as an attacker would make them: they run code, or they grow without end. See `corpus.hostile`."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corpus.hostile import LEGACY, ZIP, Bomb, Hostile, saved
from corpus.hostile_files import rezip

_NONE, _LIST, _DICT, _MARK, _STOP = b"N", b"]", b"}", b"(", b"."
_PRIME = 2**61 - 1  # ints that are multiples of it all have the hash 0


class Reduced:
    """Pickled as a call of `function` with `args`, whatever they are."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._call = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


def call(module: str, name: str, *args: str) -> bytes:
    """A pickle that calls what it names."""
    texts = b"".join(b"X" + len(arg.encode()).to_bytes(4, "little") + arg.encode() for arg in args)
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + _MARK + texts + b"tR" + _STOP


def _zipped(data: bytes) -> Callable[[Path], None]:
    return lambda root: rezip(root / ZIP, replaced={"data.pkl": data})


def _repeated(opcode: bytes, times: int = 16_000_000) -> Callable[[Path], None]:
    return lambda root: rezip(root / ZIP, replaced={"data.pkl": b"\x80\x02" + opcode * times + _STOP})


def _raw(data: bytes) -> Callable[[Path], None]:
    return lambda root: (root / ZIP).write_bytes(data) and None


def _saved(make: Callable[[], Any], name: str = ZIP) -> Callable[[Path], None]:
    return lambda root: saved(root, make(), name)


def _laughs(leaf: Any, levels: int = 30, width: int = 10) -> Any:
    """A list of lists ... of `leaf`: width^levels of them in a few hundred bytes."""
    for _ in range(levels):
        leaf = [leaf] * width
    return leaf


def _tensor(**changes: Any) -> Reduced:
    """A tensor of 4 float32 with some of its arguments replaced."""
    import torch

    arguments = {
        "storage": torch.TypedStorage(
            wrap_storage=torch.zeros(4).untyped_storage(), dtype=torch.float32, _internal=True
        ),
        "offset": 0,
        "shape": (4,),
        "stride": (1,),
        "requires_grad": False,
        "hooks": {},
    }
    return Reduced(torch._utils._rebuild_tensor_v2, *(arguments | changes).values())


def _long_names() -> Any:
    """1000 tensors below 45 keys of a megabyte: the file has one megabyte, their names 45 GB."""
    import torch

    tree: Any = {f"{index}": torch.zeros(2) for index in range(1000)}
    key = "k" * 1_000_000
    for _ in range(45):
        tree = {key: tree}
    return tree


def _many_names() -> Any:
    """2^40 names of one tensor."""
    import torch

    tree: Any = torch.zeros(2)
    for _ in range(40):
        tree = {"a": tree, "b": tree}
    return tree


def _nested_parameters(depth: int = 20_000) -> bytes:
    """Parameter(Parameter(...)). Written by hand, as pickling it would need the stack that reading it must not need."""
    name = b"ctorch._utils\n_rebuild_parameter\n"
    return b"\x80\x02" + name + b"q\0" + b"h\0" * (depth - 1) + b"N" + b"\x85R" * depth + _STOP


def _tuple_key(levels: int = 100) -> bytes:
    """A dict whose key is a pair of pairs ... of the same: its hash visits 2^levels tuples."""
    pairs = b"".join(b"q" + bytes([level]) + b"h" + bytes([level]) + b"\x86" for level in range(levels))
    return b"\x80\x02" + _DICT + b")" + pairs + _NONE + b"s" + _STOP


def _colliding_keys(count: int = 200_000) -> bytes:
    """A dict whose keys all have the same hash: each is compared with all before it."""

    def long(value: int) -> bytes:
        data = value.to_bytes(10, "little")
        return b"\x8a" + bytes([len(data)]) + data

    return b"\x80\x02" + _DICT + _MARK + b"".join(long(key * _PRIME) + _NONE for key in range(count)) + b"u" + _STOP


def _set_of_tuples(levels: int = 100) -> bytes:
    pairs = b"".join(b"q" + bytes([level]) + b"h" + bytes([level]) + b"\x86" for level in range(levels))
    return b"\x80\x02cbuiltins\nset\n" + b")" + pairs + b"\x85\x85R" + _STOP


def _legacy_with_storage_keys(root: Path) -> None:
    """The list of storages, whose entries are taken for texts, is a billion laughs."""
    magic, protocol = 0x1950A86A20F9469CFC6C, 1001
    system = {"protocol_version": protocol, "little_endian": True, "type_sizes": {}}
    parts = [magic, protocol, system, {"weight": 1}, [_laughs("lol")]]
    (root / LEGACY).write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts))


def _storage_id(levels: int = 30) -> bytes:
    """The key of a storage, which is taken for a text, is a billion laughs."""
    body = pickle.dumps(_laughs("lol", levels), protocol=2)[2:-1]
    storage = _MARK + b"X\x07\0\0\0storage" + b"ctorch\nFloatStorage\n" + body + b"X\x03\0\0\0cpuK\x04tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n" + _MARK + storage + b"K\0K\x04\x85K\x01\x85\x89}tR"
    return b"\x80\x02" + _DICT + b"X\x01\0\0\0w" + tensor + b"s" + _STOP


def _half_a_character() -> dict[str, Any]:
    import torch

    return {"layers.\ud800": torch.zeros(2)}


def _escape_sequence() -> dict[str, Any]:
    import torch

    return {"\x1b]0;owned\x07\x1b[2J": torch.zeros(2).to_sparse()}


def _two_of_one_name() -> dict[Any, Any]:
    import torch

    return {1: torch.zeros(2), "1": torch.ones(2)}


def _dotted_twice() -> dict[str, Any]:
    import torch

    return {"a.b": torch.zeros(2), "a": {"b": torch.ones(2)}}


def _beside_weights() -> dict[str, Any]:
    import torch

    return {"state_dict": {"weight": torch.zeros(2)}, "optimizer": {"hook": Bomb()}}


RUN_CODE = [
    Hostile("a call in a zip", "unsafe-pickle", _zipped(pickle.dumps({"a": Bomb()}, protocol=2)), armed=True),
    Hostile("a call as torch saves it", "unsafe-pickle", _saved(Bomb), armed=True),
    Hostile("a call in a raw pickle", "unsafe-pickle", _raw(pickle.dumps({"a": Bomb()}, protocol=2)), armed=True),
    Hostile(
        "a call in a raw pickle of protocol 5", "unsafe-pickle", _raw(pickle.dumps(Bomb(), protocol=5)), armed=True
    ),
    Hostile(
        "a call in a raw pickle of protocol 0", "unsafe-pickle", _raw(pickle.dumps(Bomb(), protocol=0)), armed=True
    ),
    Hostile("a call in a legacy file", "unsafe-pickle", _saved(Bomb, LEGACY), LEGACY),
    Hostile("a call beside good weights", "unsafe-pickle", _saved(_beside_weights)),
    Hostile("a call by an old opcode", "damaged-pickle", _zipped(b"(X\x06\0\0\0canaryios\nmkdir\n."), armed=True),
    Hostile("a pickle within a pickle", "unsafe-pickle", _zipped(call("pickle", "loads", "x"))),
    Hostile("a pickle for torch's storages", "unsafe-pickle", _zipped(call("torch.storage", "_load_from_bytes", "x"))),
    Hostile("a name through a module", "unsafe-pickle", _zipped(b"\x80\x04\x8c\x05torch\x94\x8c\x07os.path\x94\x93.")),
    Hostile(
        "a name through an allowed module", "unsafe-pickle", _zipped(call("torch.distributed.tensor", "os.mkdir", "x"))
    ),
    Hostile("a member of a class that looks harmless", "unsafe-pickle", _zipped(call("torch", "float.mro", "x"))),
    Hostile("getattr", "unsafe-pickle", _zipped(call("builtins", "getattr", "os", "mkdir"))),
    Hostile("torch.load", "unsafe-pickle", _zipped(call("torch.serialization", "load", "legacy.pt"))),
    Hostile("numpy's objects", "unsafe-pickle", _zipped(call("numpy.core.multiarray", "_reconstruct", "x"))),
]

GROW = [
    Hostile("a billion laughs", "damaged-pickle", _saved(lambda: _laughs("lol"))),
    Hostile("a billion laughs of nothing", "damaged-pickle", _saved(lambda: _laughs([]))),
    Hostile("a billion names of one tensor", "damaged-pickle", _saved(_many_names)),
    Hostile("45 GB of names", "damaged-pickle", _saved(_long_names)),
    Hostile("16 million empty lists", "damaged-pickle", _repeated(_LIST)),
    Hostile("16 million marks", "damaged-pickle", _repeated(_MARK)),
    Hostile(
        "lists that nest 10^5 deep", "damaged-pickle", _zipped(b"\x80\x02" + _LIST * 100_000 + b"a" * 99_999 + _STOP)
    ),
    Hostile("parameters that nest", "damaged-torch-file", _zipped(_nested_parameters())),
    Hostile("a key that takes forever to hash", "damaged-pickle", _zipped(_tuple_key())),
    Hostile("keys of one hash", "damaged-pickle", _zipped(_colliding_keys())),
    Hostile("a set that takes forever to hash", "damaged-pickle", _zipped(_set_of_tuples())),
    Hostile("a text of 2^60 bytes", "damaged-pickle", _zipped(b"\x80\x04\x8d" + (2**60).to_bytes(8, "little") + b"x.")),
    Hostile("a frame of 2^60 bytes", "empty-weights", _zipped(b"\x80\x04\x95" + (2**60).to_bytes(8, "little") + b"N.")),
    Hostile(
        "a frame of 2^60 bytes, raw", "damaged-pickle", _raw(b"\x80\x04\x95" + (2**60).to_bytes(8, "little") + b"N.")
    ),
    Hostile("a pickle that goes on", "damaged-pickle", _zipped(b"\x80\x02}..")),
    Hostile("an unknown opcode", "damaged-pickle", _zipped(b"\x80\x02\xff.")),
    Hostile("nothing", "damaged-pickle", _raw(b"")),
    Hostile("the keys of storages without end", "damaged-torch-file", _legacy_with_storage_keys, LEGACY),
    Hostile("the key of a storage without end", "damaged-torch-file", _zipped(_storage_id())),
    Hostile("a shape without end", "damaged-torch-file", _saved(lambda: {"w": _tensor(shape=_laughs(1))})),
    Hostile("a tensor beyond its storage", "damaged-torch-file", _saved(lambda: {"w": _tensor(shape=(5,))})),
    Hostile("a tensor before its storage", "damaged-torch-file", _saved(lambda: {"w": _tensor(offset=-1)})),
    Hostile("a stride backwards", "damaged-torch-file", _saved(lambda: {"w": _tensor(offset=3, stride=(-1,))})),
    Hostile(
        "a tensor of 72 axes",
        "damaged-torch-file",
        _saved(lambda: {"w": _tensor(shape=(2, 2, *[1] * 70), stride=(1, 2, *[1] * 70))}),
    ),
    Hostile(
        "16 bytes that become petabytes", "disk-space", _saved(lambda: {"w": _tensor(shape=(2**50,), stride=(0,))})
    ),
    Hostile("a pickled name that is half a character", "bad-tensor-name", _saved(_half_a_character)),
    Hostile("a name that commands the terminal", "not-a-dense-tensor", _saved(_escape_sequence)),
    Hostile("keys that read alike", "duplicate-names", _saved(_two_of_one_name)),
    Hostile("names that read alike", "duplicate-names", _saved(_dotted_twice)),
]
