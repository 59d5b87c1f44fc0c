"""Which ``norm_stats.json`` belongs to a checkpoint? The ones inside it, and what RLinf recorded of its training.

RLinf saves no norm stats with its checkpoints. It trains with those in the directory of the base model, and the
resolved config of the run, ``<log_path>/tensorboard/config.yaml``, names that directory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rlinf_isaac.digest import bytes_digest
from rlinf_isaac.errors import NormStatsError

NORM_STATS_FILE = "norm_stats.json"
RUN_CONFIG = "tensorboard/config.yaml"
# Both places of norm_stats_path in RLinf: released, and main.
_PATH_KEYS = ("actor.openpi_data.norm_stats_path", "actor.model.openpi_data.norm_stats_path")
_MODEL_KEY = "actor.model.model_path"


@dataclass(frozen=True)
class NormStatsSource:
    """A ``norm_stats.json``.

    Attributes:
        path: where it is.
        sha256: of its bytes.
        places: every file with these bytes that was found, `path` among them.
        asset_id: the name under which OpenPI or RLinf finds it; None where its place says none.
        notes: how it was found, where that is not obvious.
    """

    path: Path
    sha256: str
    places: tuple[Path, ...]
    asset_id: str | None
    notes: tuple[str, ...] = ()


def given_norm_stats(path: Path, root: Path) -> NormStatsSource:
    """The norm stats that a person names, for the checkpoint at `root`.

    Raises:
        NormStatsError: there is no such file.
    """
    try:
        return NormStatsSource(path, bytes_digest(path.read_bytes()), (path,), _asset_id(path, root))
    except OSError as error:
        cause = f"{path} cannot be read ({error.strerror})"
        raise NormStatsError.of("no-norm-stats", cause, "name a norm_stats.json") from error


def find_norm_stats(root: Path) -> NormStatsSource:
    """The norm stats of the checkpoint at `root`.

    Raises:
        NormStatsError: there are none, or several that differ.
    """
    inside = {file: _asset_id(file, root) for file in _files_below(root)}
    trained_with, origin = _of_the_training(root)
    outside = {file: name for file, name in trained_with.items() if not inside or name in inside.values()}
    files = inside | outside
    if not files:
        cause = f"{root} holds no {NORM_STATS_FILE}, neither in assets/<asset_id>/ nor in <asset_id>/"
        where = origin or "RLinf saves none; it trains with <actor.model.model_path>/<asset_id>/norm_stats.json"
        raise NormStatsError.of("no-norm-stats", cause, f"name the file the training read: --norm-stats FILE ({where})")
    digests = {file: bytes_digest(file.read_bytes()) for file in files}
    if len(set(digests.values())) > 1:
        listed = "\n".join(f"  {file} sha256 {digest}" for file, digest in digests.items())
        cause = f"the norm stats found for {root} differ:\n{listed}"
        cure = "say which the weights were trained with: --norm-stats FILE"
        raise NormStatsError.of("ambiguous-norm-stats", cause, cure)
    names = sorted({name for name in files.values() if name is not None})
    if len(names) > 1:
        cause = f"the same norm stats were found for {root} under several asset ids: {', '.join(names)}"
        raise NormStatsError.of("ambiguous-asset-id", cause, "name one of the files: --norm-stats FILE")
    first = next(iter(files))
    notes = (origin,) if outside else ()
    return NormStatsSource(first, digests[first], tuple(files), names[0] if names else None, notes)


def _files_below(root: Path) -> Iterable[Path]:
    """Wherever OpenPI and RLinf look below a model's directory; asset ids have one or two levels."""
    for level in ("", "*/", "*/*/", "assets/*/*/"):
        yield from (file for file in sorted(root.glob(level + NORM_STATS_FILE)) if file.is_file())


def _of_the_training(root: Path) -> tuple[dict[Path, str | None], str]:
    """What the config of the RLinf run around `root` says it trained with: file -> asset id, and where it says so."""
    if len(root.parents) < 3 or not (root.parents[2] / RUN_CONFIG).is_file():  # <log_path>/<experiment>/checkpoints
        return {}, ""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    file = root.parents[2] / RUN_CONFIG
    try:
        config = OmegaConf.load(file)
        values = {key: OmegaConf.select(config, key, throw_on_missing=False) for key in (*_PATH_KEYS, _MODEL_KEY)}
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        cause = f"{file} cannot be read: {error}"
        raise NormStatsError.of("rlinf-config", cause, "say which norm stats it names: --norm-stats FILE") from error
    for key in _PATH_KEYS:
        if values[key]:
            named = Path(values[key])
            named = named if named.suffix == ".json" else named / NORM_STATS_FILE
            return ({named: named.parent.name} if named.is_file() else {}), f"{file} names {key}={values[key]}"
    if not values[_MODEL_KEY]:
        return {}, ""
    base = Path(values[_MODEL_KEY]).absolute()
    return {found: _asset_id(found, base) for found in _files_below(base)}, f"{file} names {_MODEL_KEY}={base}"


def _asset_id(file: Path, root: Path) -> str | None:
    """The asset id by which OpenPI or RLinf would find `file`: what is between the checkpoint, or assets/, and it."""
    parent = file.absolute().parent
    if parent.is_relative_to(root):
        name = parent.relative_to(root).as_posix().removeprefix("assets/")
        return None if name in (".", "assets") else name
    match = re.fullmatch(r".*/assets/(.+)", parent.as_posix())
    return match[1] if match else None
