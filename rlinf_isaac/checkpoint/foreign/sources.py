"""Recognises the layout of a checkpoint and finds its parts, from a directory or a file, without torch.

    <step>/model.safetensors, metadata.pt, assets/<asset_id>/norm_stats.json       OpenPI (PyTorch)
    global_step_<N>/actor/model_state_dict/full_weights.pt, actor/dcp_checkpoint/  RLinf, training
    <model>/model.safetensors or shards, <asset_id>/norm_stats.json                RLinf, model directory
    checkpoints/<step>/pretrained_model/model.safetensors, policy_preprocessor*    lerobot
    <model>/params/ (orbax), assets/<asset_id>/norm_stats.json                     OpenPI (JAX)
    model.safetensors, *.safetensors, *.pt, dcp_checkpoint/                        loose weights
    bundle.json                                                                    a bundle of ours

If two candidates may hold different weights, none is chosen: RLinf's loader takes the first that it tries, and the
evaluation may then be of other weights than the intended ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from rlinf_isaac.checkpoint.find_weights import FULL_WEIGHTS, LEROBOT_INNER, Weights, find_weights_in, root_of
from rlinf_isaac.checkpoint.foreign.find_norm_stats import NormStatsSource, find_norm_stats, given_norm_stats
from rlinf_isaac.checkpoint.foreign.said import Said, read_said
from rlinf_isaac.checkpoint.header import read_header
from rlinf_isaac.checkpoint.manifest import MANIFEST_FILE, Manifest
from rlinf_isaac.checkpoint.steps import step_of
from rlinf_isaac.ground.errors import BundleError, InvalidJob


@dataclass(frozen=True, kw_only=True)
class Located:
    """A checkpoint: its weights and what its files record.

    Attributes:
        kind: layout of the checkpoint.
        path: directory of the checkpoint (or the one file that was named).
        weights: where its weights are.
        step: the step in the directory's name; None if the name has none.
        notes: notes on choices between candidates, for people.
        parent: digest of the bundle, if it is one.
        said: what its own files say about its training.
        hub: ``hf://org/name@commit``, if it was downloaded from the Hugging Face Hub.
    """

    kind: Literal["bundle", "openpi", "rlinf", "lerobot", "weights"]
    path: Path
    weights: Weights
    step: int | None
    notes: tuple[str, ...] = ()
    parent: str | None = None
    said: Said = field(default_factory=Said)
    hub: str = ""


@dataclass(frozen=True, kw_only=True)
class Source(Located):
    """A checkpoint with the norm stats that it was trained with.

    Attributes:
        norm_stats: its norm stats.
        asset_id: the asset id of the norm stats, from a bundle's manifest or from their path; None if not known.
    """

    norm_stats: NormStatsSource
    asset_id: str | None


def find_source(
    path: str | Path,
    *,
    norm_stats: Path | None = None,
    weights: Path | None = None,
    asset_id: str | None = None,
) -> Source:
    """Find the layout, weights, norm stats and recorded settings of the checkpoint at `path`.

    Args:
        path: directory or file of the checkpoint.
        norm_stats: use this file instead of searching for one.
        weights: use these weights (a file, or a directory of shards or of DCP) instead of searching for them.
        asset_id: selects one of several norm stats.

    Raises:
        BundleError: there are no weights, several that may differ, or they have a format that is not read here; or the
            files that describe the checkpoint are damaged, or describe a policy that this project does not have.
        NormStatsError: there are no norm stats, or several that differ.
        InvalidJob: several of these.
    """
    place = _place(Path(path), weights)
    errors: list[InvalidJob] = []
    stats = said = None
    try:
        stats = (
            find_norm_stats(place.root, asset_id) if norm_stats is None else given_norm_stats(norm_stats, place.root)
        )
    except InvalidJob as error:
        errors.append(error)
    try:
        said = _read_said(place, [stats] if stats is not None else [])
    except InvalidJob as error:
        errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if stats is None or said is None:
        problems = [problem for error in errors for problem in error.problems]
        raise InvalidJob(list(dict.fromkeys(problems)))
    asset = place.manifest.asset_id if place.manifest else stats.asset_id
    located = _located(place, said, stats.notes)
    return Source(**vars(located), norm_stats=stats, asset_id=asset)


def find_located(path: str | Path, stats: Callable[[Path], Iterable[NormStatsSource]]) -> Located:
    """Like `find_source`, but norm stats may be missing or ambiguous.

    Args:
        path: directory or file of the checkpoint.
        stats: returns all norm stats below a directory. Their paths help to recognise which program wrote it.

    Raises:
        BundleError: as `find_source`.
    """
    place = _place(Path(path), None)
    return _located(place, _read_said(place, stats(place.root)), ())


class _Place(NamedTuple):
    """Where a checkpoint is, judged by the names of its files."""

    root: Path
    weights: Weights
    kind: Literal["openpi", "rlinf", "weights"]
    manifest: Manifest | None
    notes: tuple[str, ...]


def _place(path: Path, weights: Path | None) -> _Place:
    if not path.exists():
        raise BundleError.of("missing-checkpoint", f"{path} does not exist", "name a checkpoint's directory or file")
    root = root_of(path)
    manifest = _manifest(root) if weights is None else None
    notes: list[str] = []
    located = find_weights_in(path if weights is None else weights, root if weights is None else None, notes)
    for file in located.files if located.format == "safetensors" else ():
        read_header(file)
    return _Place(root, located, _kind(root, located), manifest, tuple(notes))


def _read_said(place: _Place, stats: Iterable[NormStatsSource]) -> Said:
    # A model directory of RLinf can be recognised only by the place of its norm stats.
    has_own_stats = any(
        source.made is None and source.asset_id is not None and source.path.is_relative_to(place.root)
        for source in stats
    )
    return read_said(place.root, openpi=place.kind in ("openpi", "rlinf") or has_own_stats)


def _located(place: _Place, said: Said, notes: tuple[str, ...]) -> Located:
    return Located(
        kind="bundle" if place.manifest else place.kind if said.writer == "" else said.writer,
        path=place.root,
        weights=place.weights,
        step=place.manifest.step if place.manifest else _step(place.root),
        notes=(*place.notes, *notes),
        parent=place.manifest.digest if place.manifest else None,
        said=said,
    )


def _step(root: Path) -> int | None:
    """The step in the name of the checkpoint's directory, or in the name of the directory to which it links."""
    directory = root.parent if root.name == LEROBOT_INNER else root
    return step_of(directory.name) if step_of(directory.name) is not None else step_of(directory.resolve().name)


def _kind(root: Path, weights: Weights) -> Literal["openpi", "rlinf", "weights"]:
    if weights.format == "jax":
        return "openpi"
    if weights.format == "safetensors" and ((root / "metadata.pt").exists() or (root / "assets").is_dir()):
        return "openpi"
    if weights.format == "dcp" or any((root / name).exists() for name in FULL_WEIGHTS):
        return "rlinf"
    return "weights"


def _manifest(root: Path) -> Manifest | None:
    if not (root / MANIFEST_FILE).is_file():
        return None
    try:
        return Manifest.read(root / MANIFEST_FILE)
    except (OSError, ValueError) as error:
        cause = f"{root / MANIFEST_FILE}: {error}"
        raise BundleError.of("manifest-damaged", cause, "copy the bundle again from where it was made") from error
