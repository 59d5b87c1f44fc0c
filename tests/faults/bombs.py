"""Messages that cost a careless server seconds and gigabytes: bombs of every kind of msgpack, and of numpy inside it.

`bombs` makes them for a size in bytes: a test sends small ones, which are refused for the same reasons, and
``benchmarks/serving_attack.py`` full ones. Each is named after what it is made of, and says the code that answers it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgpack
import numpy as np

LARGE, BAD = "message-too-large", "bad-message"


class Bomb(NamedTuple):
    """One hostile message, and the code of the answer that it deserves."""

    name: str
    message: bytes
    code: str


def bombs(size: int, image: int = 64, dims: int = 23) -> Iterator[Bomb]:
    """All of them, each of about `size` bytes, one at a time.

    Args:
        size: at least 256 KiB, so that all of them are beyond the limits.
        image: side of the images of those that are whole observations but for one entry.
        dims: of their state.
    """
    yield from _lists_and_maps(size)
    yield from _scalars(size)
    yield from _text(size)
    yield from _arrays(size, dims)
    yield from _observations(size, image, dims)
    yield Bomb("nothing but zeros", bytes(size), BAD)
    yield Bomb("nothing but 0xc1, which is no msgpack", b"\xc1" * size, BAD)
    yield Bomb("text", b"", BAD)  # who sends it sends TEXT


TEXT = "é" * 1000 + "\U0001f916"
"""Part of a text message: as a Python string four bytes a character."""


def _list(count: int) -> bytes:
    return b"\xdd" + struct.pack(">I", count)


def _map(count: int) -> bytes:
    return b"\xdf" + struct.pack(">I", count)


def _lists_and_maps(size: int) -> Iterator[Bomb]:
    yield Bomb("empty lists", _list(size) + b"\x90" * size, LARGE)
    yield Bomb("empty maps", _list(size) + b"\x80" * size, LARGE)
    yield Bomb("lists of one", _list(size // 2) + b"\x91\x90" * (size // 2), LARGE)
    yield Bomb("lists of 15 lists", _list(size // 16) + (b"\x9f" + b"\x90" * 15) * (size // 16), LARGE)
    numbers = b"\xdc\x03\xe8" + b"\x01" * 1000
    yield Bomb("lists of 1000 numbers", _list(size // 1003) + numbers * (size // 1003), LARGE)
    yield Bomb("maps of one", _list(size // 3) + b"\x81\xa0\x90" * (size // 3), LARGE)
    entries = b"".join(b"\xa6" + b"%06x" % index + b"\x90" for index in range(size // 8))
    yield Bomb("one map of short keys", _map(size // 8) + entries, LARGE)
    yield Bomb("one map of one key", _map(size // 3) + b"\xa1a\x90" * (size // 3), LARGE)
    yield Bomb("one map of numbers", _map(size // 2) + b"\x01\x02" * (size // 2), LARGE)
    yield Bomb("nested lists", b"\x91" * size, LARGE)
    yield Bomb("nested maps", b"\x81\xa1a" * (size // 3), LARGE)
    yield Bomb("nested lists of 4000", (b"\xdc\x0f\xa0" + b"\x90" * 3999) * (size // 4002), LARGE)
    yield Bomb("a list that promises", _list(2**32 - 1), LARGE)
    yield Bomb("a map that promises", _map(2**32 - 1), LARGE)
    yield Bomb("lists that promise in lists", (b"\xdc\x0f\xff") * (size // 3), LARGE)
    yield Bomb("empty lists as the image", _entry("observation/image", _list(size) + b"\x90" * size), LARGE)
    yield Bomb("empty lists under a name of their own", _entry("x", _list(size) + b"\x90" * size), LARGE)


def _scalars(size: int) -> Iterator[Bomb]:
    kinds = {
        "nil": b"\xc0",
        "bools": b"\xc3",
        "small numbers": b"\x7f",
        "negative numbers": b"\xe0",
        "int 8": b"\xd0\x80",
        "int 16": b"\xd1\x80\0",
        "int 32": b"\xd2\x80\0\0\0",
        "int 64": b"\xd3\x80" + bytes(7),
        "uint 8": b"\xcc\xff",
        "uint 16": b"\xcd\xff\xff",
        "uint 32": b"\xce" + b"\xff" * 4,
        "uint 64": b"\xcf" + b"\xff" * 8,
        "float 32": b"\xca\x3f\x80\0\0",
        "float 64": b"\xcb\x3f\xf0" + bytes(6),
        "empty strings": b"\xa0",
        "short strings": b"\xa3abc",
        "empty bytes": b"\xc4\0",
        "short bytes": b"\xc4\x01a",
    }
    for name, one in kinds.items():
        yield Bomb(f"a list of {name}", _list(size // len(one)) + one * (size // len(one)), LARGE)
    extensions = {"fixext 1": b"\xd4\x05a", "fixext 16": b"\xd8\x05" + bytes(16), "ext 8": b"\xc7\x01\x05a"}
    extensions["timestamps"] = b"\xd6\xff" + bytes(4)
    for name, one in extensions.items():
        yield Bomb(f"a list of {name}", _list(size // len(one)) + one * (size // len(one)), LARGE)
    yield Bomb("one ext 32", b"\xc9" + struct.pack(">I", size) + b"\x05" + bytes(size), BAD)
    yield Bomb("one timestamp", b"\xd6\xff" + bytes(4), BAD)


def _text(size: int) -> Iterator[Bomb]:
    text = "a" * (size - 4) + "\U0001f916"  # four bytes a character in Python
    yield Bomb("a long string", msgpack.packb(text), LARGE)
    yield Bomb("a long key", msgpack.packb({text: 1}), LARGE)
    yield Bomb("a long prompt", msgpack.packb({"prompt": text}), LARGE)
    yield Bomb("a string that is no text", b"\xdb" + struct.pack(">I", 1000) + b"\xff" * 1000, BAD)
    yield Bomb("long bytes", msgpack.packb(bytes(size)), BAD)
    yield Bomb("long bytes as a key", msgpack.packb({bytes(size): 1}), "observation-missing")
    outer = "k" * 30_000  # joined with each of the keys inside: 30 kB for two bytes
    inside = {f"{index:x}": 0 for index in range(1900)}
    yield Bomb("a long key with many inside", msgpack.packb({outer: inside}), "observation-missing")
    many = {f"{index:03x}" * 20: 0 for index in range(1000)}
    yield Bomb("many keys", msgpack.packb(many), "observation-missing")
    yield Bomb("bytes behind an observation", msgpack.packb({}) + bytes(size), BAD)
    yield Bomb("a key twice", b"\x82\xa1a\x01\xa1a\x02", BAD)


def _array(dtype: Any, shape: Any, data: Any) -> dict[bytes, Any]:
    return {b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape}


def _arrays(size: int, dims: int) -> Iterator[Bomb]:
    """Arrays that are refused when they are decoded."""
    tricks = {
        "an array with a long dtype": _array("f4," * 20_000, [0], b""),
        "an array with bytes for a dtype": _array(bytes(size), [0], b""),
        "an array with a list for a dtype": _array([["a", "f4"]] * 300, [0], b""),
        "an array of objects": _array("|O", [1], bytes(8)),
        "an array of records": _array("|V16", [1], bytes(16)),
        "an array of strings without bytes": _array("|S0", [2**40], b""),
        "an array of empty text": _array("<U0", [2**60, 4], b""),
        "an array of long strings": _array("|S1000000000", [1], b"x"),
        "an array of much text": _array(f"<U{size // 4}", [1], bytes(size // 4 * 4)),
        "an array of what is no character": _array("<U1", [1], b"\xff" * 4),
        "an array of half a character": _array("<U1", [1], b"\0\xd8\0\0"),
        "an array of a thousand dims": _array("|u1", [1] * 1000, b"x"),
        "an array with a negative side": _array("|u1", [-1, -1], b"x"),
        "an array with a bool for a side": _array("|u1", [True], b"x"),
        "an array with a huge product": _array("|u1", [2**63] * 4, b""),
        "an array with a shape of huge zeros": _array("|u1", [0, 2**63 - 1, 2**63 - 1], b""),
        "an array of an array": _array("|u1", [1], _array("|u1", [1], b"x")),
        "a scalar of many zeros": {b"__npgeneric__": True, b"data": 2**33, b"dtype": "|S"},
        "a scalar of many digits": {b"__npgeneric__": True, b"data": "9" * 60_000, b"dtype": "<i8"},
        "a scalar of bytes": {b"__npgeneric__": True, b"data": bytes(size), b"dtype": "<i8"},
    }
    for name, trick in tricks.items():
        yield Bomb(name, msgpack.packb({"observation/state": trick}), BAD)


def _observations(size: int, image: int, dims: int) -> Iterator[Bomb]:
    """Whole observations but for one entry; they are decoded, and refused when they are read."""
    black = _array("|u1", [image, image, 3], bytes(image * image * 3))
    whole = {"observation/image": black, "observation/wrist_image": black}
    whole["observation/state"] = _array("<f4", [dims], bytes(4 * dims))
    side = min(4096, size // 3)
    numbers = _array("|u1", [size], bytes(size))
    tricks: dict[str, tuple[str, Any, str]] = {
        "a noise key of many numbers": ("noise_key", numbers, "observation-noise-key"),
        "a noise key of arrays": ("noise_key", [_array("|u1", [1000], bytes(1000))] * 100, "observation-noise-key"),
        "a state of many numbers": ("observation/state", numbers, "observation-state"),
        "a state of a long string": ("observation/state", [*range(3000), "x" * 60_000], "observation-state"),
        "a state beyond float32": ("observation/state", [1e300] * dims, "observation-state"),
        "a prompt of many strings": ("prompt", _array("|S1", [60_000], bytes(60_000)), "observation-prompt"),
    }
    sides = {"one line": [1, side], "one column": [side, 1], "a long line": [1, size // 3]}
    for name, (height, width) in sides.items():
        trick = _array("|u1", [height, width, 3], bytes(height * width * 3))
        tricks[f"an image of {name}"] = ("observation/image", trick, "observation-image")
    tricks["an image of strings"] = ("observation/image", [["x" * 5000] * 3] * 2, "observation-image")
    for dtype in ("|b1", "<f2", "<f4", ">f8", "<f16", "<i8", "|u1"):
        item = np.dtype(dtype).itemsize
        pixels = (size - (64 << 10)) // (3 * item)
        rows = min(pixels // 256, 4096)
        trick = _array(dtype, [rows, pixels // rows, 3], b"\xff" * (rows * (pixels // rows) * 3 * item))
        code = "observation-state" if dtype == "|u1" else "observation-image"
        tricks[f"a large image of {dtype}"] = ("observation/image", trick, code)
    for name, (entry, trick, code) in tricks.items():
        observation = whole | {entry: trick}
        if code == "observation-state" and entry != "observation/state":
            observation |= {"observation/state": [0.0]}  # refused only when the image has been read
        yield Bomb(name, msgpack.packb(observation), code)


def _entry(name: str, packed: bytes) -> bytes:
    return b"\x81" + msgpack.packb(name) + packed
