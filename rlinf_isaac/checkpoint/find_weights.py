"""Finds the weights of a checkpoint from its directory or from a file, without torch.

If several candidates may hold different weights, none is chosen and an error names them. RLinf's loader would take the
first that it tries.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlinf_isaac.checkpoint.header import INDEX_FILE, read_header, weight_files
from rlinf_isaac.checkpoint.jax import METADATA, PARAMS, is_jax, is_params, jax_files
from rlinf_isaac.checkpoint.steps import step_of
from rlinf_isaac.ground.errors import BundleError

Format = Literal["safetensors", "torch", "dcp", "jax"]

FULL_WEIGHTS = ("full_weights.pt", "model_state_dict/full_weights.pt", "actor/model_state_dict/full_weights.pt")
DCP = ("", "dcp_checkpoint", "actor/dcp_checkpoint")
# Files that OpenPI and RLinf save beside weights and that hold no weights.
_NOT_WEIGHTS = ("metadata.pt", "optimizer.pt", "data.pt", "rng.pt")
# Directories inside RLinf's global_step_<N> that a person may name instead of it.
_RLINF_INNER = ("actor", "model_state_dict", "dcp_checkpoint")
LEROBOT_INNER = "pretrained_model"
"""The directory of the policy in a checkpoint of lerobot; the training state is beside it."""
PROCESSOR_FILES = ("policy_preprocessor_step_*.safetensors", "policy_postprocessor_step_*.safetensors")
"""The states of lerobot's processors. They are safetensors files beside the weights, but hold no weights."""
_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")
# Directories below a run's directory in which trainers keep their checkpoints.
_CHECKPOINTS = ("", "checkpoints")


@dataclass(frozen=True)
class Weights:
    """Where the weights are.

    Attributes:
        format: ``safetensors``, ``torch`` (a pickled state dict), ``dcp`` (torch.distributed.checkpoint) or ``jax``
            (orbax).
        files: one file, the shards, or all files of a DCP or orbax directory, beginning with the metadata.
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

    @property
    def lacks_index(self) -> bool:
        """Whether the weights are several safetensors files without an index."""
        return self.format == "safetensors" and len(self.files) > 1 and not (self.directory / INDEX_FILE).exists()


def find_weights(path: str | Path) -> tuple[Weights, tuple[str, ...]]:
    """The weights of the checkpoint at `path` (a file or a directory), and notes on choices between candidates.

    Raises:
        BundleError: there are no weights, several that may differ, or they have a format that is not read here.
    """
    path = Path(path)
    notes: list[str] = []
    if not path.exists():
        raise BundleError.of("missing-checkpoint", f"{path} does not exist", "name a checkpoint's directory or file")
    return find_weights_in(path, root_of(path), notes), tuple(notes)


def name_within(root: Path, file: Path) -> str:
    """The file's name relative to the checkpoint, or without directories if it is outside; never an absolute path."""
    file = file.absolute()
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name


def root_of(path: Path) -> Path:
    """The checkpoint's directory: `path`, or the directory that contains it if `path` is a part of a checkpoint."""
    directory = path.absolute() if path.is_dir() else path.absolute().parent
    if directory.name == PARAMS and is_params(directory):
        return directory.parent
    inner = directory
    while inner.name in _RLINF_INNER:
        inner = inner.parent
    if inner != directory and step_of(inner.name) is not None:
        return inner
    policy = directory / LEROBOT_INNER
    return policy if policy.is_dir() and not any(directory.glob("*.safetensors")) else directory


def find_weights_in(path: Path, root: Path | None, notes: list[str]) -> Weights:
    """The weights at `path`. If it is a directory and `root` is given, all of `root` is searched.

    Args:
        path: a file, or a directory.
        root: directory of the checkpoint, or None to search only `path`.
        notes: a list to which notes on choices between candidates are appended.

    Raises:
        BundleError: there are no weights, several that may differ, or they have a format that is not read here.
    """
    if not path.exists():
        raise BundleError.of("missing-checkpoint", f"{path} does not exist", "name the weights' file or directory")
    if path.is_file():
        return _weights_file(path)
    if not path.is_dir():
        raise BundleError.of("no-weights", f"{path} is neither a file nor a directory", "name the weights themselves")
    directory = path if root is None else root
    candidates = _candidates(directory, notes)
    torch_files = [weights for weights in candidates if weights.format == "torch"]
    if len(torch_files) == 1 and {weights.format for weights in candidates} == {"torch", "dcp"}:
        # RLinf saves the same state twice. full_weights.pt is read because it is already gathered from the ranks.
        candidates = torch_files
        notes.append(f"{torch_files[0].files[0]} is read; the distributed checkpoint beside it holds the same weights")
    if len(candidates) > 1:
        listed = "\n".join(f"  {weights.files[0]} ({weights.size} bytes)" for weights in candidates)
        cause = f"{directory} holds several weights that may disagree:\n{listed}"
        raise BundleError.of("ambiguous-weights", cause, f"choose one, such as --weights {candidates[0].files[0]}")
    if not candidates:
        raise BundleError.of(*_no_weights(directory))
    return candidates[0]


def _weights_file(path: Path) -> Weights:
    if path.name == INDEX_FILE:
        return Weights("safetensors", tuple(weight_files(path.parent)))
    if path.name in _ADAPTERS:
        raise BundleError.of(*_adapter(path))
    if path.suffix == ".safetensors":
        return Weights("safetensors", (path,))
    if path.suffix in (".pt", ".pth"):
        return Weights("torch", (path,))
    if path.name == METADATA:
        return Weights("jax", jax_files(path.parent))
    if path.name == ".metadata" or path.suffix == ".distcp":
        return _dcp(path.parent)
    cause = f"{path} is neither *.safetensors, *.pt, *.pth nor a directory of DCP or orbax"
    raise BundleError.of("no-weights", cause, "name the file that holds the weights")


def _candidates(directory: Path, notes: list[str]) -> list[Weights]:
    """All weights in a checkpoint's directory; more than one entry means that they may differ."""
    for name in _ADAPTERS:
        if (directory / name).is_file():
            raise BundleError.of(*_adapter(directory / name))
    candidates = _safetensors(directory, notes)
    pickles = [directory / name for name in FULL_WEIGHTS]
    pickles += [
        file
        for file in sorted([*directory.glob("*.pt"), *directory.glob("*.pth")])
        if file.name not in _NOT_WEIGHTS and file not in pickles
    ]
    candidates += [Weights("torch", (file,)) for file in pickles if file.is_file()]
    if is_jax(directory):
        candidates.append(Weights("jax", jax_files(directory)))
    distributed = [directory / name for name in DCP]
    return candidates + [
        _dcp(place) for place in distributed if any(place.glob("*.distcp")) or (place / ".metadata").exists()
    ]


def _safetensors(directory: Path, notes: list[str]) -> list[Weights]:
    """The weights in safetensors files: one file, or shards with their index.

    Several files without an index count as one model if no tensor name is in two of them, as in RLinf's loader, which
    merges them. Otherwise each file is returned as weights of its own.
    """
    if (directory / INDEX_FILE).exists():
        return [Weights("safetensors", tuple(weight_files(directory)))]
    processors = {file for pattern in PROCESSOR_FILES for file in directory.glob(pattern)}
    files = [file for file in sorted(directory.glob("*.safetensors")) if file not in processors]
    if len(files) < 2:
        return [Weights("safetensors", (file,)) for file in files]
    _check_numbers(directory, files)
    names = Counter(name for file in files for name in read_header(file))
    if any(count > 1 for count in names.values()):
        return [Weights("safetensors", (file,)) for file in files]
    notes.append(f"{len(files)} safetensors files without an index are read as one model: they share no tensor")
    return [Weights("safetensors", tuple(files))]


def _check_numbers(directory: Path, files: list[Path]) -> None:
    """Raise BundleError if files are numbered as shards (``model-00001-of-00003``) and a number is missing."""
    for match in filter(None, (_SHARD.fullmatch(file.name) for file in files)):
        stem, _, count = match.groups()
        wanted = [f"{stem}-{number:05d}-of-{count}.safetensors" for number in range(1, min(int(count), 10_000) + 1)]
        missing = [name for name in wanted if directory / name not in files]
        if missing:
            cause = f"{directory / missing[0]} is missing: {match[0]} is one of {int(count)} shards"
            raise BundleError.of("weights-file-missing", cause, "copy the checkpoint again, complete")


def _dcp(directory: Path) -> Weights:
    files = sorted(directory.glob("*.distcp"))
    if not files or not (directory / ".metadata").is_file():
        cause = f"{directory} lacks {'its .distcp files' if files == [] else '.metadata'}"
        raise BundleError.of("weights-file-missing", cause, "copy the distributed checkpoint again, complete")
    return Weights("dcp", (directory / ".metadata", *files))


def _adapter(path: Path) -> tuple[str, str, str]:
    cause = f"{path} is an adapter of PEFT: differences from a base, not a model"
    cure = (
        "merge it into its base where it was trained, and name what that saves: "
        f"model = PeftModel.from_pretrained(base, '{path.parent}').merge_and_unload(); "
        "safetensors.torch.save_model(model, 'merged/model.safetensors')"
    )
    return "peft-adapter", cause, cure


def _no_weights(directory: Path) -> tuple[str, str, str]:
    """Code, cause and cure for a directory without weights, depending on what its subdirectories hold."""
    for folder in map(directory.joinpath, _CHECKPOINTS):
        entries = sorted(folder.iterdir()) if folder.is_dir() else []
        steps = [entry for entry in entries if entry.is_dir() and step_of(entry.name) is not None]
        if steps:
            one = len(steps) == 1
            cause = f"{folder} holds the checkpoint{'' if one else 's'} {', '.join(step.name for step in steps)}"
            return "several-checkpoints", cause, f"name {'it' if one else 'one of them'}: {steps[-1]}"
    cause = f"{directory} holds neither *.safetensors, full_weights.pt, a single *.pt, dcp_checkpoint/ nor params/"
    return "no-weights", cause, "name the directory of one checkpoint, or its weights: --weights FILE"
