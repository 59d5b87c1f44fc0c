"""What is this checkpoint, and where are its parts? Given a directory or a file alone, and without torch.

    <step>/model.safetensors, metadata.pt, assets/<asset_id>/norm_stats.json       OpenPI (PyTorch)
    global_step_<N>/actor/model_state_dict/full_weights.pt, actor/dcp_checkpoint/  RLinf, training
    <model>/model.safetensors or shards, <asset_id>/norm_stats.json                RLinf, model directory
    model.safetensors, *.safetensors, *.pt, dcp_checkpoint/                        loose weights
    bundle.json                                                                    a bundle of ours

Where two candidates may disagree nothing is chosen: RLinf's loader would take whichever it tries first, and the numbers
of the evaluation would be those of other weights than the ones that were meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlinf_isaac.checkpoint.coverage import refuse_rlinf_layout, strip_wrappers
from rlinf_isaac.checkpoint.find_norm_stats import NormStatsSource, find_norm_stats, given_norm_stats
from rlinf_isaac.checkpoint.header import INDEX_FILE, read_header, weight_files
from rlinf_isaac.checkpoint.manifest import MANIFEST_FILE, Manifest
from rlinf_isaac.checkpoint.steps import step_of
from rlinf_isaac.errors import BundleError

Format = Literal["safetensors", "torch", "dcp"]

FULL_WEIGHTS = ("full_weights.pt", "model_state_dict/full_weights.pt", "actor/model_state_dict/full_weights.pt")
DCP = ("", "dcp_checkpoint", "actor/dcp_checkpoint")
# Below what a person may point at inside RLinf's global_step_<N>.
_RLINF_INNER = ("actor", "model_state_dict", "dcp_checkpoint")
# Saved beside weights by OpenPI and RLinf, and no weights themselves.
_NOT_WEIGHTS = ("metadata.pt", "optimizer.pt", "data.pt", "rng.pt")


@dataclass(frozen=True)
class Weights:
    """Where the weights are.

    Attributes:
        format: ``safetensors``, ``torch`` (a pickled state dict) or ``dcp`` (torch.distributed.checkpoint).
        files: one file, the shards, or the files of a DCP directory.
    """

    format: Format
    files: tuple[Path, ...]

    @property
    def directory(self) -> Path:
        """The directory that holds the files."""
        return self.files[0].parent

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.stat().st_size for file in self.files)


@dataclass(frozen=True)
class Source:
    """A checkpoint as it was found.

    Attributes:
        kind: layout it has.
        path: directory of the checkpoint (or the one file that was named).
        weights: where its weights are.
        norm_stats: its norm stats.
        step: from the directory's name; None where that says nothing.
        asset_id: from where the norm stats lie; None where that says nothing.
        notes: what was decided between candidates, for people.
        parent: digest of the bundle, where the source is one.
    """

    kind: Literal["bundle", "openpi", "rlinf", "weights"]
    path: Path
    weights: Weights
    norm_stats: NormStatsSource
    step: int | None
    asset_id: str | None
    notes: tuple[str, ...] = ()
    parent: str | None = None


def find_source(path: str | Path, *, norm_stats: Path | None = None, weights: Path | None = None) -> Source:
    """Find out what the checkpoint at `path` is, and where its weights and norm stats are.

    Args:
        path: directory or file of the checkpoint.
        norm_stats: take this file instead of looking for one.
        weights: take these weights (a file, or a directory of shards or of DCP) instead of looking for them.

    Raises:
        BundleError: there are no weights, several that may disagree, or they are of a framework we do not read.
        NormStatsError: there are no norm stats, or several that differ.
    """
    path = Path(path)
    if not path.exists():
        raise BundleError.of("missing-checkpoint", f"{path} does not exist", "name a checkpoint's directory or file")
    root = _root(path)
    manifest = _manifest(root) if weights is None else None
    notes: list[str] = []
    found = _find_weights(path if weights is None else weights, root if weights is None else None, notes)
    if found.format == "safetensors":
        names, _ = strip_wrappers(name for file in found.files for name in read_header(file))
        refuse_rlinf_layout(names, str(found.files[0]))
    stats = find_norm_stats(root) if norm_stats is None else given_norm_stats(norm_stats, root)
    return Source(
        kind="bundle" if manifest else _kind(root, found),
        path=root,
        weights=found,
        norm_stats=stats,
        step=manifest.step if manifest else step_of(root.name),
        asset_id=manifest.asset_id if manifest else stats.asset_id,
        notes=(*notes, *stats.notes),
        parent=manifest.digest if manifest else None,
    )


def find_weights(path: str | Path) -> tuple[Weights, tuple[str, ...]]:
    """Only the weights of the checkpoint at `path` (a file or a directory), and what was decided between candidates.

    Raises:
        BundleError: there are none, several that may disagree, or they are of a framework we do not read.
    """
    path = Path(path)
    notes: list[str] = []
    if not path.exists():
        raise BundleError.of("missing-checkpoint", f"{path} does not exist", "name a checkpoint's directory or file")
    return _find_weights(path, _root(path), notes), tuple(notes)


def name_within(root: Path, file: Path) -> str:
    """The file's name relative to the checkpoint, or alone: where a checkpoint lay is not part of what it is."""
    file = file.absolute()
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name


def _root(path: Path) -> Path:
    """The checkpoint's directory: `path`, or the directory around it where `path` is a part inside a checkpoint."""
    directory = path.absolute() if path.is_dir() else path.absolute().parent
    inner = directory
    while inner.name in _RLINF_INNER:
        inner = inner.parent
    return inner if inner != directory and step_of(inner.name) is not None else directory


def _kind(root: Path, weights: Weights) -> Literal["openpi", "rlinf", "weights"]:
    if weights.format == "safetensors" and ((root / "metadata.pt").exists() or (root / "assets").is_dir()):
        return "openpi"
    if weights.format == "dcp" or any((root / name).exists() for name in FULL_WEIGHTS):
        return "rlinf"
    return "weights"


def _manifest(root: Path) -> Manifest | None:
    if not (root / MANIFEST_FILE).is_file():
        return None
    try:
        return Manifest.from_bytes((root / MANIFEST_FILE).read_bytes())
    except (OSError, ValueError) as error:
        cause = f"{root / MANIFEST_FILE}: {error}"
        raise BundleError.of("manifest-damaged", cause, "copy the bundle again from where it was made") from error


def _find_weights(path: Path, root: Path | None, notes: list[str]) -> Weights:
    """The weights at `path`; below `root` as well, where `path` is a part of that checkpoint."""
    if not path.exists():
        raise BundleError.of("missing-checkpoint", f"{path} does not exist", "name the weights' file or directory")
    if path.is_file():
        return _weights_file(path)
    if not path.is_dir():
        raise BundleError.of("no-weights", f"{path} is neither a file nor a directory", "name the weights themselves")
    directory = path if root is None else root
    candidates = _candidates(directory)
    torch_files = [each for each in candidates if each.format == "torch"]
    if len(torch_files) == 1 and {each.format for each in candidates} == {"torch", "dcp"}:
        # Two forms of one state, saved together by RLinf; full_weights.pt is already gathered.
        candidates = torch_files
        notes.append(f"{torch_files[0].files[0]} is read; the distributed checkpoint beside it holds the same weights")
    if len(candidates) > 1:
        listed = "\n".join(f"  {each.files[0]} ({each.size} bytes)" for each in candidates)
        cause = f"{directory} holds several weights that may disagree:\n{listed}"
        raise BundleError.of("ambiguous-weights", cause, "say which are meant: --weights FILE")
    if not candidates:
        raise BundleError.of(*_no_weights(directory))
    return candidates[0]


def _weights_file(path: Path) -> Weights:
    if path.name == INDEX_FILE:
        return Weights("safetensors", tuple(weight_files(path.parent)))
    if path.suffix == ".safetensors":
        return Weights("safetensors", (path,))
    if path.suffix in (".pt", ".pth"):
        return Weights("torch", (path,))
    if path.name == ".metadata" or path.suffix == ".distcp":
        return _dcp(path.parent)
    cause = f"{path} is neither *.safetensors, *.pt, *.pth nor a directory of DCP"
    raise BundleError.of("no-weights", cause, "name the file that holds the weights")


def _candidates(directory: Path) -> list[Weights]:
    """All weights of a checkpoint's directory. JAX's are refused here, so that nothing else is taken in their stead."""
    if (directory / "params").is_dir():
        cause = f"{directory / 'params'} holds a JAX checkpoint"
        cure = "convert it with openpi's examples/convert_jax_model_to_pytorch.py, and name what that writes"
        raise BundleError.of("jax-checkpoint", cause, cure)
    found = []
    tensors = sorted(directory.glob("*.safetensors"))
    if len(tensors) == 1 and not (directory / INDEX_FILE).exists():
        found.append(Weights("safetensors", (tensors[0],)))
    elif (directory / INDEX_FILE).exists():
        found.append(Weights("safetensors", tuple(weight_files(directory))))
    else:
        found += [Weights("safetensors", (file,)) for file in tensors]
    pickles = [directory / name for name in FULL_WEIGHTS]
    pickles += [
        file
        for file in sorted([*directory.glob("*.pt"), *directory.glob("*.pth")])
        if file.name not in _NOT_WEIGHTS and file not in pickles
    ]
    found += [Weights("torch", (file,)) for file in pickles if file.is_file()]
    distributed = [directory / name for name in DCP]
    return found + [
        _dcp(place) for place in distributed if any(place.glob("*.distcp")) or (place / ".metadata").exists()
    ]


def _dcp(directory: Path) -> Weights:
    files = sorted(directory.glob("*.distcp"))
    if not files or not (directory / ".metadata").is_file():
        cause = f"{directory} lacks {'its .distcp files' if files == [] else '.metadata'}"
        raise BundleError.of("weights-file-missing", cause, "copy the distributed checkpoint again, complete")
    return Weights("dcp", (directory / ".metadata", *files))


def _no_weights(directory: Path) -> tuple[str, str, str]:
    """Code, cause and cure for a directory without weights, by what is below it."""
    steps = sorted(entry.name for entry in directory.iterdir() if entry.is_dir() and step_of(entry.name) is not None)
    if steps:
        cause = f"{directory} holds the checkpoints {', '.join(steps)}"
        return "several-checkpoints", cause, f"name one of them: {directory / steps[-1]}"
    cause = f"{directory} holds neither *.safetensors, full_weights.pt, a single *.pt nor dcp_checkpoint/"
    return "no-weights", cause, "name the directory of one checkpoint, or its weights: --weights FILE"
