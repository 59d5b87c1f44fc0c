"""Checks the content of a LeRobot dataset, independently of any job. All problems are reported at once.

    problems = validate_dataset(root)             # every numeric value, a sample of the images and videos
    problems = validate_dataset(root, full=True)  # every image and every video frame as well

``meta/`` is checked first, then the parquet files against it (`columns`), then images and videos (`images`), then other
files in the directory. After a fault the checks continue, except for those that need the broken part: without the list
of episodes, for example, the expected content of the files is not known.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlinf_isaac.data.lerobot.dataset_digest import dataset_files
from rlinf_isaac.data.lerobot.files import RESTORE
from rlinf_isaac.data.lerobot.folded_findings import FoldedFindings, first_few
from rlinf_isaac.data.lerobot.format import AUX_FEATURES
from rlinf_isaac.data.lerobot.meta import (
    RecordedEpisode,
    check_counts,
    parse_features,
    parse_fps,
    read_episodes,
    read_info,
    read_tasks,
)
from rlinf_isaac.data.validate.columns import check_columns
from rlinf_isaac.data.validate.images import check_images, check_videos
from rlinf_isaac.ground.errors import Problem

_TEMPORARY = re.compile(r"\..+\.tmp-\d+-[0-9a-f]+")  # temporary names of `rlinf_isaac.ground.atomic`


def validate_dataset(root: Path, *, full: bool = False) -> list[Problem]:
    """All problems of the dataset at `root`, errors first; an empty list if there are none.

    Args:
        root: the directory that holds ``meta/info.json`` (`resolve_dataset` finds it).
        full: decode every image and video frame, not only a sample.
    """
    root = Path(os.path.abspath(root))
    findings = FoldedFindings()
    if (info := findings.attempt(read_info, root)) is None:
        return findings.problems()
    features, fps = findings.attempt(parse_features, root, info), findings.attempt(parse_fps, root, info)
    tasks = findings.attempt(read_tasks, root, info["codebase_version"])
    if tasks is not None:
        _check_tasks(root, info, tasks, findings)
    episodes = findings.attempt(read_episodes, root, info, features) if features else None
    if episodes is not None:
        counts = check_counts(root, info, episodes)
        findings.extend(counts)
        listed = [episode for episode in _distinct(episodes) if episode.length > 0]
        contiguous = not any(problem.code == "episode-indices" for problem in counts)
        if features:
            described = {**AUX_FEATURES, **features}
            task_indices = None if tasks is None else [index for index, _ in tasks]
            files = check_columns(root, listed, described, task_indices, fps, contiguous, findings)
            check_images(root, files, features, full, findings)
            if fps:
                check_videos(root, listed, features, fps, full, findings)
        _check_surplus_files(root, episodes, findings)
    if info["codebase_version"] == "v2.1" and not (root / "meta" / "episodes_stats.jsonl").is_file():
        cause = f"{root / 'meta' / 'episodes_stats.jsonl'} is missing; without it lerobot asks the hub for the dataset"
        findings.add("no-episodes-stats", cause, RESTORE, "warning")
    _check_leftovers(root, findings)
    return findings.problems()


def _check_tasks(root: Path, info: dict[str, Any], tasks: Sequence[tuple[int, str]], findings: FoldedFindings) -> None:
    """Check the instructions, on which policies are conditioned."""
    place, seen, texts = root / "meta", dict[int, str](), dict[str, int]()
    for index, task in tasks:
        if not task.strip():
            cause = f"{place}: task {index} has an empty instruction, but policies are conditioned on it"
            findings.add("empty-prompt", cause, "write the instruction that the episodes follow into meta/tasks")
        elif task in texts:
            cause = f"{place}: tasks {texts[task]} and {index} have the same instruction {task!r}"
            findings.add("duplicate-task", cause, "let the frames use one of them", "warning")
        if index in seen:
            cause = f"{place}: task {index} is listed more than once: {seen[index]!r}, {task!r}"
            findings.add("duplicate-task-index", cause, "restore meta/tasks")
        seen[index] = task
        texts.setdefault(task, index)
    total = info.get("total_tasks")
    if total is not None and total != len(tasks):
        cause = f"{place}: info.json says that there are {total} tasks, but {len(tasks)} are listed"
        findings.add("task-count", cause, "correct total_tasks", "warning")


def _distinct(episodes: Sequence[RecordedEpisode]) -> list[RecordedEpisode]:
    """The episodes without duplicates: of several with one index, the first that is listed."""
    by_index: dict[int, RecordedEpisode] = {}
    for episode in episodes:
        by_index.setdefault(episode.index, episode)
    return list(by_index.values())


def _check_surplus_files(root: Path, episodes: Sequence[RecordedEpisode], findings: FoldedFindings) -> None:
    """Warn of data and videos that ``meta/`` does not list, because readers ignore them."""
    listed = {episode.file for episode in episodes}
    listed |= {file for episode in episodes for file, _ in episode.videos.values()}
    present = findings.attempt(dataset_files, root) or []
    names = [path.relative_to(root).as_posix() for path in present if path.suffix in (".parquet", ".mp4")]
    surplus = [name for name in names if not name.startswith("meta/") and name not in listed]
    if surplus:
        cause = f"{root} holds files that meta/ does not list: {first_few(surplus)}"
        findings.add("stray-file", cause, "remove them, or restore the meta/ that lists them", "warning")


def _check_leftovers(root: Path, findings: FoldedFindings) -> None:
    """Warn of temporary files of writers that were killed, in and beside the dataset.

    lerobot keeps frames in ``images/<camera>/episode_000000/`` while it records, and removes all but the empty
    ``images/<camera>/`` when an episode is saved.
    """
    inside = [path for path in root.rglob(".*.tmp-*") if _TEMPORARY.fullmatch(path.name)]
    try:
        beside = [path for path in root.parent.glob(f".{root.name}.tmp-*") if _TEMPORARY.fullmatch(path.name)]
    except OSError:  # the parent directory may be unreadable although the dataset is readable
        beside = []
    images = [root / "images"] if any(not path.is_dir() for path in root.glob("images/**/*")) else []
    if leftovers := sorted([*inside, *beside, *images]):
        cause = f"a writer is at work or was killed: {first_few(leftovers)}"
        findings.add("writer-leftover", cause, "remove what it left when no writer is running", "warning")
