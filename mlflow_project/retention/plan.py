"""Which checkpoints may go, and why each of the others stays."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlflow_project.retention.claims import PARENT_LINKS, claims_of_store, waiting_files
from mlflow_project.retention.inventory import BESIDE, Inventory, Training
from mlflow_project.tracking.journal import read_header
from mlflow_project.tracking.redact import without_credentials
from mlflow_project.tracking.store import is_missing, tracking_uri, with_credentials
from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.removal import is_in_use, size_of
from rlinf_isaac.config.keep import Keep
from rlinf_isaac.engines.local.training.retention import Retention
from rlinf_isaac.ground import atomic
from rlinf_isaac.ground.errors import InvalidJob, Problem

Kind = Literal["checkpoint", "state", "result", "leftover"]


@dataclass(frozen=True)
class Item:
    """Something that lies there.

    Attributes:
        kind: what it is.
        path: where it is; a checkpoint has more beside it that belongs to its step.
        size: bytes, with all that belongs to it.
        modified: when it was written, in unix seconds.
        stays: whether it stays.
        why: the reason.
        bundle: the checkpoint.
        training: the directory of its training.
    """

    kind: Kind
    path: Path
    size: int
    modified: float
    stays: bool
    why: str
    bundle: Bundle | None = None
    training: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        step, digest = (self.bundle.step, self.bundle.digest) if self.bundle else (None, None)
        return {
            "kind": self.kind,
            "path": str(self.path),
            "step": step,
            "sha256": digest,
            "bytes": self.size,
            "age_s": round(max(0.0, time.time() - self.modified)),
            "stays": self.stays,
            "why": self.why,
        }


def stores_of(inventory: Inventory) -> list[str]:
    """The stores that can know of these checkpoints: that of this process, and those of the journals."""
    uris = [tracking_uri()]
    for journal in inventory.journals:
        uris.append(with_credentials(read_header(journal)[0].tracking_uri))
    return list(dict.fromkeys(uris))


def ask_stores(uris: Sequence[str], bundles: Sequence[Bundle]) -> tuple[dict[str, str], list[Problem]]:
    """Digest -> why a store needs the checkpoint; and the stores that do not answer."""
    found: dict[str, str] = {}
    problems = []
    for uri in uris:
        try:
            found |= _ask(uri, bundles)
        except Exception as error:  # of any kind: what cannot be asked cannot be relied on
            name = without_credentials(uri)
            reason = str(error).strip().partition("\n")[0][:200]
            cause = f"the MLflow store {name} does not say which checkpoints are registered there: {reason}"
            cure = (
                "set MLFLOW_TRACKING_URI, start its server, or pass --without-store if nothing in it matters any more"
            )
            problems.append(Problem("clean-without-store", cause, cure))
    return found, problems


def plan(inventory: Inventory, keep: Keep, claims: Mapping[str, str]) -> list[Item]:
    """All that lies there, and whether it stays.

    Args:
        keep: which checkpoints of each training stay in any case.
        claims: digest -> why a store needs the checkpoint.
    """
    parents = _parents(inventory.bundles)
    waiting = [file for journal in inventory.journals for file in waiting_files(journal)]
    items = []
    for training in inventory.trainings:
        scores = training.scores(inventory.evaluations) if keep.best or training.is_rl else {}
        kept = keep.kept(training.bundles, scores)
        busy = _is_busy(training.path)
        for step, bundle in training.bundles.items():
            why = (
                ("a process works in the directory of its training" if busy else "")
                or ("a process works with it" if is_in_use(bundle.path) else "")
                or claims.get(bundle.digest, "")
                or parents.get(bundle.digest, "")
                or ("it is the newest of its training" if step == max(training.bundles) else "")
                or ("it is the result of its training" if step == _result(training, scores) else "")
                or ("it is not uploaded yet" if _is_among(bundle, waiting) else "")
                or (f"--keep {kept[step]}" if step in kept else "")
                or ("nothing says which is the best" if keep.best and not scores else "")
            )
            items.append(_checkpoint(training, bundle, why))
        for path in training.broken:
            items.append(_item("checkpoint", path, True, "it is no whole checkpoint: look at it"))
    items += [_item("checkpoint", each.path, True, "no training has left it here") for each in inventory.others]
    items += [_item("state", path, True, "its training goes on with it") for path in inventory.states]
    items += [_item("result", path, True, "episodes are what a success rate rests on") for path in inventory.results]
    items += [_item("leftover", path, False, "a process that was killed has left it") for path in inventory.leftovers]
    return items


def carry_out(items: Sequence[Item]) -> list[Item]:
    """Remove what does not stay, and return it. A training that has started meanwhile keeps its checkpoints."""
    done = []
    for item in items:
        if item.stays:
            continue
        if item.kind == "leftover":
            atomic.discard_orphan(item.path)
            done.append(item)
            continue
        assert item.bundle is not None
        assert item.training is not None
        try:
            with atomic.locked(item.training):
                if list(Retention(item.training, BESIDE, None).remove(item.bundle)):
                    done.append(item)
        except InvalidJob:  # a process has begun to work there
            continue
    return done


def _ask(uri: str, bundles: Sequence[Bundle]) -> dict[str, str]:
    from mlflow_project.tracking.mlflow_environment import prepare_environment

    if is_missing(uri):
        raise FileNotFoundError("there is no such database")
    prepare_environment()
    from mlflow import MlflowClient

    return claims_of_store(MlflowClient(uri), bundles)


def _parents(bundles: Sequence[Bundle]) -> dict[str, str]:
    """Digest -> which checkpoint on disk was trained from it."""
    links = ((bundle.lineage.get(link), bundle) for bundle in bundles for link in PARENT_LINKS)
    return {digest: f"{bundle.path} was trained from it" for digest, bundle in links if digest}


def _is_busy(training: Path) -> bool:
    """Whether a process holds the lock of the directory. Asking for it with `atomic.locked` would make a file."""
    try:
        with open(training / ".lock") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _result(training: Training, scores: Mapping[int, float]) -> int | None:
    best = Keep(best=1).kept(training.bundles, scores) if training.is_rl else {}
    return next(iter(best), None)


def _is_among(bundle: Bundle, files: Sequence[Path]) -> bool:
    return any(file.is_relative_to(bundle.path.absolute()) for file in files)


def _checkpoint(training: Training, bundle: Bundle, why: str) -> Item:
    modified = bundle.path.stat().st_mtime
    size = training.size(bundle.step)
    said = why or "no --keep holds it"
    return Item("checkpoint", bundle.path, size, modified, bool(why), said, bundle, training.path)


def _item(kind: Kind, path: Path, stays: bool, why: str) -> Item:
    size = size_of(path) if path.is_dir() else path.lstat().st_size
    return Item(kind, path, size, path.lstat().st_mtime, stays, why)
