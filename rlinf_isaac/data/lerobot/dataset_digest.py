"""The digest of a dataset, and a cache of digests outside the datasets.

Hashing reads every byte, which takes a second per gigabyte and is too slow for a preflight. So the digest is cached
under ``~/.cache/rlinf-isaac/dataset-digests`` (``$XDG_CACHE_HOME/rlinf-isaac``, or ``$RLINF_ISAAC_CACHE``) together
with the size, times and inode of every file. The cached digest is used as long as all of these are unchanged.

The limits are those of git's index. A change of a file that keeps its size, times and inode is not noticed; it can only
be made on purpose, because a ctime can be restored only by setting the clock back. A file may also change twice within
one tick of the file system's clock; therefore a digest is not cached if a file changed in the last `RACY_NS` before
hashing began (git calls such entries racy).
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

FileStat = list[Any]  # relative name, size, mtime_ns, ctime_ns, inode: a list, as in JSON


def dataset_digest(root: str | Path) -> str:
    """sha256 over names and bytes of meta/, data/ and videos/. It is the same for every copy; times do not count.

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
    """The result of `dataset_digest` if it is cached, else None. No file of the dataset is opened."""
    root = Path(os.path.abspath(root))
    return _cached(root, _file_stats(root, dataset_files(root)))


def dataset_files(root: Path) -> list[Path]:
    """Every regular file of meta/, data/ and videos/, sorted. Links are followed, because the hub's cache has links."""
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
    """The cached digest if `files` are unchanged. None if there is none, or if the cache cannot be read."""
    try:
        entry = json.loads(_cache_file(root).read_bytes())
        content = entry["content"]
        intact = entry["sha256"] == json_digest(content) and content["format"] == FORMAT
        return content["digest"] if intact and content["files"] == files and files else None
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):
        return None


def _keep(root: Path, files: list[FileStat], digest: str) -> None:
    """Write the digest to the cache. Errors (read-only, no home, disk full) are ignored: they only cost time later."""
    with suppress(OSError, RuntimeError, ValueError):
        path = _cache_file(root)
        if path.resolve().is_relative_to(root.resolve()):
            return
        content = {"format": FORMAT, "root": str(root), "files": files, "digest": digest}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps({"sha256": json_digest(content), "content": content}))


def _cache_file(root: Path) -> Path:
    """The cache file for the dataset at the absolute path `root`. RuntimeError if there is no home directory."""
    return cache_directory("dataset-digests") / f"{bytes_digest(os.fsencode(root))}.json"
