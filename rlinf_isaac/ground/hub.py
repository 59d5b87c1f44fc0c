"""The Hugging Face Hub: the URIs ``hf://org/name[@revision][/folder]``, and downloads by huggingface_hub's own client.

Its cache, environment variables (HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE) and login work as in every other program. A
revision is a branch, a tag or a commit; the default is ``main``. A slash in the name of a branch is written ``%2F``.
The hub is asked only for what a person names with ``hf://``. Where it does not answer, what the cache has of that
revision is used, and a warning says so; a download that was interrupted is not taken for a whole one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import unquote

from rlinf_isaac.ground.errors import BundleError, DatasetError, InvalidJob, Problem

RepoType = Literal["model", "dataset"]
SCHEME = "hf://"
_FOLDER = r"(?:/(?P<{name}>[^@\s]+?))?/?"
_URI = re.compile(
    r"hf://(?P<repo>[\w.-]+/[\w.-]+)"
    + _FOLDER.format(name="before")
    + r"(?:@(?P<revision>refs/(?:pr|convert)/[^@/\s]+|[^@/\s]+)"
    + _FOLDER.format(name="after")
    + ")?",
    re.ASCII,
)
_KINDS = ("datasets", "spaces", "buckets", "models", "kernels")
_NETWORK = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")
_SPELLING = "write hf://org/name, hf://org/name/folder, hf://org/name@revision or hf://org/name@revision/folder"
_COMMIT = re.compile("[0-9a-f]{40}")
_SNAPSHOT = re.compile(r"(?:models|datasets)--(?P<org>[^/]+?)--(?P<name>[^/]+)")

logger = logging.getLogger("rlinf_isaac")


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

    def at(self, commit: str) -> str:
        """The URI of the same place at one commit, under which it can be downloaded again."""
        return f"{SCHEME}{self.repo}@{commit}" + (f"/{self.folder}" if self.folder else "")


class Snapshot(NamedTuple):
    """Files of one revision that were downloaded.

    Attributes:
        path: their directory in the cache of huggingface_hub, which must not be changed.
        commit: the commit to which the revision resolved.
    """

    path: Path
    commit: str


def is_hub(source: str | Path) -> bool:
    """Whether a source is a URI of the hub, valid or not. A `Path` is accepted although it loses one of the slashes."""
    return str(source).lower().startswith("hf:")


def parse(uri: str | Path, repo_type: RepoType = "model") -> Location:
    """The parts of a URI. That of a dataset may also begin with ``hf://datasets/``, as `HfFileSystem` writes it.

    Raises:
        BundleError, DatasetError: ``hub-uri``, it is not a valid URI of a model or of a dataset.
    """
    text = SCHEME + str(uri).removeprefix("hf:/") if isinstance(uri, Path) else uri
    if repo_type == "dataset":
        text = text.replace(f"{SCHEME}datasets/", SCHEME, 1)
    match = _URI.fullmatch(text)
    folder = (match["before"] or match["after"] or "") if match else ""
    twice = match is not None and bool(match["before"]) and bool(match["after"])
    if match is None or twice or {"", ".", ".."} & {*match["repo"].split("/"), *(folder.split("/") if folder else [])}:
        raise _error(repo_type, Problem("hub-uri", f"{str(uri)!a} names no {repo_type} of the hub", _SPELLING))
    kind = match["repo"].partition("/")[0]
    if kind in _KINDS:
        cause = f"{str(uri)!a} names {kind} of the hub, not an organisation and its {repo_type}"
        raise _error(repo_type, Problem("hub-uri", cause, _SPELLING))
    return Location(match["repo"], folder, unquote(match["revision"]) if match["revision"] else None)


def download(
    location: Location, repo_type: RepoType = "model", patterns: Sequence[str] = ("*",), left_out: Sequence[str] = ()
) -> Snapshot:
    """Download the files of a place that match, or find them in the cache where the hub is offline or does not answer.

    Args:
        location: the repository, and the folder in it from which files are taken.
        repo_type: what the repository holds.
        patterns: of `fnmatch`, relative to the folder; their ``*`` also matches slashes.
        left_out: patterns of files that are not downloaded although they match.

    Raises:
        BundleError, DatasetError: huggingface_hub is not installed (``no-huggingface-hub``), the repository or the
            revision does not exist (``hub-no-repo``, ``hub-no-revision``), a login is required (``hub-gated``), or the
            hub cannot be reached and the cache does not have the files (``hub-unreachable``). Messages never contain a
            token.
    """
    require_client(location, repo_type)
    from huggingface_hub import snapshot_download

    inside = f"{location.folder}/" if location.folder else ""
    try:
        reason = _why_no_answer(location, repo_type)
        path = Path(
            snapshot_download(
                location.repo,
                repo_type=repo_type,
                revision=location.revision,
                allow_patterns=[inside + pattern for pattern in patterns],
                ignore_patterns=list(left_out) or None,
            )
        )
    except Exception as error:
        raise refusal(location, repo_type, error) from error
    if reason:
        place = f"{SCHEME}{location.repo}" + (f"@{location.revision}" if location.revision else "")
        logger.warning("%s: %s, so commit %s in the cache is used", place, reason, path.name[:12])
    return Snapshot(path, path.name)


def require_client(location: Location, repo_type: RepoType) -> None:
    """Check that huggingface_hub is installed.

    Raises:
        BundleError, DatasetError: ``no-huggingface-hub``.
    """
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        cause = f"{SCHEME}{location.repo} is on the Hugging Face Hub, and huggingface_hub is not installed"
        raise _error(repo_type, Problem("no-huggingface-hub", cause, "run pip install 'rlinf-isaac[hub]'")) from error


def uri_of(path: Path) -> str | None:
    """``hf://org/name@commit[/folder]`` of a directory in the cache of huggingface_hub; None for any other directory.

    The cache keeps a revision at ``<models or datasets>--<org>--<name>/snapshots/<commit>``.
    """
    parts = path.absolute().parts
    for index in range(1, len(parts) - 1):
        match = _SNAPSHOT.fullmatch(parts[index - 1])
        if match and parts[index] == "snapshots" and _COMMIT.fullmatch(parts[index + 1]):
            repo = f"{match['org']}/{match['name']}"
            return Location(repo, "/".join(parts[index + 2 :]), None).at(parts[index + 1])
    return None


def _why_no_answer(location: Location, repo_type: RepoType) -> str:
    """Why the revision can only come from the cache; empty where the hub answers, or a commit says all."""
    from huggingface_hub import HfApi, constants, errors

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    if location.revision is not None and _COMMIT.fullmatch(location.revision):
        return ""
    try:
        HfApi().repo_info(location.repo, repo_type=repo_type, revision=location.revision)
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None) or 0
        return f"the hub answers HTTP {status}" if status >= 500 else ""
    except Exception as error:
        if not _is_network(error):
            raise
        return f"the hub cannot be reached ({type(error).__name__})"
    return ""


def refusal(location: Location, repo_type: RepoType, error: Exception) -> InvalidJob:
    """The problem behind an exception of huggingface_hub. An exception of an unknown kind is raised again."""
    from huggingface_hub import errors

    repo = f"{SCHEME}{location.repo}"
    login = "log in with an account that may read it: hf auth login, or set HF_TOKEN"
    match error:
        case InvalidJob():
            return error
        case errors.GatedRepoError():
            page = f"https://huggingface.co/{'datasets/' * (repo_type == 'dataset')}{location.repo}"
            cure = f"accept its terms on {page}, then {login}"
            cause = f"{repo} is gated: its owner wants to know who downloads it"
            return _error(repo_type, Problem("hub-gated", cause, cure))
        case errors.RevisionNotFoundError():
            cure = "name a branch, a tag or a commit of it, or leave @revision out for its main branch"
            return _error(repo_type, Problem("hub-no-revision", f"{repo} has no revision {location.revision!a}", cure))
        case errors.RepositoryNotFoundError():
            cause = f"{repo} does not exist, or is private"
            if repo_type == "dataset":
                cause = f"there is no dataset {repo}, or it is private"
            return _error(repo_type, Problem("hub-no-repo", cause, f"correct its name; if it is private, {login}"))
        case errors.HFValidationError():
            return _error(repo_type, Problem("hub-uri", f"{repo} is not a valid name of a {repo_type}", _SPELLING))
        case errors.LocalEntryNotFoundError() | errors.OfflineModeIsEnabled():
            return _unreachable(repo, location, repo_type, error)
        case errors.HfHubHTTPError():
            status = getattr(error.response, "status_code", None)
            if status in (401, 403):
                return _error(repo_type, Problem("hub-gated", f"the hub refuses {repo} (HTTP {status})", login))
            return _unreachable(repo, location, repo_type, error, f"the hub answers HTTP {status}")
    if _is_network(error):
        return _unreachable(repo, location, repo_type, error, type(error).__name__)
    raise error


def _is_network(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] in _NETWORK


def _unreachable(repo: str, location: Location, repo_type: RepoType, error: Exception, why: str = "") -> InvalidJob:
    from huggingface_hub import constants

    if not why:
        root = error.__cause__
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else type(root).__name__ if root else "no network"
    what = f"{repo}@{location.revision}" if location.revision else repo
    cause = f"{what} is not in the cache, or incomplete there, and the hub cannot be reached: {why}"
    kind = "--repo-type dataset " * (repo_type == "dataset")
    cure = f"download it where there is a network: hf download {kind}{location.repo}"
    cure += f" --revision {location.revision}" if location.revision else ""
    return _error(
        repo_type, Problem("hub-unreachable", cause, f"{cure}, and copy HF_HOME here; or name a directory that has it")
    )


def _error(repo_type: RepoType, problem: Problem) -> InvalidJob:
    return (DatasetError if repo_type == "dataset" else BundleError)([problem])
