"""Uploads the files of a bundle and its card to the Hugging Face Hub, in one commit, by huggingface_hub's client.

Large files go up one by one before the commit; the Hub keeps each, so a push that was interrupted resumes with the
first one that is missing, and until the commit nobody sees a part of it. Tokens are the client's business: none is
printed or recorded here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.manifest import MANIFEST_FILE
from rlinf_isaac.ground.errors import InvalidJob, Problem
from rlinf_isaac.ground.hub import SCHEME, Location, refusal, require_client

CARD = "README.md"
LOGIN = "log in with a token that may write: hf auth login, or set HF_TOKEN"
MAIN = "main"
TRAINING_STATE = "training_state"
_OURS = (".safetensors", ".json")
_KEPT_BY_HUB = (".gitattributes", CARD)


@dataclass(frozen=True)
class Target:
    """Where a checkpoint is uploaded.

    Attributes:
        location: repository, and the branch as its revision; None for ``main``.
        exists: whether the repository is there already.
        held: files that its branch has now; empty if the branch does not exist.
        user: the account that uploads.
    """

    location: Location
    exists: bool
    held: tuple[str, ...]
    user: str

    @property
    def branch(self) -> str:
        """The branch that gets the commit."""
        return self.location.revision or MAIN


def files_of(bundle: Bundle, states: Path | None = None) -> dict[str, Path]:
    """Name in the repository -> file on disk: every file of the manifest, and nothing else that lies there.

    `states` is a directory of training states; with it, the optimiser's state of the step goes along.
    """
    files = {name: bundle.path / name for name in (*sorted(bundle.manifest.files), MANIFEST_FILE)}
    if states is not None:
        for file in sorted(states.rglob("*")):
            if file.is_file():
                files[f"{TRAINING_STATE}/{file.relative_to(states).as_posix()}"] = file
    return files


def check_target(location: Location) -> Target:
    """Ask the Hub who is logged in, whether that account may write there, and what is there. Changes nothing.

    Raises:
        InvalidJob: with one problem: ``no-hub-token``, ``hub-read-only``, ``hub-no-rights``, ``hub-occupied`` (the
            branch holds something that `push` did not make), or the Hub does not answer.
        BundleError: as `rlinf_isaac.ground.hub.download`.
    """
    require_client(location, "model")
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import RepositoryNotFoundError

    repo = f"{SCHEME}{location.repo}"
    if constants.HF_HUB_OFFLINE:
        cause = f"HF_HUB_OFFLINE is set, so nothing can be uploaded to {repo}"
        raise InvalidJob.of("hub-offline", cause, "unset it where there is a network; --dry-run shows the card")
    if not get_token():
        raise InvalidJob.of("no-hub-token", f"nobody is logged in to the hub that has {repo}", LOGIN)
    api = HfApi()
    try:
        account = api.whoami()
    except Exception as error:
        raise _of_account(location, error) from error
    user = str(account.get("name"))
    _check_rights(location, account)
    held: tuple[str, ...] = ()
    try:
        branches = {each.name for each in api.list_repo_refs(location.repo).branches}
    except RepositoryNotFoundError:
        return Target(location, False, (), user)
    except Exception as error:
        raise refusal(location, "model", error) from error
    target = Target(location, True, (), user)
    if target.branch in branches:
        try:
            held = tuple(api.list_repo_files(location.repo, revision=target.branch))
        except Exception as error:
            raise refusal(location, "model", error) from error
    if set(held) - {*_KEPT_BY_HUB} and MANIFEST_FILE not in held:
        cause = f"{repo} has {len(held)} files on {target.branch}, and none of them is a {MANIFEST_FILE} of `push`"
        raise InvalidJob.of("hub-occupied", cause, "choose another name, or another branch with --revision")
    return Target(location, True, held, user)


def upload(
    bundle: Bundle,
    card: str,
    target: Target,
    *,
    private: bool,
    states: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Upload the files and the card in one commit; returns the commit.

    Files of an earlier push that the new one does not have are removed by the same commit, so that the branch is always
    one whole bundle. A branch that has exactly these files already gets no commit.

    Args:
        bundle: the checkpoint.
        card: the text of ``README.md``.
        target: as `check_target` found it.
        private: whether a repository that is created is private; an existing one stays as it is.
        states: directory of training states to upload as well; None uploads none.
        progress: gets the bytes that are done, and all of them, after each file; without it the client shows its own
            bars, which suits a terminal only.

    Raises:
        InvalidJob: the Hub refuses the upload.
        BundleError: it does not answer any more.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.utils import disable_progress_bars

    if progress is not None:
        disable_progress_bars()
    api, repo, branch = HfApi(), target.location.repo, target.branch
    files = files_of(bundle, states)
    sizes = {name: file.stat().st_size for name, file in files.items()}
    total, done = sum(sizes.values()), 0
    try:
        if not target.exists:
            api.create_repo(repo, private=private, exist_ok=True)
        if branch != MAIN:
            api.create_branch(repo, branch=branch, exist_ok=True)
        operations: list[Any] = []
        if progress is not None:
            progress(0, total)
        for name, file in files.items():
            addition = CommitOperationAdd(name, str(file))
            api.preupload_lfs_files(repo, [addition], revision=branch)
            operations.append(addition)
            done += sizes[name]
            if progress is not None:
                progress(done, total)
        operations.append(CommitOperationAdd(CARD, card.encode()))
        stale = [name for name in target.held if name not in {*files, *_KEPT_BY_HUB} and name.endswith(_OURS)]
        operations += [CommitOperationDelete(name) for name in stale]
        info = api.create_commit(repo, operations, commit_message=_message(bundle), revision=branch)
    except Exception as error:
        raise _of_upload(target, error) from error
    return info.oid


def _message(bundle: Bundle) -> str:
    return f"Checkpoint of step {bundle.step}, sha256 {bundle.digest[:16]}"


def _check_rights(location: Location, account: dict[str, Any]) -> None:
    """Compare what the account and its token say of themselves with what an upload needs."""
    owner = location.repo.partition("/")[0]
    user, token = account.get("name"), (account.get("auth") or {}).get("accessToken") or {}
    if token.get("role") == "read":
        cause = f"the token of {user} may only read, so nothing can be uploaded to {SCHEME}{location.repo}"
        raise InvalidJob.of("hub-read-only", cause, LOGIN)
    organisations = {each.get("name"): each.get("roleInOrg") for each in account.get("orgs") or ()}
    if owner not in {user, *organisations} or organisations.get(owner) == "read":
        theirs = ", ".join(map(str, [user, *organisations]))
        cause = f"{user} may not write to {owner}; the account and its organisations: {theirs}"
        raise InvalidJob.of("hub-no-rights", cause, f"push to {SCHEME}{user}/NAME, or ask an admin of {owner}")


def _of_account(location: Location, error: Exception) -> InvalidJob:
    if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
        cause = f"the hub does not accept the token with which {SCHEME}{location.repo} would be written"
        return InvalidJob([Problem("no-hub-token", cause, LOGIN)])
    return refusal(location, "model", error)


def _of_upload(target: Target, error: Exception) -> Exception:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        cause = f"the hub refuses {target.user} the upload to {SCHEME}{target.location.repo} (HTTP {status})"
        return InvalidJob([Problem("hub-no-rights", cause, LOGIN)])
    return refusal(target.location, "model", error)
