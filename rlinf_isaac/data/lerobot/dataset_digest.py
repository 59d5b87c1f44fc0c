"""The digest of a dataset, and a cache of it that lies far from everything it hashes.

Hashing reads every byte, which takes a second per gigabyte; a preflight has less time than that. So the digest is kept
under ``~/.cache/rlinf-isaac/dataset-digests`` (``$XDG_CACHE_HOME/rlinf-isaac``, or ``$RLINF_ISAAC_CACHE``) together
with the size, times and inode of every file. It is believed as long as all of them are the same.

Trade-offs, as in git's index: a file that changes without changing its size, times or inode is not noticed; that takes
a deliberate hand, since nothing but a clock that is set back can restore a ctime. A file may also change twice within
one tick of the file system's clock; hence a digest is not kept when a file changed in the last `RACY_NS` before hashing
began (git calls such entries racy).
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from rlinf_isaac.ground.atomic import write_file
from rlinf_isaac.ground.cache import cache_directory
from rlinf_isaac.ground.digest import bytes_digest, json_digest, tree_digest
from rlinf_isaac.ground.errors import DatasetError

DIGESTED = ("meta", "data", "videos")  # what a dataset consists of; anything else in its directory is not hashed
RACY_NS = 2_000_000_000  # FAT keeps times in steps of 2 s; every other file system is finer
FORMAT = 1

FileStat = list[Any]  # relative name, size, mtime_ns, ctime_ns, inode: as it stands in JSON


def dataset_digest(root: str | Path) -> str:
    """sha256 over names and bytes of meta/, data/ and videos/: the same for every copy, whatever its times.

    Raises:
        DatasetError: a symbolic link inside the dataset leads to a directory above itself.
    """
    root = Path(os.path.abspath(root))
    paths = dataset_files(root)
    before, started = _file_stats(root, paths), time.time_ns()
    if digest := _cached(root, before):
        return digest
    digest = tree_digest(root, paths)
    if before == _file_stats(root, paths) and all(started - ctime > RACY_NS for _, _, _, ctime, _ in before):
        _keep(root, before, digest)
    return digest


def cached_dataset_digest(root: str | Path) -> str | None:
    """What `dataset_digest` would return if it is known, else None; no file of the dataset is opened."""
    root = Path(os.path.abspath(root))
    return _cached(root, _file_stats(root, dataset_files(root)))


def dataset_files(root: Path) -> list[Path]:
    """Every regular file of meta/, data/ and videos/, sorted. Links are followed: the hub's cache consists of them."""
    files = []
    linked: set[Path] = set()
    for part in DIGESTED:
        for directory, directories, names in os.walk(root / part, followlinks=True):
            for name in directories:
                link = Path(directory, name)
                if not link.is_symlink():
                    continue
                target = link.resolve()
                if target in linked or Path(directory).resolve().is_relative_to(target):
                    where = "that another link leads to" if target in linked else "above itself"
                    cause = f"{link} is a symbolic link to a directory {where}"
                    raise DatasetError.of("dataset-link-loop", cause, "remove the link")
                linked.add(target)
            files += [path for name in names if (path := Path(directory, name)).is_file()]
    return sorted(files)


def _file_stats(root: Path, paths: list[Path]) -> list[FileStat]:
    stats = []
    for path in paths:
        stat = os.stat(path)
        name = path.relative_to(root).as_posix()
        stats.append([name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino])
    return stats


def _cached(root: Path, files: list[FileStat]) -> str | None:
    """The kept digest, when `files` are as they were. Whatever is wrong with the cache, there is just none."""
    try:
        entry = json.loads(_cache_file(root).read_bytes())
        content = entry["content"]
        intact = entry["sha256"] == json_digest(content) and content["format"] == FORMAT
        return content["digest"] if intact and content["files"] == files and files else None
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):
        return None


def _keep(root: Path, files: list[FileStat], digest: str) -> None:
    """Best effort: a cache that cannot be written (read-only, no home, disk full) only costs time."""
    with suppress(OSError, RuntimeError, ValueError):
        path = _cache_file(root)
        if path.resolve().is_relative_to(root.resolve()):
            return
        content = {"format": FORMAT, "root": str(root), "files": files, "digest": digest}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps({"sha256": json_digest(content), "content": content}))


def _cache_file(root: Path) -> Path:
    """Where the digest of the dataset at the absolute path `root` is kept. RuntimeError if there is no home."""
    return cache_directory("dataset-digests") / f"{bytes_digest(os.fsencode(root))}.json"
