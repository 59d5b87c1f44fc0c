"""lerobot's ``eval_info.json``: ``per_episode`` of one task, or ``per_task`` of several (from 0.4 on)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlinf_isaac.foreign_results.model import (
    NOT_KNOWN,
    UNREADABLE,
    Arm,
    ForeignResults,
    ForeignRow,
    Options,
    damaged,
    flag,
    number,
)
from rlinf_isaac.ground.reading import parse_json, read_bytes

MAX_BYTES = 50_000_000
FILE = "eval_info.json"


def is_it(value: Any) -> bool:
    """Whether this JSON looks like lerobot's."""
    return isinstance(value, dict) and ("per_task" in value or ("per_episode" in value and "aggregated" in value))


def read(path: Path, options: Options) -> ForeignResults:
    """Read the file, or the one in a directory.

    lerobot 0.4 and later leave the seeds of the episodes out; they are ``seed + i`` of its config, which
    `Options.first_seed` states. The policy's name is in no version.

    Raises:
        InvalidJob: it is damaged, or its totals differ from its episodes.
    """
    file = path / FILE if path.is_dir() else path
    try:
        value = parse_json(read_bytes(file, MAX_BYTES), finite=False)  # lerobot writes NaN where it has no figure
        policy = options.policy or file.absolute().parent.name
        single = "per_task" not in value
        tasks = [_single(value)] if single else [_task(each) for each in value["per_task"]]
        arms = tuple(_arm(policy, name, each, paths, options, file.parent) for name, each, paths in tasks)
        total = value["aggregated"] if single else value.get("overall", {})
    except UNREADABLE as error:
        raise damaged(file, error) from error
    if not arms or not all(arm.rows for arm in arms):
        raise damaged(file, "it has no episodes")
    rate = number(total.get("pc_success")) if isinstance(total, Mapping) else None
    own = 100 * sum(arm.successes for arm in arms) / sum(arm.n for arm in arms)
    if rate is not None and abs(rate - own) > 1e-6:
        raise damaged(file, f"its episodes have a success rate of {own:g} %, its summary {rate:g} %")
    return ForeignResults("lerobot", NOT_KNOWN, path, arms, files=(file,))


def _single(value: Mapping[str, Any]) -> tuple[str, list[Mapping[str, Any]], list[Any]]:
    return "", list(value["per_episode"]), list(value.get("video_paths", []))


def _task(each: Mapping[str, Any]) -> tuple[str, list[Mapping[str, Any]], list[Any]]:
    metrics = each["metrics"]
    rewards, best = metrics.get("sum_rewards", []), metrics.get("max_rewards", [])
    episodes: list[Mapping[str, Any]] = [
        {"success": success, "sum_reward": _at(rewards, i), "max_reward": _at(best, i)}
        for i, success in enumerate(metrics["successes"])
    ]
    return f"{each['task_group']}/{each['task_id']}", episodes, list(metrics.get("video_paths", []))


def _at(values: list[Any], index: int) -> Any:
    return values[index] if index < len(values) else None


def _arm(
    policy: str, task: str, episodes: list[Mapping[str, Any]], videos: list[Any], options: Options, folder: Path
) -> Arm:
    rows = []
    for i, each in enumerate(episodes):
        seed = each.get("seed")
        if seed is None and options.first_seed is not None:
            seed = options.first_seed + i
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63):
            raise ValueError(f"the seed of episode {i} is {seed!r}")
        best = number(each.get("max_reward"))
        rows.append(
            ForeignRow(
                flag(each["success"]),
                seed,
                episode_return=number(each.get("sum_reward")),
                extras={} if best is None else {"max_reward": best},
                video=_video(_at(videos, i), folder),
            )
        )
    return Arm(policy, task, tuple(rows))


def _video(named: Any, folder: Path) -> Path | None:
    """The video below `folder` whose path ends as the named one does, which may be of another machine. Nothing outside
    of `folder` is taken."""
    if not isinstance(named, str) or not named.endswith(".mp4"):
        return None
    parts = [part for part in Path(named).parts if part not in ("/", ".", "..")]
    for start in range(min(len(parts), 12)):
        try:
            found = folder.joinpath(*parts[start:])
            if found.is_file() and found.resolve().is_relative_to(folder.resolve()):
                return found
        except (OSError, ValueError):
            return None
    return None
