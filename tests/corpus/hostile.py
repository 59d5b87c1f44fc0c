"""Checkpoints as an attacker would make them. `break_it` edits a directory that holds a valid checkpoint of every form.

Nothing in them may be executed: what they would do, given the chance, is to make the file `CANARY`. No error may be
anything but one problem, and nothing may take more memory or time than a small file deserves.
"""

from __future__ import annotations

import io
import os
import pickle
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus.case import Case

CANARY = "canary"
SECRET = "secret.txt"
ZIP, LEGACY, SAFETENSORS, SHARDS, DCP = "model.pt", "legacy.pt", "single/model.safetensors", "shards", "dcp"
OUTPUT = "out/converted"
INDEX = "shards/model.safetensors.index.json"


@dataclass(frozen=True)
class Hostile(Case):
    """A case whose fault lies in one of the checkpoints of the directory.

    Attributes:
        source: the checkpoint to convert, relative to the directory.
        armed: plain unpickling of the source, from where a pickle begins in it, would make the canary.
    """

    source: str = ZIP
    armed: bool = False


class Bomb:
    """Pickled as a call that makes the canary in the working directory."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (CANARY,)


def make_twins(root: Path) -> None:
    """The same few tensors in every form, and a file beside them that is nobody's business. The output's parent too."""
    import torch
    import torch.distributed.checkpoint as dcp
    from huggingface_hub import save_torch_state_dict
    from safetensors.torch import save_file

    tensors = {f"layers.{layer}.weight": torch.full((16, 16), float(layer)) for layer in range(3)}
    torch.save(tensors, root / ZIP)
    torch.save(tensors, root / LEGACY, _use_new_zipfile_serialization=False)
    for directory in ("single", SHARDS, "out"):
        (root / directory).mkdir()
    save_file(tensors, root / SAFETENSORS)
    save_torch_state_dict(tensors, root / SHARDS, max_shard_size=1100)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is", category=UserWarning)
        dcp.save({"model": tensors}, storage_writer=dcp.FileSystemWriter(root / DCP), no_dist=True)
    (root / SECRET).write_text("not yours")


def saved(root: Path, value: Any, name: str = ZIP) -> None:
    """Write `value` by ``torch.save``."""
    import torch

    torch.save(value, root / name, _use_new_zipfile_serialization=name != LEGACY)


def _directory_for(name: str) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        (root / name).unlink()
        (root / name).mkdir()

    return edit


def _fifo(name: str) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        (root / name).unlink()
        os.mkfifo(root / name)

    return edit


def _metadata(edit: Callable[[Any], object]) -> Callable[[Path], None]:
    """Edit the metadata of the distributed checkpoint."""

    def apply(root: Path) -> None:
        metadata = pickle.loads((root / DCP / ".metadata").read_bytes())
        edit(metadata)
        (root / DCP / ".metadata").write_bytes(pickle.dumps(metadata))

    return apply


def _place(**changes: Any) -> Callable[[Path], None]:
    """Say of one tensor that it lies elsewhere."""

    def edit(metadata: Any) -> None:
        place = metadata.storage_data[min(metadata.storage_data, key=lambda index: index.fqn)]
        for name, value in changes.items():
            setattr(place, name, value)

    return _metadata(edit)


def _armed_part(root: Path) -> None:
    payload = io.BytesIO()
    import torch

    torch.save(Bomb(), payload)
    (root / DCP / "__9_9.distcp").write_bytes(payload.getvalue())
    _place(relative_path="__9_9.distcp", offset=0, length=len(payload.getvalue()))(root)


def _overlapping_parts(metadata: Any) -> None:
    entry = metadata.state_dict_metadata[min(metadata.state_dict_metadata)]
    entry.chunks = entry.chunks * 2


def _huge_part(metadata: Any) -> None:
    import torch

    entry = metadata.state_dict_metadata[min(metadata.state_dict_metadata)]
    entry.size = entry.chunks[0].sizes = torch.Size([2**40, 2**20])


def _output_link(target: str) -> Callable[[Path], None]:
    return lambda root: (root / OUTPUT).symlink_to(root / target)


def _output_below_a_file(root: Path) -> None:
    shutil.rmtree(root / "out")
    (root / "out").write_text("")


DISTRIBUTED = [
    Hostile(
        "metadata that run code",
        "unsafe-pickle",
        lambda root: (root / DCP / ".metadata").write_bytes(pickle.dumps(Bomb())) and None,
        DCP,
        armed=True,
    ),
    Hostile(
        "metadata with a pickled extra that runs code",
        "unsafe-pickle",
        _metadata(lambda metadata: setattr(metadata, "planner_data", Bomb())),
        DCP,
        armed=True,
    ),
    Hostile("a part that runs code", "unsafe-pickle", _armed_part, DCP),
    Hostile("a part above the directory", "damaged-dcp", _place(relative_path="../model.pt", offset=0), DCP),
    Hostile("a part elsewhere", "damaged-dcp", _place(relative_path="/etc/passwd", offset=0, length=100), DCP),
    Hostile("a part before the file", "damaged-dcp", _place(offset=-1), DCP),
    Hostile("a part behind the file", "damaged-torch-file", _place(offset=2**62), DCP),
    Hostile("parts that overlap", "damaged-dcp", _metadata(_overlapping_parts), DCP),
    Hostile("a part larger than all disks", "damaged-dcp", _metadata(_huge_part), DCP),
]

PLACES = [
    Hostile("a directory named like a torch file", "no-weights", _directory_for(ZIP)),
    Hostile("a directory named like a safetensors file", "weights-unreadable", _directory_for(SAFETENSORS), "single"),
    Hostile("a pipe named like a torch file", "no-weights", _fifo(ZIP)),
    Hostile("a pipe named like a safetensors file", "no-weights", _fifo(SAFETENSORS), SAFETENSORS),
    Hostile("an output that is a link", "output-symlink", _output_link("single")),
    Hostile("an output that is a link to nothing", "output-symlink", _output_link("nothing")),
    Hostile("an output that is a file", "output-is-a-file", lambda root: (root / OUTPUT).write_text("mine") and None),
    Hostile("an output below a file", "output-place", _output_below_a_file),
]
