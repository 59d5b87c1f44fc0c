"""Writes checkpoint bundles atomically."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlinf_isaac.checkpoint.bundle import Bundle, read_bundle
from rlinf_isaac.checkpoint.header import INDEX_FILE, WEIGHTS_FILE, read_keys
from rlinf_isaac.checkpoint.manifest import MANIFEST_FILE, FileEntry, Manifest, is_safe_name
from rlinf_isaac.checkpoint.verify import CONFIG_FILE, check_parts, list_files, norm_stats_files
from rlinf_isaac.ground.atomic import new_directory
from rlinf_isaac.ground.digest import bytes_digest, file_digest, json_digest
from rlinf_isaac.ground.errors import BundleError

if TYPE_CHECKING:
    import torch


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
    further_norm_stats: Mapping[str, bytes] | None = None,
) -> Bundle:
    """Write a state dict as a checkpoint bundle; see `assemble_bundle` for the other arguments.

    Equal arguments give equal bytes, hence an equal digest.

    Args:
        state_dict: model parameters by name. Tied tensors (same memory) are stored once.

    Raises:
        BundleError: the arguments cannot make a valid bundle, or `path` exists.
        WeightsError: a tensor cannot be stored, or holds NaN or infinity.
    """
    from rlinf_isaac.checkpoint.weights import save_weights  # needs torch

    return assemble_bundle(
        path,
        write_weights=lambda folder: save_weights(folder / WEIGHTS_FILE, state_dict),
        config=config,
        norm_stats=norm_stats,
        asset_id=asset_id,
        step=step,
        lineage=lineage,
        overwrite=overwrite,
        further_norm_stats=further_norm_stats,
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
    further_norm_stats: Mapping[str, bytes] | None = None,
) -> Bundle:
    """Write a checkpoint bundle atomically: even after kill -9, `path` is a complete bundle or does not exist.

    Args:
        path: the bundle's directory, usually ``<checkpoints>/<step>``.
        write_weights: writes ``model.safetensors``, or shards and their index, into a directory; returns the ties:
            parameter name that is not stored -> name of the stored tensor it shares.
        config: JSON-ready dict for ``config.json``.
        norm_stats: bytes of ``norm_stats.json``.
        asset_id: relative name of the norm stats' directory.
        step: optimiser step.
        lineage: digests of the checkpoint's origins: ``dataset``, ``norm_stats``, ``parent`` (bundle), ``config``.
            ``norm_stats`` defaults to the sha256 of `norm_stats`, and any other value is refused; ``config`` defaults
            to the digest of `config`.
        overwrite: replace an existing bundle.
        further_norm_stats: asset id -> bytes of the other tasks of a suite whose statistics are not shared.

    Raises:
        BundleError: the arguments cannot make a valid bundle, or `path` exists.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise BundleError.of("bundle-exists", f"{path} exists already", "remove it or choose another output")
    every = {asset_id: norm_stats, **(further_norm_stats or {})}
    for name in every:
        check_asset_id(name)
    content = config_bytes(config, path)
    links = {"config": json_digest(config), "norm_stats": bytes_digest(norm_stats), **lineage}

    with new_directory(path, replace=overwrite) as directory:
        (directory / CONFIG_FILE).write_bytes(content)
        for name, data in every.items():
            for file in norm_stats_files(directory, name):
                file.parent.mkdir(parents=True)
                file.write_bytes(data)
        tied = write_weights(directory)
        # safetensors creates its files with mode 0600. They get the mode of a file made by open(), as the umask allows.
        for file in directory.glob("*.safetensors"):
            file.chmod((directory / CONFIG_FILE).stat().st_mode)
        seal(directory, asset_id=asset_id, step=step, lineage=links, tied=tied)
    # The weights are not hashed again, because `seal` has just hashed them.
    return replace(read_bundle(path, verify=False), verified=True)


def config_bytes(config: Mapping[str, Any], path: Path) -> bytes:
    """The bytes of a ``config.json``; equal configs give equal bytes.

    Args:
        config: its content.
        path: the bundle's directory, for the message.

    Raises:
        BundleError: a value is not JSON.
    """
    try:
        return (json.dumps(config, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        cause = f"{path}: the config cannot be written as JSON: {error}"
        raise BundleError.of("bundle-config", cause, "leave only numbers, strings, lists and maps in it") from error


def check_asset_id(asset_id: str) -> None:
    """Raise BundleError unless `asset_id` can name a directory of a bundle (``RLinf/IsaacLab-Stack-Cube-Data``)."""
    if not is_safe_name(asset_id) or asset_id in (WEIGHTS_FILE, INDEX_FILE, CONFIG_FILE, MANIFEST_FILE):
        cause = f"asset id {asset_id!r} is not a plain relative name"
        raise BundleError.of("bad-asset-id", cause, "choose a name such as isaaclab_stack_cube")


def seal(
    directory: str | Path, *, asset_id: str, step: int, lineage: Mapping[str, str | None], tied: Mapping[str, str]
) -> Manifest:
    """Hash every file of a directory that holds all parts of a bundle, and write its ``bundle.json``.

    Raises:
        BundleError: a part is missing, or the lineage has the digest of other norm stats than those in the directory.
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
