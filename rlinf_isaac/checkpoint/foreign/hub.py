"""Checkpoints on the Hugging Face Hub: ``hf://org/name[/folder][@revision]``, downloaded by huggingface_hub's client.

Its cache, environment variables (HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE) and login work as in every other program. A
revision is a branch, a tag or a commit; the default is ``main``. The commit to which it resolves goes into the lineage.
Only files that are needed to read a checkpoint are downloaded: weights, their index and JSON, but no optimiser state.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from rlinf_isaac.ground.errors import BundleError

SCHEME = "hf://"
_URI = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<folder>[^@\s]+?))?/?(?:@(?P<revision>[^@\s]+))?", re.ASCII)
_KINDS = ("datasets", "spaces", "buckets", "models")
# Patterns of fnmatch, whose * also matches slashes. JAX's arrays have no suffix, so all of params/ is taken.
_KEPT = ("*.safetensors", "*.json", "*full_weights.pt", "params/*", "*/params/*")
_LEFT_OUT = ("*optimizer*", "*training_state/*", "*train_state/*")
_NETWORK = ("httpx", "httpx2", "httpcore", "requests", "urllib3")
_SPELLING = "write hf://org/name, hf://org/name/folder or either with @revision"


class Location(NamedTuple):
    """The parts of a URI.

    Attributes:
        repo: ``org/name``.
        folder: folder in the repository; empty for all of it.
        revision: branch, tag or commit; None for the default.
    """

    repo: str
    folder: str
    revision: str | None


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


def is_hub(source: str | Path) -> bool:
    """Whether a source is a URI of the hub, valid or not. A `Path` is accepted although it loses one of the slashes."""
    return str(source).lower().startswith("hf:")


def parse(uri: str | Path) -> Location:
    """The parts of a URI.

    Raises:
        BundleError: ``hub-uri``, it is not a valid URI of a model.
    """
    if isinstance(uri, Path):
        uri = SCHEME + str(uri).removeprefix("hf:/")
    match = _URI.fullmatch(uri)
    folder = (match["folder"] or "") if match else ""
    if match is None or {"", ".", ".."} & set(match["repo"].split("/") + (folder.split("/") if folder else [])):
        raise BundleError.of("hub-uri", f"{uri!a} names no model of the hub", _SPELLING)
    kind = match["repo"].partition("/")[0]
    if kind in _KINDS:
        cause = f"{uri!a} names {kind} of the hub, not an organisation and its model"
        raise BundleError.of("hub-uri", cause, _SPELLING)
    return Location(match["repo"], folder, match["revision"])


def fetch(uri: str | Path) -> Fetched:
    """Download a checkpoint, or find it in the cache if the hub is offline or does not answer.

    Raises:
        BundleError: the URI is not valid (``hub-uri``), huggingface_hub is not installed (``no-huggingface-hub``), the
            model or the revision does not exist (``hub-no-repo``, ``hub-no-revision``), the model requires a login
            (``hub-gated``), the hub cannot be reached and the model is not in the cache (``hub-unreachable``), or the
            model has no weights (``hub-no-weights``). Messages never contain a token.
    """
    location = parse(uri)
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        cause = f"{uri} is on the Hugging Face Hub, and huggingface_hub is not installed"
        raise BundleError.of("no-huggingface-hub", cause, "run pip install 'rlinf-isaac[hub]'") from error
    inside = f"{location.folder}/" if location.folder else ""
    patterns = [inside + pattern for pattern in _KEPT]
    try:
        snapshot_path = snapshot_download(
            location.repo, revision=location.revision, allow_patterns=patterns, ignore_patterns=list(_LEFT_OUT)
        )
    except Exception as error:
        raise _refusal(location, error) from error
    snapshot = Path(snapshot_path)
    path = snapshot / location.folder
    if not path.is_dir() or not any(entry.is_file() for entry in path.rglob("*")):
        where = f"{location.repo} at {snapshot.name}"
        cause = f"{where} has no weights" + (f" in {location.folder}/" if location.folder else "")
        cure = "name the model, and the folder in it, that has *.safetensors, full_weights.pt or params/"
        raise BundleError.of("hub-no-weights", cause, cure)
    return Fetched(path, snapshot.name, f"{SCHEME}{'/'.join(filter(None, location[:2]))}@{snapshot.name}")


def _refusal(location: Location, error: Exception) -> BundleError:
    """The error for an exception of huggingface_hub. An exception of an unknown kind is raised again."""
    from huggingface_hub import errors

    repo = f"{SCHEME}{location.repo}"
    login = "log in with an account that may read it: hf auth login, or set HF_TOKEN"
    match error:
        case errors.GatedRepoError():
            page = f"https://huggingface.co/{location.repo}"
            cure = f"accept its terms on {page}, then {login}"
            return BundleError.of("hub-gated", f"{repo} is gated: its owner wants to know who downloads it", cure)
        case errors.RevisionNotFoundError():
            cure = "name a branch, a tag or a commit of it, or leave @revision out for its main branch"
            return BundleError.of("hub-no-revision", f"{repo} has no revision {location.revision!a}", cure)
        case errors.RepositoryNotFoundError():
            cause = f"{repo} does not exist, or is private"
            return BundleError.of("hub-no-repo", cause, f"correct its name; if it is private, {login}")
        case errors.HFValidationError():
            return BundleError.of("hub-uri", f"{repo} is not a valid name of a model", _SPELLING)
        case errors.LocalEntryNotFoundError() | errors.OfflineModeIsEnabled():
            return _unreachable(repo, location, error)
        case errors.HfHubHTTPError():
            status = getattr(error.response, "status_code", None)
            if status in (401, 403):
                return BundleError.of("hub-gated", f"the hub refuses {repo} (HTTP {status})", login)
            return _unreachable(repo, location, error, f"the hub answers HTTP {status}")
    if type(error).__module__.partition(".")[0] in _NETWORK:
        return _unreachable(repo, location, error, type(error).__name__)
    raise error


def _unreachable(repo: str, location: Location, error: Exception, why: str = "") -> BundleError:
    from huggingface_hub import constants

    if not why:
        root = error.__cause__
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else type(root).__name__ if root else "no network"
    what = f"{repo}@{location.revision}" if location.revision else repo
    cause = f"{what} is not in the cache, or incomplete there, and the hub cannot be reached: {why}"
    cure = f"download it where there is a network: hf download {location.repo}"
    cure += f" --revision {location.revision}" if location.revision else ""
    return BundleError.of("hub-unreachable", cause, f"{cure}, and copy HF_HOME here; or name a directory that has it")
