"""What can be learnt of a foreign training's data and checkpoints, from their files alone. What cannot be is None."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_project.lineage.provenance import DatasetInput
from rlinf_isaac.data.lerobot.dataset_digest import cached_dataset_digest, dataset_digest, dataset_files
from rlinf_isaac.ground.digest import file_digest, tree_digest
from rlinf_isaac.ground.errors import RlinfIsaacError

WEIGHTS = ("*.safetensors", "full_weights.pt", "pytorch_model.bin")
INFO_FILE = Path("meta/info.json")


@dataclass(frozen=True)
class Weights:
    """The weights of a checkpoint.

    Attributes:
        names: of the files, relative to the checkpoint.
        sha256: of the file, or over names and digests of several; None where they are larger than the limit.
        size: bytes.
    """

    names: tuple[str, ...]
    sha256: str | None
    size: int


def find_weights(checkpoint: Path, limit_gb: float) -> Weights | None:
    """Find and read the weights of a checkpoint of lerobot, OpenPI (torch or JAX) or RLinf. None where it has none that
    are known.

    Raises:
        OSError: they were removed meanwhile.
    """
    files = _parameter_files(checkpoint)
    if not files:
        return None
    size = sum(file.stat().st_size for file in files)
    names = tuple(file.relative_to(checkpoint).as_posix() for file in files)
    if size > limit_gb * 1e9:
        return Weights(names, None, size)
    return Weights(names, file_digest(files[0]) if len(files) == 1 else tree_digest(checkpoint, files), size)


def _parameter_files(checkpoint: Path) -> list[Path]:
    params = checkpoint / "params"
    if params.is_dir():  # of orbax
        return sorted(file for file in params.rglob("*") if file.is_file())
    for pattern in WEIGHTS:
        # State of lerobot's processors is safetensors as well.
        if found := sorted(file for file in checkpoint.rglob(pattern) if "processor" not in file.name):
            outer = [file for file in found if "training_state" not in file.parts]
            return outer or found
    return []


def find_norm_stats_of(checkpoint: Path) -> tuple[Path, str] | None:
    """(file, sha256) of the norm stats of a checkpoint; None where there are none, where several differ, or where this
    interpreter lacks numpy to read them. Those of lerobot's policies that are no pi0 are a file of their processor."""
    policy = checkpoint / "pretrained_model"
    root = policy if policy.is_dir() else checkpoint
    try:
        from rlinf_isaac.checkpoint.foreign.find_norm_stats import find_norm_stats

        found = find_norm_stats(root)
        return found.path, found.sha256
    except (ImportError, OSError, ValueError, RlinfIsaacError):
        own = sorted(root.glob("policy_preprocessor*normalizer*.safetensors"))
        return (own[0], file_digest(own[0])) if len(own) == 1 else None


def lerobot_input(root: Path, name: str, limit_gb: float, revision: str | None = None) -> DatasetInput | None:
    """The LeRobot dataset at `root` with the digest of its files; None where it is not there or larger than the limit.

    Raises:
        OSError, RlinfIsaacError: its files cannot be read.
    """
    if not (root / INFO_FILE).is_file():
        return None
    digest = cached_dataset_digest(root)
    if digest is None:
        if sum(file.stat().st_size for file in dataset_files(root)) > limit_gb * 1e9:
            return None
        digest = dataset_digest(root)
    info: Mapping[str, Any] = json.loads((root / INFO_FILE).read_text(encoding="utf-8"))
    source = {"root": str(root.absolute()), "sha256": digest, "repo_id": name, "revision": revision}
    sizes = {key: info.get(f"total_{key}") for key in ("episodes", "frames", "tasks")} | {"fps": info.get("fps")}
    return DatasetInput(name, digest, "training", "lerobot", source, sizes)


def bundle_command(checkpoint: Path, *, with_stats: bool) -> str:
    """The command that makes a bundle of a checkpoint; a name is left open where no norm stats would be found."""
    words = ["rlinf-isaac", "bundle", "make", str(checkpoint)]
    return shlex.join(words) if with_stats else f"{shlex.join(words)} --norm-stats FILE"


def lerobot_eval_command(checkpoint: Path) -> str:
    """The command that evaluates a policy of lerobot that is no pi0."""
    return f"{shlex.join(['lerobot-eval', f'--policy.path={checkpoint}'])} --env.type=ENV"


def first_of(places: Sequence[Path]) -> Path | None:
    """The first of some files that exists."""
    return next((place for place in places if place.is_file()), None)
