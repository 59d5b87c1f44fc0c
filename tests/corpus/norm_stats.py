"""Ways in which a ``norm_stats.json`` is wrong. Valid twin: the computed statistics of a dataset, for a policy with
quantile normalisation (``policy.norm=quantile`` or pi0.5)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corpus.case import Case

OTHER_DATA = ("norm-stats-range",)
"""Codes that only a look at the dataset can give."""

METADATA = ("episode_index", "frame_index", "timestamp", "index", "task_index")


def _edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Change the ``norm_stats`` object of a file in place."""

    def break_it(path: Path) -> None:
        content = json.loads(path.read_text())
        change(content["norm_stats"])
        path.write_text(json.dumps(content, indent=2))

    return break_it


def _rename(stats: dict[str, Any], **names: str) -> None:
    for old, new in names.items():
        stats[new] = stats.pop(old)


def _nest(stats: dict[str, Any]) -> None:
    stats["observation"] = {"state": stats.pop("state")}
    stats["action"] = stats.pop("actions")


def _add_metadata(stats: dict[str, Any]) -> None:
    for key in METADATA:
        stats[key] = {"mean": [0.0], "std": [1.0], "q01": [0.0], "q99": [1.0]}


def _resize(key: str, change: int) -> Callable[[dict[str, Any]], None]:
    """Take entries off the end of every vector, or repeat the last one."""

    def resize(stats: dict[str, Any]) -> None:
        for name, vector in stats[key].items():
            stats[key][name] = vector[:change] if change < 0 else vector + vector[-1:] * change

    return resize


def _swap(stats: dict[str, Any]) -> None:
    stats["state"], stats["actions"] = stats["actions"], stats["state"]


def _set(key: str, name: str, value: float) -> Callable[[dict[str, Any]], None]:
    def put(stats: dict[str, Any]) -> None:
        stats[key][name][0] = value

    return put


def _swap_quantiles(stats: dict[str, Any]) -> None:
    state = stats["state"]
    state["q01"], state["q99"] = state["q99"], state["q01"]


def _drop_quantiles(stats: dict[str, Any]) -> None:
    for feature in stats.values():
        del feature["q01"], feature["q99"]


def _null_quantiles(stats: dict[str, Any]) -> None:
    stats["actions"] |= {"q01": None, "q99": None}


def _move(key: str) -> Callable[[dict[str, Any]], None]:
    """As if computed from a dataset that was recorded somewhere else, by five standard deviations."""

    def move(stats: dict[str, Any]) -> None:
        for name in ("mean", "q01", "q99"):
            moved = zip(stats[key][name], stats[key]["std"], strict=True)
            stats[key][name] = [value + 5 * std for value, std in moved]

    return move


def _scale(key: str, factor: float) -> Callable[[dict[str, Any]], None]:
    """As if computed in other units, e.g. millimetres."""

    def scale(stats: dict[str, Any]) -> None:
        stats[key] = {name: [value * factor for value in vector] for name, vector in stats[key].items()}

    return scale


def _as_lerobot(path: Path) -> None:
    """LeRobot's ``meta/stats.json`` in its place."""
    stats = json.loads(path.read_text())["norm_stats"]
    lerobot = {}
    for key, name in (("state", "observation.state"), ("actions", "action")):
        lerobot[name] = {"min": stats[key]["q01"], "max": stats[key]["q99"], **stats[key], "count": [1000]}
    path.write_text(json.dumps(lerobot))


def _replace(text: str) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.write_text(text)

    return replace


def _truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


CASES = [
    Case("missing file", "norm-stats-missing", Path.unlink),
    Case("empty file", "norm-stats-not-json", _replace("")),
    Case("not JSON", "norm-stats-not-json", _replace("mean: [0.0]")),
    Case("truncated", "norm-stats-not-json", _truncate),
    Case("a Git LFS pointer", "norm-stats-not-json", _replace("version https://git-lfs\n")),
    Case("no norm_stats object", "norm-stats-format", _replace('{"state": {}}')),
    Case("LeRobot's stats.json", "norm-stats-lerobot-stats", _as_lerobot),
    Case("keys with dots", "norm-stats-keys", _edit(lambda s: _rename(s, state="observation.state", actions="action"))),
    Case("keys with slashes", "norm-stats-keys", _edit(lambda s: _rename(s, state="observation/state"))),
    Case("nested keys", "norm-stats-keys", _edit(_nest)),
    Case("only the actions mis-keyed", "norm-stats-keys", _edit(lambda s: _rename(s, actions="action"))),
    Case("metadata keys", "norm-stats-keys", _edit(_add_metadata)),
    Case("a key of somebody's own", "norm-stats-keys", _edit(lambda s: s.update(reward=s["state"]))),
    Case("no actions", "norm-stats-missing-key", _edit(lambda s: s.pop("actions"))),
    Case("no std", "norm-stats-format", _edit(lambda s: s["state"].pop("std"))),
    Case("state of another robot", "norm-stats-dim", _edit(_resize("state", -2))),
    Case("state without its last dim", "norm-stats-dim", _edit(_resize("state", -1))),
    Case("actions without the gripper", "norm-stats-dim", _edit(_resize("actions", -1))),
    Case("state and actions swapped", "norm-stats-dim", _edit(_swap)),
    Case("unequal lengths", "norm-stats-lengths", _edit(lambda s: s["state"]["std"].pop())),
    Case("NaN", "norm-stats-not-finite", _edit(_set("state", "mean", float("nan")))),
    Case("infinity", "norm-stats-not-finite", _edit(_set("actions", "q99", float("inf")))),
    Case("negative std", "norm-stats-negative-std", _edit(_set("actions", "std", -0.5))),
    Case("quantiles swapped", "norm-stats-quantile-order", _edit(_swap_quantiles)),
    Case("no quantiles", "norm-stats-no-quantiles", _edit(_drop_quantiles)),
    Case("quantiles are null", "norm-stats-no-quantiles", _edit(_null_quantiles)),
    Case("state of another place", "norm-stats-range", _edit(_move("state"))),
    Case("actions of another dataset", "norm-stats-range", _edit(_move("actions"))),
    Case("state in millimetres", "norm-stats-range", _edit(_scale("state", 1000.0))),
]
