"""``bundle.json``, the manifest of a checkpoint bundle: its files with their digests, and its lineage.

A manifest can be written as bytes in exactly one way. Reading parses the bytes, writes them again and compares, so that
not only a changed value is noticed but also an added, repeated or reordered field. A manifest holds no times and no
paths: equal weights, config, norm stats and lineage give an equal digest on any machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlinf_isaac.ground.digest import json_digest
from rlinf_isaac.ground.reading import parse_json, read_bytes

MANIFEST_FILE = "bundle.json"
FORMAT = "rlinf-isaac-bundle"
FORMAT_VERSION = 1

MAX_BYTES = 16_000_000
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@=-]*(/[A-Za-z0-9_][A-Za-z0-9._+@=-]*)*")


class UnknownVersion(ValueError):
    """The manifest has a format version that this release does not read."""


@dataclass(frozen=True)
class FileEntry:
    """sha256 (lower-case hex) and size in bytes of one file."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """The content of ``bundle.json``.

    Attributes:
        step: optimiser step of the checkpoint.
        asset_id: the robot or dataset name under which OpenPI looks for norm stats.
        files: relative POSIX name -> digest and size, for every file except the manifest.
        dtypes: safetensors dtype -> number of tensors stored with it.
        parameters: number of stored elements; a tied tensor counts once.
        tied: parameter name that is not stored -> name of the stored tensor it shares.
        lineage: link (``dataset``, ``norm_stats``, ``parent``, ``config``, ...) -> sha256, or None if there is none.
    """

    step: int
    asset_id: str
    files: Mapping[str, FileEntry]
    dtypes: Mapping[str, int]
    parameters: int
    tied: Mapping[str, str]
    lineage: Mapping[str, str | None]

    @property
    def key_count(self) -> int:
        """Number of stored tensors."""
        return sum(self.dtypes.values())

    @property
    def digest(self) -> str:
        """sha256 of the manifest's canonical JSON: the identity of the bundle."""
        return json_digest(self._content())

    def to_bytes(self) -> bytes:
        """The file's bytes. Raises ValueError if a field is not valid."""
        content = self._content()
        _check(content)
        return (json.dumps({**content, "digest": self.digest}, indent=2, sort_keys=True) + "\n").encode()

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Reads a manifest from a file. Raises OSError if it cannot be read, and ValueError like `from_bytes`."""
        return cls.from_bytes(read_bytes(path, MAX_BYTES))

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """The inverse of `to_bytes`. Raises ValueError (or `UnknownVersion`) if `data` is not a manifest's bytes."""
        if len(data) > MAX_BYTES:
            raise ValueError(f"it has {len(data)} bytes, no manifest is that large")
        values = parse_json(data)
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ValueError(f"it is not of the format {FORMAT}")
        if (version := values.get("format_version")) != FORMAT_VERSION:
            raise UnknownVersion(f"format version {version!r}; this release reads {FORMAT_VERSION}")
        _check({key: value for key, value in values.items() if key != "digest"})
        manifest = cls(
            step=values["step"],
            asset_id=values["asset_id"],
            files={name: FileEntry(**entry) for name, entry in values["files"].items()},
            dtypes=values["tensors"]["dtypes"],
            parameters=values["tensors"]["parameters"],
            tied=values["tensors"]["tied"],
            lineage=values["lineage"],
        )
        if manifest.to_bytes() != data:
            raise ValueError("its digest does not match its content: it was damaged or edited")
        return manifest

    def _content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "step": self.step,
            "asset_id": self.asset_id,
            "files": {name: {"sha256": entry.sha256, "size": entry.size} for name, entry in self.files.items()},
            "tensors": {
                "count": self.key_count,
                "dtypes": dict(self.dtypes),
                "parameters": self.parameters,
                "tied": dict(self.tied),
            },
            "lineage": dict(self.lineage),
        }


def is_safe_name(name: Any) -> bool:
    """Whether `name` is a plain relative POSIX path: no ``..``, no hidden part, nothing a shell would expand."""
    return isinstance(name, str) and len(name) <= 1024 and _NAME.fullmatch(name) is not None


def _check(values: dict[str, Any]) -> None:
    """Raise ValueError unless `values` is the content of a manifest, field by field."""
    _expect(
        values.keys() == {"format", "format_version", "step", "asset_id", "files", "tensors", "lineage"},
        "its fields are not those of a manifest",
    )
    _expect(_is_count(values["step"]), f"step {values['step']!r} is not a non-negative integer")
    _expect(is_safe_name(values["asset_id"]), f"asset id {values['asset_id']!r} is not a plain relative name")
    files, tensors, lineage = values["files"], values["tensors"], values["lineage"]
    _expect(isinstance(files, dict) and len(files) > 0, "it lists no files")
    for name, entry in files.items():
        _expect(is_safe_name(name) and name != MANIFEST_FILE, f"file name {name!r} is not a plain relative name")
        _expect(isinstance(entry, dict) and entry.keys() == {"sha256", "size"}, f"the entry of {name} is incomplete")
        _expect(_is_sha256(entry["sha256"]) and _is_count(entry["size"]), f"digest or size of {name} is malformed")
    _expect(
        isinstance(tensors, dict) and tensors.keys() == {"count", "dtypes", "parameters", "tied"},
        "its description of the tensors is incomplete",
    )
    dtypes, tied = tensors["dtypes"], tensors["tied"]
    _expect(isinstance(dtypes, dict) and all(map(_is_count, dtypes.values())), "dtypes is not a map to counts")
    _expect(_is_count(tensors["parameters"]), "the parameter count is not a non-negative integer")
    _expect(isinstance(tied, dict) and all(isinstance(name, str) for name in tied.values()), "tied is not a map")
    _expect(isinstance(lineage, dict), "lineage is not a map")
    for link, digest in lineage.items():
        _expect(digest is None or _is_sha256(digest), f"lineage link {link!r} is {digest!r}, not a sha256")


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
