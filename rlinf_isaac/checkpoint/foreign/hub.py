"""Checkpoints on the Hugging Face Hub (`rlinf_isaac.ground.hub`): bundles that `push` uploaded, and anybody's weights.

Only files that are needed to read a checkpoint are downloaded: weights, their index and JSON, but no optimiser state.
The commit to which a revision resolves goes into the lineage.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rlinf_isaac.ground.errors import BundleError
from rlinf_isaac.ground.hub import Location as Location
from rlinf_isaac.ground.hub import download, parse
from rlinf_isaac.ground.hub import is_hub as is_hub

# Patterns of fnmatch, whose * also matches slashes. JAX's arrays have no suffix, so all of params/ is taken.
_KEPT = ("*.safetensors", "*.json", "*full_weights.pt", "params/*", "*/params/*")
_LEFT_OUT = ("*optimizer*", "*training_state/*", "*train_state/*")


class Fetched(NamedTuple):
    """A checkpoint that was downloaded from the hub.

    Attributes:
        path: its directory in the cache of huggingface_hub, which must not be changed.
        revision: its commit.
        uri: its URI with that commit, under which it can be downloaded again.
    """

    path: Path
    revision: str
    uri: str


def fetch(uri: str | Path) -> Fetched:
    """Download a checkpoint, or find it in the cache if the hub is offline or does not answer.

    Raises:
        BundleError: as `rlinf_isaac.ground.hub.download`; the URI is not valid (``hub-uri``), or the model has no
            weights (``hub-no-weights``).
    """
    location = parse(uri)
    snapshot, commit = download(location, "model", _KEPT, _LEFT_OUT)
    path = snapshot / location.folder
    if not path.is_dir() or not any(entry.is_file() for entry in path.rglob("*")):
        where = f"{location.repo} at {commit}"
        cause = f"{where} has no weights" + (f" in {location.folder}/" if location.folder else "")
        cure = "name the model, and the folder in it, that has *.safetensors, full_weights.pt or params/"
        raise BundleError.of("hub-no-weights", cause, cure)
    return Fetched(path, commit, location.at(commit))
