"""Content digests (sha256, lower-case hex) of files, directories and JSON values, which link the parts of a lineage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rlinf_isaac.ground.reading import open_regular


def file_digest(path: str | Path) -> str:
    """sha256 of a regular file's bytes. Raises OSError for anything else, such as a pipe, which may never end."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bytes_digest(data: bytes) -> str:
    """sha256 of bytes in memory."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: Any) -> bytes:
    """A JSON value as bytes, in a unique form: sorted keys, no spaces, UTF-8. Raises ValueError for NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def json_digest(value: Any) -> str:
    """sha256 of `canonical_json`; key order and formatting do not matter."""
    return bytes_digest(canonical_json(value))


def tree_digest(root: str | Path, paths: Iterable[Path] | None = None) -> str:
    """sha256 over (relative name, content digest) of files. It does not depend on their location or times.

    Args:
        root: directory to which the names are relative.
        paths: files to include; None includes all regular files below `root`.
    """
    root = Path(root)
    files = sorted(root.rglob("*") if paths is None else paths)
    lines = [f"{file_digest(path)}  {path.relative_to(root).as_posix()}\n" for path in files if path.is_file()]
    return bytes_digest("".join(sorted(lines)).encode())
