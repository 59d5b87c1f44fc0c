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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlinf_isaac.atomic import new_directory
from rlinf_isaac.checkpoint.described import description_problems
from rlinf_isaac.checkpoint.header import INDEX_FILE, WEIGHTS_FILE, read_keys
from rlinf_isaac.checkpoint.manifest import MANIFEST_FILE, FileEntry, Manifest, UnknownVersion, is_safe_name
from rlinf_isaac.checkpoint.steps import find_bundles, parse_steps, select_bundles
from rlinf_isaac.checkpoint.verify import CONFIG_FILE, MAX_BYTES, check_files, check_parts, list_files, norm_stats_files
from rlinf_isaac.digest import bytes_digest, file_digest, json_digest
from rlinf_isaac.errors import BundleError
from rlinf_isaac.reading import read_bytes, read_json

if TYPE_CHECKING:
    import torch

__all__ = [
    "CONFIG_FILE",
    "Bundle",
    "assemble_bundle",
    "check_asset_id",
    "config_bytes",
    "find_bundles",
    "parse_steps",
    "read_bundle",
    "seal",
    "select_bundles",
    "write_bundle",
]


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
    def job(self) -> dict[str, Any]:
        """The job config the weights were trained with.

        Raises:
            BundleError: ``config.json`` does not have it.
        """
        job = self.config.get("job")
        if not isinstance(job, dict):
            cause = f"{self.path / CONFIG_FILE} does not say how the checkpoint was trained (no 'job')"
            cure = f"make it anew: rlinf-isaac bundle make {self.path} --preset NAME"
            raise BundleError.of("foreign-bundle", cause, cure)
        return job

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
) -> Bundle:
    """Write a state dict as a checkpoint bundle; see `assemble_bundle` for the other arguments.

    Equal arguments give equal bytes, hence an equal digest.

    Args:
        state_dict: model parameters by name. Tied tensors (same memory) are stored once.

    Raises:
        BundleError: the arguments cannot make a valid bundle, or `path` exists.
        WeightsError: a tensor cannot be stored, or holds NaN or infinity.
    """
    from rlinf_isaac.checkpoint.weights import save_weights

    return assemble_bundle(
        path,
        write_weights=lambda folder: save_weights(folder / WEIGHTS_FILE, state_dict),
        config=config,
        norm_stats=norm_stats,
        asset_id=asset_id,
        step=step,
        lineage=lineage,
        overwrite=overwrite,
    )


def assemble_bundle(
    path: str | Path,
    *,
    write_weights: Callable[[Path], Mapping[str, str]],
    config: dict[str, Any],
    norm_stats: bytes,
    asset_id: str,
    step: int,
    lineage: Mapping[str, str | None],
    overwrite: bool = False,
) -> Bundle:
    """Write a checkpoint bundle atomically: after kill -9 there is a whole bundle at `path`, or nothing.

    Args:
        path: the bundle's directory, usually ``<checkpoints>/<step>``.
        write_weights: writes ``model.safetensors``, or shards and their index, into the directory it is given; returns
            parameter name that is not stored -> name of the stored tensor it shares.
        config: JSON-ready dict for ``config.json``.
        norm_stats: bytes of ``norm_stats.json``.
        asset_id: relative name of the norm stats' directory.
        step: optimiser step.
        lineage: digests of what the checkpoint came from: ``dataset``, ``norm_stats``, ``parent`` (bundle), ``config``.
            ``norm_stats`` is filled in, and refused where it is not the sha256 of `norm_stats`; ``config`` defaults to
            the digest of `config`.
        overwrite: replace an existing bundle.

    Raises:
        BundleError: the arguments cannot make a valid bundle, or `path` exists.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise BundleError.of("bundle-exists", f"{path} exists already", "remove it or choose another output")
    check_asset_id(asset_id)
    content = config_bytes(config, path)
    links = {"config": json_digest(config), "norm_stats": bytes_digest(norm_stats), **lineage}

    with new_directory(path, replace=overwrite) as directory:
        (directory / CONFIG_FILE).write_bytes(content)
        for file in norm_stats_files(directory, asset_id):
            file.parent.mkdir(parents=True)
            file.write_bytes(norm_stats)
        tied = write_weights(directory)
        # safetensors creates its files with mode 0600. A file made by open() shows what the umask allows.
        for file in directory.glob("*.safetensors"):
            file.chmod((directory / CONFIG_FILE).stat().st_mode)
        seal(directory, asset_id=asset_id, step=step, lineage=links, tied=tied)
    # `seal` has just hashed the bytes; hashing them once more would prove nothing new.
    return replace(read_bundle(path, verify=False), verified=True)


def config_bytes(config: Mapping[str, Any], path: Path) -> bytes:
    """The one byte string of a ``config.json``.

    Args:
        path: of the bundle, for the message.

    Raises:
        BundleError: a value is not JSON.
    """
    try:
        return (json.dumps(config, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        cause = f"{path}: the config cannot be written as JSON: {error}"
        raise BundleError.of("bundle-config", cause, "leave only numbers, strings, lists and maps in it") from error


def check_asset_id(asset_id: str) -> None:
    """Raise BundleError unless `asset_id` can be a directory of a bundle, like ``RLinf/IsaacLab-Stack-Cube-Data``."""
    if not is_safe_name(asset_id) or asset_id in (WEIGHTS_FILE, INDEX_FILE, CONFIG_FILE, MANIFEST_FILE):
        cause = f"asset id {asset_id!r} is not a plain relative name"
        raise BundleError.of("bad-asset-id", cause, "choose one such as isaaclab_stack_cube")


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
        for name in sorted(list_files(directory))
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
        cause = f"{directory}: cannot be sealed: {error}"
        raise BundleError.of("bundle-not-sealable", cause, "correct that value and write the bundle again") from error
    check_parts(directory, manifest)
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
        manifest = Manifest.read(path / MANIFEST_FILE)
    except OSError as error:
        what = "no such directory" if not path.is_dir() else f"no readable {MANIFEST_FILE} in it ({error.strerror})"
        cause = f"{path} is not a checkpoint bundle: {what}"
        cure = f"name a directory that `sft` wrote, or make a bundle of it: rlinf-isaac bundle make {path}"
        raise BundleError.of("not-a-bundle", cause, cure) from error
    except ValueError as error:
        cause = f"{path / MANIFEST_FILE}: {error}"
        if isinstance(error, UnknownVersion):
            cure = "read the bundle with the release that wrote it, or update this one"
            raise BundleError.of("manifest-version", cause, cure) from error
        raise BundleError.of("manifest-damaged", cause, "copy the bundle again from where it was made") from error
    try:
        check_files(path, manifest, hash_weights=verify)
        check_parts(path, manifest)
        config = read_json(path / CONFIG_FILE, MAX_BYTES)
        norm_stats = read_bytes(norm_stats_files(path, manifest.asset_id)[0], MAX_BYTES)
    except OSError as error:
        cause = f"{error.filename} cannot be read: {error.strerror}"
        raise BundleError.of("bundle-unreadable", cause, "check its permissions") from error
    if problems := description_problems(config, str(path / CONFIG_FILE)):
        raise BundleError(problems)
    return Bundle(path, config, norm_stats, manifest, verified=verify)
