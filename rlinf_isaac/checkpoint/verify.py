"""Checks that a directory is the bundle that its manifest describes. Raises the first problem, which names the file.

This module does not need torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rlinf_isaac.checkpoint.header import read_keys, weight_files
from rlinf_isaac.checkpoint.manifest import MANIFEST_FILE, Manifest
from rlinf_isaac.ground.digest import file_digest
from rlinf_isaac.ground.errors import BundleError
from rlinf_isaac.ground.reading import read_json

CONFIG_FILE = "config.json"
MAX_BYTES = 16_000_000
"""Largest JSON file of a bundle that is read; none has that many bytes."""
_COPY_AGAIN = "copy the bundle again from where it was made"


def check_files(path: Path, manifest: Manifest, *, hash_weights: bool) -> None:
    """Check that the directory has exactly the files of the manifest, with their sizes and digests; small files first.

    Raises:
        BundleError: a file is missing, added or changed; the message names the first one.
    """
    present = list_files(path) - {MANIFEST_FILE}
    if missing := manifest.files.keys() - present:
        raise BundleError.of("bundle-file-missing", f"{path / min(missing)} is missing", _COPY_AGAIN)
    if added := present - manifest.files.keys():
        cause = f"{path / min(added)} is not part of the bundle ({MANIFEST_FILE} does not list it)"
        raise BundleError.of("bundle-file-added", cause, "remove it")
    for name, entry in sorted(manifest.files.items(), key=lambda item: item[1].size):
        file = path / name
        if file.stat().st_size != entry.size:
            cause = f"{file} has {file.stat().st_size} bytes, not {entry.size}"
            raise BundleError.of("bundle-file-size", cause, _COPY_AGAIN)
        if (hash_weights or not name.endswith(".safetensors")) and file_digest(file) != entry.sha256:
            cause = f"{file} is not the file that was sealed (sha256 differs)"
            raise BundleError.of("bundle-file-changed", cause, _COPY_AGAIN)


def check_parts(path: Path, manifest: Manifest) -> None:
    """Check that the parts of a bundle are complete and consistent with each other. Files are not hashed.

    Raises:
        BundleError: a part is missing or is not JSON, or the manifest's lineage or tensors do not describe it.
    """
    names = [file.relative_to(path).as_posix() for file in norm_stats_files(path, manifest.asset_id)]
    for name in (CONFIG_FILE, *names):
        if name not in manifest.files:
            cause = f"{path / name} is missing; a bundle cannot be used without it"
            raise BundleError.of("bundle-file-missing", cause, "make the bundle again")
        _check_json_object(path / name)
    digests = {manifest.files[name].sha256 for name in names}
    if len(digests) > 1:
        cause = f"{path}: {names[0]} and {names[1]} differ; both must be the norm stats the weights were trained with"
        raise BundleError.of("norm-stats-differ", cause, "make the bundle again")
    if manifest.lineage.get("norm_stats") not in digests:
        cause = (
            f"{path / names[0]} has sha256 {min(digests)}, but the weights were trained with norm stats"
            f" {manifest.lineage.get('norm_stats')}"
        )
        raise BundleError.of("norm-stats-mismatch", cause, "restore that file")
    tensors = read_keys(path)
    if Counter(info.dtype for info in tensors.values()) != manifest.dtypes:
        cause = f"{weight_files(path)[0]} holds {len(tensors)} tensors, not those {MANIFEST_FILE} describes"
        raise BundleError.of("bundle-tensors", cause, _COPY_AGAIN)
    for name, stored in manifest.tied.items():
        if name in tensors or stored not in tensors:
            cause = f"{path / MANIFEST_FILE}: {name} cannot be tied to {stored}"
            raise BundleError.of("bundle-ties", cause, "make the bundle again")


def norm_stats_files(path: Path, asset_id: str) -> tuple[Path, Path]:
    """The paths at which OpenPI and RLinf look for the norm stats."""
    return path / "assets" / asset_id / "norm_stats.json", path / asset_id / "norm_stats.json"


def further_assets(manifest: Manifest) -> list[str]:
    """The asset ids of a bundle besides its own, for which it has both files of norm stats."""
    names = [
        name.removeprefix("assets/").removesuffix("/norm_stats.json") for name in manifest.files if _is_norm_stats(name)
    ]
    return [name for name in names if name != manifest.asset_id and f"{name}/norm_stats.json" in manifest.files]


def _is_norm_stats(name: str) -> bool:
    return name.startswith("assets/") and name.endswith("/norm_stats.json")


def list_files(directory: Path) -> set[str]:
    """Relative POSIX names of all entries below a directory that are not directories; links are not followed."""

    def names(folder: Path) -> Iterator[str]:
        for entry in folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                yield from names(entry)
            else:
                yield entry.relative_to(directory).as_posix()

    return set(names(directory))


def _check_json_object(path: Path) -> None:
    try:
        value = read_json(path, MAX_BYTES)
    except ValueError as error:
        raise BundleError.of("bundle-json", f"{path} is not JSON: {error}", _COPY_AGAIN) from error
    if not isinstance(value, dict):
        cause = f"{path} holds a JSON {type(value).__name__}, not an object"
        raise BundleError.of("bundle-json", cause, _COPY_AGAIN)
