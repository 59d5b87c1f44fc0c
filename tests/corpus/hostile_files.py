"""Zip archives, safetensors headers and indexes as an attacker would make them. See `corpus.hostile`."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from corpus.checkpoints import edit_header
from corpus.hostile import INDEX, SAFETENSORS, SHARDS, ZIP, Hostile


def rezip(
    path: Path,
    replaced: Mapping[str, bytes] | None = None,
    added: Mapping[str, bytes] | None = None,
    deflated: str = "",
) -> None:
    """Write a file of ``torch.save`` again with other records.

    Args:
        path: the file.
        replaced: name below the top-level directory -> data.
        added: whole name -> data.
        deflated: the record to compress.
    """
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    top = next(iter(records)).split("/")[0]
    records |= {f"{top}/{name}": data for name, data in (replaced or {}).items()} | dict(added or {})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in records.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED if name == f"{top}/{deflated}" else zipfile.ZIP_STORED
            archive.writestr(info, data)


def _zip(**changes: Any) -> Callable[[Path], None]:
    return lambda root: rezip(root / ZIP, **changes)


def _deflated_zeros(record: str) -> Callable[[Path], None]:
    return lambda root: rezip(root / ZIP, replaced={record: bytes(200_000_000)}, deflated=record)


def _twice(root: Path) -> None:
    """Two records of one name, of which readers take the first or the last as they like."""
    rezip(root / ZIP, added={"model/data/X": bytes(1024)})
    _rename_bytes(root / ZIP, b"model/data/X", b"model/data/0")


def _rename_bytes(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert data.count(old) == 2
    path.write_bytes(data.replace(old, new))


def _odd_name(raw: bytes) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        rezip(root / ZIP, added={"model/" + "X" * (len(raw) - 6): b""})
        _rename_bytes(root / ZIP, b"model/" + b"X" * (len(raw) - 6), raw)

    return edit


def _sparse_directory(root: Path) -> None:
    """A directory of 3 GB of holes, which takes no room on the disk."""
    size = 3 << 30
    with open(root / ZIP, "wb") as file:
        file.write(b"PK\3\4")
        file.seek(size)
        file.write(struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, size - 4, 4))
        file.write(struct.pack("<4sLQL", b"PK\6\7", 0, size, 1))
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 0xFFFFFFFF, 0xFFFFFFFF, 0))


def _prefix(length: int) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        data = (root / SAFETENSORS).read_bytes()
        (root / SAFETENSORS).write_bytes(length.to_bytes(8, "little") + data[8:])

    return edit


def _json(text: bytes, data: bytes = b"") -> Callable[[Path], None]:
    """A safetensors file of a header as it is given."""
    content = len(text).to_bytes(8, "little") + text + data
    return lambda root: (root / SAFETENSORS).write_bytes(content) and None


def _entry(name: str, first: int, end: int) -> str:
    return f'"{name}":{{"dtype":"U8","shape":[{end - first}],"data_offsets":[{first},{end}]}}'


def _overlapping(header: dict[str, Any]) -> dict[str, Any]:
    header["layers.1.weight"]["data_offsets"] = header["layers.0.weight"]["data_offsets"]
    return header


def _index(edit: Callable[[dict[str, str]], object]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        content = json.loads((root / INDEX).read_bytes())
        edit(content["weight_map"])
        (root / INDEX).write_text(json.dumps(content))

    return apply


def _index_twice(root: Path) -> None:
    text = (root / INDEX).read_text()
    (root / INDEX).write_text(text.replace('"weight_map": {', '"weight_map": {"layers.0.weight": "model.safetensors",'))


ARCHIVES = [
    Hostile("a record above the archive", "foreign-archive", _zip(added={"../../escaped": b"x"})),
    Hostile("a record above its directory", "foreign-archive", _zip(added={"model/../../escaped": b"x"})),
    Hostile("a record with an absolute name", "foreign-archive", _zip(added={"/escaped": b"x"})),
    Hostile("a record with a name of Windows", "foreign-archive", _zip(added={"model/..\\escaped": b"x"})),
    Hostile("a record beside the archive's directory", "foreign-archive", _zip(added={"other/data/0": b"x"})),
    Hostile("a name that is not UTF-8", "foreign-archive", _odd_name(b"model/\xff\xfe")),
    Hostile("a name with NUL", "foreign-archive", _odd_name(b"model/a\0b")),
    Hostile("a name with a line break", "foreign-archive", _odd_name(b"model/a\nb")),
    Hostile("two records of one name", "damaged-torch-file", _twice),
    Hostile("a bomb of zeros as pickle", "foreign-archive", _deflated_zeros("data.pkl")),
    Hostile("a bomb of zeros as storage", "foreign-archive", _deflated_zeros("data/0")),
    Hostile("a record shorter than its pickle says", "damaged-torch-file", _zip(replaced={"data/0": bytes(512)})),
    Hostile("a record longer than its pickle says", "damaged-torch-file", _zip(replaced={"data/0": bytes(4096)})),
    Hostile("a directory of holes", "damaged-torch-file", _sparse_directory),
    Hostile("a program of TorchScript", "torchscript-file", _zip(added={"model/code/__torch__.py": b"def f(): ..."})),
]

HEADERS = [
    Hostile("a header of 2^63 bytes", "damaged-safetensors", _prefix(2**63), SAFETENSORS),
    Hostile("a header longer than the file", "damaged-safetensors", _prefix(10_000), SAFETENSORS),
    Hostile(
        "overlapping offsets",
        "damaged-safetensors",
        lambda root: edit_header(root / SAFETENSORS, _overlapping),
        SAFETENSORS,
    ),
    Hostile(
        "a name twice in a header",
        "damaged-safetensors",
        _json(f"{{{_entry('a', 0, 4)},{_entry('a', 4, 8)}}}".encode(), bytes(8)),
        SAFETENSORS,
    ),
    Hostile(
        "a key twice in an entry",
        "damaged-safetensors",
        _json(b'{"a":{"dtype":"U8","dtype":"I8","shape":[4],"data_offsets":[0,4]}}', bytes(4)),
        SAFETENSORS,
    ),
    Hostile(
        "a header that is not UTF-8",
        "damaged-safetensors",
        _json(f"{{{_entry('a', 0, 4)}}}".encode().replace(b"a", b"\xff", 1), bytes(4)),
        SAFETENSORS,
    ),
    Hostile(
        "a name that is half a character",
        "damaged-safetensors",
        _json(f"{{{_entry(chr(92) + 'ud800', 0, 4)}}}".encode(), bytes(4)),
        SAFETENSORS,
    ),
    Hostile("a header that nests 10^5 deep", "damaged-safetensors", _json(b'{"a":' + b"[" * 100_000), SAFETENSORS),
    Hostile(
        "an offset of 10^5 digits",
        "damaged-safetensors",
        _json(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,' + b"9" * 100_000 + b"]}}", bytes(1)),
        SAFETENSORS,
    ),
    Hostile("an index that climbs", "weights-index", _index(lambda names: names.update(x="../secret.txt")), SHARDS),
    Hostile(
        "an index that climbs to weights",
        "weights-index",
        _index(lambda names: names.update({"layers.0.weight": "../single/model.safetensors"})),
        SHARDS,
    ),
    Hostile(
        "an index with an absolute name", "weights-index", _index(lambda names: names.update(x="/etc/passwd")), SHARDS
    ),
    Hostile("a name twice in an index", "weights-index", _index_twice, SHARDS),
    Hostile(
        "an index that nests 10^5 deep",
        "weights-index",
        lambda root: (root / INDEX).write_text('{"weight_map":' + "[" * 100_000) and None,
        SHARDS,
    ),
]
