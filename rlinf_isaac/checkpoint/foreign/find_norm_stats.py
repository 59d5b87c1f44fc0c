"""Finds the norm stats of a checkpoint: inside it, or where RLinf's record of the training says.

RLinf saves no norm stats with its checkpoints. It trains with those in the directory of the base model, and the
resolved config of the run, ``<log_path>/tensorboard/config.yaml``, names that directory. lerobot keeps statistics in a
file of the policy's preprocessor, which is converted to a ``norm_stats.json``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlinf_isaac.checkpoint.foreign.lerobot_stats import LerobotStats, find_lerobot_stats
from rlinf_isaac.checkpoint.foreign.said.lerobot import PREPROCESSOR
from rlinf_isaac.checkpoint.foreign.said.rlinf import load_run_config, run_config_of, select
from rlinf_isaac.data.norm_stats.parse import read_bytes
from rlinf_isaac.ground.digest import bytes_digest, file_digest
from rlinf_isaac.ground.errors import BundleError, NormStatsError

NORM_STATS_FILE = "norm_stats.json"
# The two places of norm_stats_path in RLinf's config: in the released version, and on its main branch.
_PATH_KEYS = ("actor.openpi_data.norm_stats_path", "actor.model.openpi_data.norm_stats_path")
_MODEL_KEY = "actor.model.model_path"
_COMPUTE = "compute those of the data: rlinf-isaac norm_stats --dataset DATASET, and name the file it prints"


@dataclass(frozen=True)
class NormStatsSource:
    """Norm stats of a checkpoint.

    Attributes:
        path: the file that holds them.
        sha256: digest of the file.
        places: every file with the same bytes that was found, including `path`.
        asset_id: the name under which OpenPI or RLinf finds the file; None if its path has no such name.
        notes: how the file was found, if that is not obvious.
        made: bytes of the ``norm_stats.json`` into which `path` was converted; None if `path` is one itself.
        record: JSON-ready description of that conversion.
    """

    path: Path
    sha256: str
    places: tuple[Path, ...]
    asset_id: str | None
    notes: tuple[str, ...] = ()
    made: bytes | None = None
    record: Mapping[str, Any] = field(default_factory=dict)

    def read(self) -> bytes:
        """The bytes of the ``norm_stats.json``."""
        return read_bytes(self.path) if self.made is None else self.made


def given_norm_stats(path: Path, root: Path) -> NormStatsSource:
    """The norm stats in a file that a person named, for the checkpoint at `root`.

    Raises:
        NormStatsError: there is no such file.
    """
    try:
        return NormStatsSource(path, bytes_digest(read_bytes(path)), (path,), _asset_id(path, root))
    except NormStatsError as error:
        cause = error.problems[0].cause
        raise NormStatsError.of("no-norm-stats", cause, "name a norm_stats.json") from error


def all_norm_stats(root: Path) -> list[NormStatsSource]:
    """All norm stats in or around the checkpoint at `root`. Equal ones are returned once per asset id.

    Raises:
        NormStatsError, BundleError: a file cannot be read, or the files of a lerobot policy are damaged.
    """
    inside = {file: _asset_id(file, root) for file in _files_below(root)}
    if not inside and (lerobot := find_lerobot_stats(root)) is not None:
        return [_of_lerobot(lerobot)]
    outside, origin = ({}, "") if inside else _of_the_training(root)
    sources: dict[tuple[str | None, str], NormStatsSource] = {}
    for file, name in (inside | outside).items():
        digest = bytes_digest(read_bytes(file))
        first = sources.get((name, digest))
        places = (*first.places, file) if first else (file,)
        notes = (origin,) if file in outside else ()
        sources[name, digest] = NormStatsSource(places[0], digest, places, name, notes)
    return list(sources.values())


def find_norm_stats(root: Path, asset_id: str | None = None) -> NormStatsSource:
    """The norm stats of the checkpoint at `root`.

    Args:
        root: its directory.
        asset_id: selects one of several norm stats.

    Raises:
        NormStatsError: there are no norm stats, or several that differ.
        BundleError: the files of a lerobot policy are damaged.
    """
    inside = {file: _asset_id(file, root) for file in _files_below(root)}
    if not inside and (lerobot := find_lerobot_stats(root)) is not None:
        return _of_lerobot(lerobot)
    trained_with, origin = _of_the_training(root)
    outside = {file: name for file, name in trained_with.items() if not inside or name in inside.values()}
    files = inside | outside
    if not files:
        raise NormStatsError.of("no-norm-stats", *_none_found(root, origin))
    if asset_id in files.values():
        files = {file: name for file, name in files.items() if name == asset_id}
    digests = {file: bytes_digest(read_bytes(file)) for file in files}
    if len(set(digests.values())) > 1:
        listed = "\n".join(f"  {file} sha256 {digest}" for file, digest in digests.items())
        cause = f"the norm stats found for {root} differ:\n{listed}"
        raise NormStatsError.of("ambiguous-norm-stats", cause, _choice(files))
    names = sorted({name for name in files.values() if name is not None})
    if len(names) > 1:
        cause = f"the same norm stats were found for {root} under several asset ids: {', '.join(names)}"
        raise NormStatsError.of("ambiguous-asset-id", cause, f"say which: --asset-id {names[0]}")
    first = next(iter(files))
    notes = (origin,) if outside else ()
    return NormStatsSource(first, digests[first], tuple(files), names[0] if names else None, notes)


def _of_lerobot(stats: LerobotStats) -> NormStatsSource:
    note = f"{stats.path.name} holds lerobot's statistics; they were converted to a norm_stats.json"
    return NormStatsSource(stats.path, file_digest(stats.path), (stats.path,), None, (note,), stats.data, stats.record)


def _choice(files: Mapping[Path, str | None]) -> str:
    """The cure if several norm stats were found: how to name one of them."""
    names = sorted({name for name in files.values() if name is not None})
    if len(names) < 2 or len(names) < len(files):
        return "say which the weights were trained with: --norm-stats FILE"
    listed = ", ".join(names[1:])
    return (
        f"name the robot whose statistics the weights were trained with: --asset-id {names[0]} (or {listed}); "
        f"if it is none of these, {_COMPUTE} with --norm-stats FILE"
    )


def _none_found(root: Path, origin: str) -> tuple[str, str]:
    """Cause and cure for a checkpoint without norm stats, depending on the program that wrote it."""
    if (root / PREPROCESSOR).is_file():
        cause = f"{root / PREPROCESSOR} names no statistics: lerobot keeps none with a base, only with a trained policy"
        return cause, f"{_COMPUTE} with --norm-stats FILE"
    cause = f"{root} holds no {NORM_STATS_FILE}, neither in assets/<asset_id>/ nor in <asset_id>/"
    if origin:
        return cause, f"name the file the training read: --norm-stats FILE ({origin})"
    if (root / "actor").is_dir() or (root / "model_state_dict").is_dir():
        where = "RLinf saves none; it trains with <actor.model.model_path>/<asset_id>/norm_stats.json"
        return cause, f"name the file the training read: --norm-stats FILE ({where})"
    return cause, (
        "name the file the weights were trained with: --norm-stats FILE (for a base that OpenPI's script converted, it "
        f"is assets/<robot>/norm_stats.json in the JAX checkpoint); or {_COMPUTE}"
    )


def _files_below(root: Path) -> Iterable[Path]:
    """The norm stats files in all places where OpenPI and RLinf look. Asset ids have one or two path segments."""
    for level in ("", "*/", "*/*/", "assets/*/*/"):
        yield from (file for file in sorted(root.glob(level + NORM_STATS_FILE)) if file.is_file())


def _of_the_training(root: Path) -> tuple[dict[Path, str | None], str]:
    """Norm stats named by the config of the RLinf run around `root`: file -> asset id; and a note on their origin."""
    file = run_config_of(root)
    if file is None:
        return {}, ""
    try:
        config = load_run_config(file)
    except BundleError as error:
        raise NormStatsError(error.problems) from error
    for key in _PATH_KEYS:
        if value := select(config, key):
            stats = Path(str(value))
            stats = stats if stats.suffix == ".json" else stats / NORM_STATS_FILE
            return ({stats: stats.parent.name} if stats.is_file() else {}), f"{file} names {key}={value}"
    model = select(config, _MODEL_KEY)
    if not model:
        return {}, ""
    base = Path(str(model)).absolute()
    return {stats: _asset_id(stats, base) for stats in _files_below(base)}, f"{file} names {_MODEL_KEY}={base}"


def _asset_id(file: Path, root: Path) -> str | None:
    """The asset id under which OpenPI or RLinf finds `file`: its directory relative to the checkpoint or to assets/."""
    parent = file.absolute().parent
    if parent.is_relative_to(root):
        name = parent.relative_to(root).as_posix().removeprefix("assets/")
        return None if name in (".", "assets") else name
    match = re.fullmatch(r".*/assets/(.+)", parent.as_posix())
    return match[1] if match else None
