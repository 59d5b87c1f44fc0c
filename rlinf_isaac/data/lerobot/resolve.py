"""Finds the directory of a LeRobot dataset. Only reads the file system: never contacts the hub, never creates files.

LeRobot itself looks at ``HF_LEROBOT_HOME/<repo_id>``. If the home is by mistake the dataset's own directory, LeRobot
does not find ``meta/info.json``, asks the hub, and leaves an empty ``<home>/<repo_id>/`` inside the dataset. Here each
of the three ways to name a dataset leads to a `DatasetLocation`; otherwise the error lists the searched places.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rlinf_isaac.ground.errors import DatasetError

INFO_FILE = Path("meta") / "info.json"
_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class DatasetLocation:
    """A dataset on disk.

    Attributes:
        home: the value of ``HF_LEROBOT_HOME`` with which LeRobot finds it (absolute).
        repo_id: its name relative to `home`, for instance ``RLinf/IsaacLab-Stack-Cube-Data``.
        root: ``home / repo_id``, the directory that holds ``meta/info.json`` (absolute).
    """

    home: Path
    repo_id: str
    root: Path

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables with which a child process finds the dataset under `repo_id` and never asks the hub."""
        return {"HF_LEROBOT_HOME": str(self.home), "HF_HUB_OFFLINE": "1"}


def lerobot_home() -> Path:
    """LeRobot's default home: ``HF_LEROBOT_HOME``, else ``HF_HOME/lerobot``, else ``~/.cache/huggingface/lerobot``."""
    if home := os.environ.get("HF_LEROBOT_HOME"):
        return Path(home).expanduser()
    hf_home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    return Path(hf_home).expanduser() / "lerobot"


def resolve_dataset(name: str | Path, repo_id: str | None = None) -> DatasetLocation:
    """Find the dataset that `name` (and `repo_id`) mean. Symbolic links are followed, but stay in the returned paths.

    Args:
        name: the dataset's own directory (which takes precedence over `repo_id`, as in RLinf); or its home, if
            `repo_id` is given; or a repo id under `lerobot_home`. Absolute or relative to the working directory.
        repo_id: name of the dataset under the home `name`.

    Raises:
        DatasetError: no candidate has ``meta/info.json``; the message lists all candidates.
    """
    if repo_id is not None:
        _check_repo_id(repo_id)
    if not str(name):
        raise DatasetError.of("dataset-name-empty", "the dataset name is empty", "give a directory or a repo id")
    path = Path(os.path.expanduser(name))  # leaves an unknown ~user as it is
    local = Path(os.path.abspath(path))
    candidates = [_leaf(local, repo_id), *([_under(local, repo_id)] if repo_id else [])]
    if repo_id is None and not path.is_absolute() and ".." not in path.parts:
        candidates.append(_under(Path(os.path.abspath(lerobot_home())), path.as_posix()))
    for candidate in candidates:
        if _has_info(candidate.root):
            return candidate
    for candidate in candidates:
        _explain(candidate.root)
    raise _not_found(name, candidates)


def _leaf(root: Path, repo_id: str | None) -> DatasetLocation:
    """The location for a dataset's own directory. If `root` ends in `repo_id`, home is the part before it."""
    if repo_id and root.parts[-len(Path(repo_id).parts) :] == Path(repo_id).parts:
        return DatasetLocation(root.parents[len(Path(repo_id).parts) - 1], repo_id, root)
    return DatasetLocation(root.parent, root.name, root)


def _under(home: Path, repo_id: str) -> DatasetLocation:
    return DatasetLocation(home, repo_id, home / repo_id)


def _check_repo_id(repo_id: str) -> None:
    path = Path(repo_id)
    if not repo_id or path.is_absolute() or ".." in path.parts:
        cause = f"repo id {repo_id!r} is not a name relative to a home"
        raise DatasetError.of("repo-id", cause, "give a name such as 'owner/name', and the home as the dataset")


def _has_info(root: Path) -> bool:
    """Whether `root` holds a dataset. Raises DatasetError if that cannot be determined."""
    try:
        return stat.S_ISREG(os.stat(root / INFO_FILE).st_mode)
    except PermissionError as error:
        cause = f"{root} or something in it cannot be read: permission denied"
        raise DatasetError.of("dataset-unreadable", cause, "change its permissions, or run as its owner") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            cause = f"{root / INFO_FILE} cannot be reached: its symbolic links form a loop"
            raise DatasetError.of("dataset-link-loop", cause, "make the link point to the dataset") from error
        return False
    except ValueError as error:
        raise DatasetError.of("dataset-name", f"{str(root)!r} is not a path ({error})", "correct the name") from error


def _explain(root: Path) -> None:
    """Raise an error for a path that exists but is not a dataset. Return if the path does not exist."""
    link = next((path for path in (root, *root.parents) if path.is_symlink() and not path.exists()), None)
    if link is not None:
        cause = f"{link} is a symbolic link to {os.readlink(link)}, which does not exist"
        raise DatasetError.of("dataset-link-dangling", cause, "mount or restore its target, or correct the link")
    if root.exists() and not root.is_dir():
        raise DatasetError.of("dataset-is-file", f"{root} is a file", "name the directory that holds meta/")
    if snapshots := sorted((root / "snapshots").glob("*/meta/info.json")):
        newest = max(snapshots, key=lambda path: path.parent.parent.stat().st_mtime).parent.parent
        cause = f"{root} is the hub's cache of a dataset, not the dataset itself"
        raise DatasetError.of("dataset-hub-cache", cause, f"name its snapshot {newest}")
    if (root / "meta").is_dir() or any((root / "data").glob("chunk-*")):
        cause = f"{root / INFO_FILE} is missing"
        raise DatasetError.of("meta-missing", cause, "restore the dataset from where it was copied or recorded")


def _not_found(name: str | Path, candidates: list[DatasetLocation]) -> DatasetError:
    """The error with the searched places and, as a cure, datasets below them or with a similar name beside them."""
    lines = [f"no LeRobot dataset {str(name)!r}: {INFO_FILE.as_posix()} is in none of"]
    lines += [
        f"  {candidate.root}{'' if candidate.root.is_dir() else ' (no such directory)'}" for candidate in candidates
    ]
    below = sorted(path.parent.parent.name for path in candidates[0].root.glob("*/meta/info.json"))
    if below:
        lines.append(f"{candidates[0].root} is the parent of {', '.join(below[:5])}")
        cure = "name one of them, or pass its repo id"
    elif near := next(filter(None, map(_near, candidates)), None):
        cure = f"did you mean {near}?"
    else:
        cure = "give the directory that holds meta/, or its parent and the repo id, or set HF_LEROBOT_HOME"
        if _REPO_ID.fullmatch(str(name)):
            place = lerobot_home() / str(name)
            cure += f"; to get it from the hub: hf download --repo-type dataset {name} --local-dir {place}"
    return DatasetError.of("dataset-not-found", "\n".join(lines), cure)


def _near(candidate: DatasetLocation) -> Path | None:
    """The dataset in the same directory whose name is most similar to the candidate's; None if none is similar."""
    beside = [path.parent.parent.name for path in candidate.root.parent.glob("*/meta/info.json")]
    return most_like(candidate.root, beside)


def most_like(path: Path, names: Iterable[str]) -> Path | None:
    """The path in the directory of `path` whose name, one of `names`, is most similar; None if none is similar."""
    near = difflib.get_close_matches(path.name, list(names), n=1)
    return path.parent / near[0] if near else None
