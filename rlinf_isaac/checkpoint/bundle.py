"""Checkpoint bundles: one directory is one checkpoint, complete in itself.

    model.safetensors                  weights (or shards and model.safetensors.index.json)
    config.json                        architecture, horizons, state and action layout, tokenizer
    assets/<asset_id>/norm_stats.json  where OpenPI looks for the norm stats
    <asset_id>/norm_stats.json         where RLinf looks for them; the same bytes
    bundle.json                        sha256 and size of every file, and the lineage (`manifest.Manifest`)

A bundle appears under its name whole or not at all. Writing the weights needs torch; reading and verifying does not.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlinf_isaac.atomic import new_directory
from rlinf_isaac.checkpoint.header import WEIGHTS_FILE, read_keys, weight_files
from rlinf_isaac.checkpoint.manifest import MANIFEST_FILE, FileEntry, Manifest, is_safe_name
from rlinf_isaac.checkpoint.steps import find_bundles, parse_steps, select_bundles
from rlinf_isaac.digest import bytes_digest, file_digest, json_digest
from rlinf_isaac.errors import BundleError

if TYPE_CHECKING:
    import torch

__all__ = ["Bundle", "find_bundles", "parse_steps", "read_bundle", "seal", "select_bundles", "write_bundle"]

CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read.

    Attributes:
        path: its directory.
        config: content of ``config.json``.
        norm_stats_bytes: content of ``norm_stats.json``, byte for byte.
        manifest: content of ``bundle.json``.
        verified: whether the weights' bytes were hashed, too; everything else always is.
    """

    path: Path
    config: dict[str, Any]
    norm_stats_bytes: bytes
    manifest: Manifest
    verified: bool

    @property
    def step(self) -> int:
        """Optimiser step of the checkpoint."""
        return self.manifest.step

    @property
    def asset_id(self) -> str:
        """Name of the directory in which OpenPI and RLinf look for the norm stats."""
        return self.manifest.asset_id

    @property
    def lineage(self) -> Mapping[str, str | None]:
        """Digests of what the checkpoint came from."""
        return self.manifest.lineage

    @property
    def digest(self) -> str:
        """sha256 that names this bundle: of its manifest, hence of every byte in it."""
        return self.manifest.digest

    @property
    def weights_digest(self) -> str:
        """sha256 of the weights: of the one file, or over the names and digests of the shards."""
        files = self.manifest.files
        if WEIGHTS_FILE in files:
            return files[WEIGHTS_FILE].sha256
        return json_digest({name: files[name].sha256 for name in files if name.endswith(".safetensors")})


def write_bundle(
    path: str | Path,
    *,
    state_dict: Mapping[str, torch.Tensor],
    config: dict[str, Any],
    norm_stats: bytes,
    asset_id: str,
    step: int,
    lineage: Mapping[str, str | None],
    overwrite: bool = False,
    allow_nonfinite: bool = False,
) -> Bundle:
    """Write a checkpoint bundle atomically: after kill -9 there is a whole bundle at `path`, or nothing.

    Equal arguments give equal bytes, hence an equal digest.

    Args:
        path: the bundle's directory, usually ``<checkpoints>/<step>``.
        state_dict: model parameters by name. Tied tensors (same memory) are stored once.
        config: JSON-ready dict for ``config.json``.
        norm_stats: bytes of ``norm_stats.json``.
        asset_id: relative name of the norm stats' directory.
        step: optimiser step.
        lineage: digests of what the checkpoint came from: ``dataset``, ``norm_stats``, ``parent`` (bundle), ``config``.
            ``norm_stats`` is filled in, and refused where it is not the sha256 of `norm_stats`; ``config`` defaults to
            the digest of `config`.
        overwrite: replace an existing bundle.
        allow_nonfinite: store NaN and infinite weights instead of refusing them.

    Raises:
        BundleError: the arguments cannot make a valid bundle, or `path` exists.
        WeightsError: a tensor cannot be stored, or holds NaN or infinity.
    """
    from rlinf_isaac.checkpoint.weights import save_weights

    path = Path(path)
    if path.exists() and not overwrite:
        raise BundleError(f"{path} exists already; remove it or choose another output")
    if not is_safe_name(asset_id) or asset_id in (WEIGHTS_FILE, CONFIG_FILE, MANIFEST_FILE):
        raise BundleError(f"asset id {asset_id!r} is not a plain relative name such as 'isaaclab_stack_cube'")
    try:
        config_bytes = (json.dumps(config, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise BundleError(f"{path}: the config cannot be written as JSON: {error}") from error
    links = {"config": json_digest(config), "norm_stats": bytes_digest(norm_stats), **lineage}

    with new_directory(path, replace=overwrite) as directory:
        (directory / CONFIG_FILE).write_bytes(config_bytes)
        for file in _norm_stats_files(directory, asset_id):
            file.parent.mkdir(parents=True)
            file.write_bytes(norm_stats)
        tied = save_weights(directory / WEIGHTS_FILE, state_dict, allow_nonfinite=allow_nonfinite)
        # safetensors creates its file with mode 0600. A file made by open() shows what the umask allows.
        (directory / WEIGHTS_FILE).chmod((directory / CONFIG_FILE).stat().st_mode)
        seal(directory, asset_id=asset_id, step=step, lineage=links, tied=tied)
    # `seal` has just hashed the bytes; hashing them once more would prove nothing new.
    return replace(read_bundle(path, verify=False), verified=True)


def seal(
    directory: str | Path, *, asset_id: str, step: int, lineage: Mapping[str, str | None], tied: Mapping[str, str]
) -> Manifest:
    """Hash every file of a directory that holds all parts of a bundle, and write its ``bundle.json``.

    Raises:
        BundleError: a part is missing, or the lineage names other norm stats than those in the directory.
    """
    directory = Path(directory)
    tensors = read_keys(directory)
    files = {
        name: FileEntry(file_digest(directory / name), (directory / name).stat().st_size)
        for name in sorted(_list_files(directory))
        if name != MANIFEST_FILE
    }
    manifest = Manifest(
        step=step,
        asset_id=asset_id,
        files=files,
        dtypes=dict(Counter(info.dtype for info in tensors.values())),
        parameters=sum(math.prod(info.shape) for info in tensors.values()),
        tied=dict(tied),
        lineage=dict(lineage),
    )
    try:
        data = manifest.to_bytes()
    except ValueError as error:
        raise BundleError(f"{directory}: cannot be sealed: {error}") from error
    _check_parts(directory, manifest)
    (directory / MANIFEST_FILE).write_bytes(data)
    return manifest


def read_bundle(path: str | Path, *, verify: bool = True) -> Bundle:
    """Read a bundle and check it against its manifest.

    Args:
        path: the bundle's directory.
        verify: hash the weights, too (about 1.5 GB/s). Without it only their size, names and dtypes are checked, which
            is what a preflight can afford; everything else in the bundle is hashed either way.

    Raises:
        BundleError: naming the first file that is missing, added, or not the one the manifest names.
    """
    path = Path(path)
    try:
        manifest = Manifest.from_bytes((path / MANIFEST_FILE).read_bytes())
    except OSError as error:
        what = "no such directory" if not path.is_dir() else f"no readable {MANIFEST_FILE} in it ({error.strerror})"
        raise BundleError(f"{path} is not a checkpoint bundle: {what}; name a directory that `sft` wrote") from error
    except ValueError as error:
        raise BundleError(f"{path / MANIFEST_FILE}: {error}; copy the bundle again from where it was made") from error
    try:
        _check_files(path, manifest, hash_weights=verify)
        _check_parts(path, manifest)
        config = json.loads((path / CONFIG_FILE).read_bytes())
        norm_stats = _norm_stats_files(path, manifest.asset_id)[0].read_bytes()
    except OSError as error:
        raise BundleError(f"{error.filename} cannot be read: {error.strerror}; check its permissions") from error
    return Bundle(path, config, norm_stats, manifest, verified=verify)


def _check_files(path: Path, manifest: Manifest, *, hash_weights: bool) -> None:
    """Check that exactly the files of the manifest are there, with their sizes and digests; small files first."""
    present = _list_files(path) - {MANIFEST_FILE}
    if missing := manifest.files.keys() - present:
        raise BundleError(f"{path / min(missing)} is missing; copy the bundle again, complete")
    if added := present - manifest.files.keys():
        raise BundleError(
            f"{path / min(added)} is not part of the bundle ({MANIFEST_FILE} does not list it); remove it"
        )
    for name, entry in sorted(manifest.files.items(), key=lambda item: item[1].size):
        file = path / name
        if file.stat().st_size != entry.size:
            raise BundleError(f"{file} has {file.stat().st_size} bytes, not {entry.size}; copy the bundle again")
        if (hash_weights or not name.endswith(".safetensors")) and file_digest(file) != entry.sha256:
            raise BundleError(f"{file} is not the file that was sealed (sha256 differs); copy the bundle again")


def _check_parts(path: Path, manifest: Manifest) -> None:
    """Check that all parts are there and fit each other, whatever their hashes."""
    names = [file.relative_to(path).as_posix() for file in _norm_stats_files(path, manifest.asset_id)]
    for name in (CONFIG_FILE, *names):
        if name not in manifest.files:
            raise BundleError(f"{path / name} is missing; a bundle cannot be used without it")
        _check_json_object(path / name)
    digests = {manifest.files[name].sha256 for name in names}
    if len(digests) > 1:
        raise BundleError(f"{path}: {names[0]} and {names[1]} differ; both must be the norm stats it was trained with")
    if manifest.lineage.get("norm_stats") not in digests:
        raise BundleError(
            f"{path / names[0]} has sha256 {min(digests)}, but the weights were trained with norm stats"
            f" {manifest.lineage.get('norm_stats')}; restore that file"
        )
    tensors = read_keys(path)
    if Counter(info.dtype for info in tensors.values()) != manifest.dtypes:
        raise BundleError(f"{weight_files(path)[0]} holds {len(tensors)} tensors, not those {MANIFEST_FILE} describes")
    for name, stored in manifest.tied.items():
        if name in tensors or stored not in tensors:
            raise BundleError(f"{path / MANIFEST_FILE}: {name} cannot be tied to {stored}; make the bundle again")


def _check_json_object(path: Path) -> None:
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BundleError(f"{path} holds a JSON {type(value).__name__}, not an object")


def _norm_stats_files(path: Path, asset_id: str) -> tuple[Path, Path]:
    """Where OpenPI and where RLinf looks for the norm stats."""
    return path / "assets" / asset_id / "norm_stats.json", path / asset_id / "norm_stats.json"


def _list_files(directory: Path) -> set[str]:
    def names(folder: Path) -> Iterator[str]:
        for entry in folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                yield from names(entry)
            else:
                yield entry.relative_to(directory).as_posix()

    return set(names(directory))
