"""What is this checkpoint, and where are its parts? Given a directory or a file alone, and without torch.

    <step>/model.safetensors, metadata.pt, assets/<asset_id>/norm_stats.json       OpenPI (PyTorch)
    global_step_<N>/actor/model_state_dict/full_weights.pt, actor/dcp_checkpoint/  RLinf, training
    <model>/model.safetensors or shards, <asset_id>/norm_stats.json                RLinf, model directory
    checkpoints/<step>/pretrained_model/model.safetensors, policy_preprocessor*    lerobot
    <model>/params/ (orbax), assets/<asset_id>/norm_stats.json                     OpenPI (JAX)
    model.safetensors, *.safetensors, *.pt, dcp_checkpoint/                        loose weights
    bundle.json                                                                    a bundle of ours

Where two candidates may disagree nothing is chosen: RLinf's loader would take whichever it tries first, and the numbers
of the evaluation would be those of other weights than the ones that were meant.
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
    """Weights as they were found, and what lies around them.

    Attributes:
        kind: layout the checkpoint has.
        path: directory of the checkpoint (or the one file that was named).
        weights: where its weights are.
        step: from the directory's name; None where that says nothing.
        notes: what was decided between candidates, for people.
        parent: digest of the bundle, where it is one.
        said: what its own files say of its training.
        hub: ``hf://org/name@commit``, where it was downloaded from the Hugging Face Hub.
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
        asset_id: from where the norm stats lie; None where that says nothing.
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
    """Find out what the checkpoint at `path` is, where its weights and norm stats are, and what it says of itself.

    Args:
        path: directory or file of the checkpoint.
        norm_stats: take this file instead of looking for one.
        weights: take these weights (a file, or a directory of shards or of DCP) instead of looking for them.
        asset_id: which norm stats to take, where there are several.

    Raises:
        BundleError: there are no weights, several that may disagree, they are of a framework we do not read, or what
            the checkpoint says of itself is damaged or cannot be done here.
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
    """As `find_source`, for who wants the weights whichever norm stats lie beside them.

    Args:
        path: directory or file of the checkpoint.
        stats: all that are found below its directory; where they lie tells who wrote a checkpoint.

    Raises:
        BundleError: as `find_source`.
    """
    place = _place(Path(path), None)
    return _located(place, _read_said(place, stats(place.root)), ())


class _Place(NamedTuple):
    """Where a checkpoint lies, before anything in it but names was read."""

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
    found = find_weights_in(path if weights is None else weights, root if weights is None else None, notes)
    for file in found.files if found.format == "safetensors" else ():
        read_header(file)
    return _Place(root, found, _kind(root, found), manifest, tuple(notes))


def _read_said(place: _Place, stats: Iterable[NormStatsSource]) -> Said:
    # A model's directory of RLinf has no mark but the place of its norm stats.
    placed = any(
        each.made is None and each.asset_id is not None and each.path.is_relative_to(place.root) for each in stats
    )
    return read_said(place.root, openpi=place.kind in ("openpi", "rlinf") or placed)


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
    """The step in the name of the checkpoint's directory, or of what it is a link to."""
    named = root.parent if root.name == LEROBOT_INNER else root
    return step_of(named.name) if step_of(named.name) is not None else step_of(named.resolve().name)


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
