"""Checkpoint bundles: each is one directory with all files of one checkpoint.

    model.safetensors                  weights (or shards and model.safetensors.index.json)
    config.json                        architecture, horizons, state and action layout, tokenizer
    assets/<asset_id>/norm_stats.json  where OpenPI looks for the norm stats
    <asset_id>/norm_stats.json         where RLinf looks for them; the same bytes. A suite whose tasks have
                                       statistics of their own has such a pair of files for each of them
    bundle.json                        sha256 and size of every file, and the lineage (`manifest.Manifest`)

Bundles are written atomically: a bundle's directory is complete or does not exist. Writing the weights needs torch;
reading and verifying does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlinf_isaac.checkpoint.described import description_problems
from rlinf_isaac.checkpoint.header import WEIGHTS_FILE
from rlinf_isaac.checkpoint.manifest import MANIFEST_FILE, Manifest, UnknownVersion
from rlinf_isaac.checkpoint.steps import find_bundles, parse_steps, select_bundles
from rlinf_isaac.checkpoint.verify import (
    CONFIG_FILE,
    MAX_BYTES,
    check_files,
    check_parts,
    further_assets,
    norm_stats_files,
)
from rlinf_isaac.ground.digest import json_digest
from rlinf_isaac.ground.errors import BundleError
from rlinf_isaac.ground.reading import read_bytes, read_json

TRAINED_FROM = "trained_from"
"""Key of ``config.json``: the name of the checkpoint from which a reinforcement learning started."""

__all__ = [
    "CONFIG_FILE",
    "TRAINED_FROM",
    "Bundle",
    "after_rl",
    "find_bundles",
    "parse_steps",
    "read_bundle",
    "select_bundles",
]


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read.

    Attributes:
        path: the bundle's directory.
        config: content of ``config.json``.
        norm_stats_bytes: content of ``norm_stats.json``, byte for byte.
        manifest: content of ``bundle.json``.
        verified: whether the files of weights were hashed; all other files always are.
        further_norm_stats: asset id -> content of the ``norm_stats.json`` of another task of a suite.
        of_task: asset id of the task of a suite that alone is meant (`of_task.of_task`), or None.
    """

    path: Path
    config: dict[str, Any]
    norm_stats_bytes: bytes
    manifest: Manifest
    verified: bool
    further_norm_stats: Mapping[str, bytes] = field(default_factory=dict)
    of_task: str | None = None

    @property
    def step(self) -> int:
        """Optimiser step of the checkpoint."""
        return self.manifest.step

    @property
    def name(self) -> str:
        """The checkpoint's name wherever it is shown: ``step-1200``, or ``step-1200-rl-4`` for the fourth iteration of
        a reinforcement learning that started from it. A bundle of an earlier release does not say where it started,
        and is ``rl-4``."""
        if self.config.get("trained_by") != "rl":
            return f"step-{self.step}"
        return after_rl(self.config.get(TRAINED_FROM), self.step)

    @property
    def job(self) -> dict[str, Any]:
        """The job config the weights were trained with.

        Raises:
            BundleError: ``config.json`` has no ``job``.
        """
        job = self.config.get("job")
        if not isinstance(job, dict):
            cause = f"{self.path / CONFIG_FILE} does not say how the checkpoint was trained (no 'job')"
            cure = f"make the bundle again: rlinf-isaac bundle make {self.path} --preset NAME"
            raise BundleError.of("foreign-bundle", cause, cure)
        return job

    @property
    def asset_id(self) -> str:
        """Name of the directory in which OpenPI and RLinf look for the norm stats."""
        return self.of_task or self.manifest.asset_id

    @property
    def lineage(self) -> Mapping[str, str | None]:
        """Digests of the data, norm stats, parent bundle and config from which the checkpoint was made."""
        return self.manifest.lineage

    @property
    def digest(self) -> str:
        """sha256 of the manifest, which identifies the bundle: the manifest has the sha256 of every other file."""
        return self.manifest.digest

    @property
    def weights_digest(self) -> str:
        """sha256 of the file of weights; for shards, the sha256 of their names and digests."""
        files = self.manifest.files
        if WEIGHTS_FILE in files:
            return files[WEIGHTS_FILE].sha256
        return json_digest({name: files[name].sha256 for name in files if name.endswith(".safetensors")})


def after_rl(start: str | None, iteration: int) -> str:
    """Name of the checkpoint that an iteration of reinforcement learning made of the one named `start`."""
    return f"{start}-rl-{iteration}" if start else f"rl-{iteration}"


def read_bundle(path: str | Path, *, verify: bool = True) -> Bundle:
    """Read a bundle and check it against its manifest.

    Args:
        path: the bundle's directory.
        verify: hash the weights too (about 1.5 GB/s). Without it only their size, names and dtypes are checked, which
            is fast enough for a preflight. All other files are hashed in either case.

    Raises:
        BundleError: a file is missing, added or changed; the message names the first one.
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
        further = {name: read_bytes(norm_stats_files(path, name)[0], MAX_BYTES) for name in further_assets(manifest)}
    except OSError as error:
        cause = f"{error.filename} cannot be read: {error.strerror}"
        raise BundleError.of("bundle-unreadable", cause, "check its permissions") from error
    if problems := description_problems(config, str(path / CONFIG_FILE)):
        raise BundleError(problems)
    return Bundle(path, config, norm_stats, manifest, verified=verify, further_norm_stats=further)
