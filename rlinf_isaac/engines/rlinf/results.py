"""Reads the files that RLinf writes to its ``runner.logger.log_path``: metrics, config, checkpoints and videos.

<log_path>/tensorboard/events.out.tfevents.*   tensorboard/config.yaml   metrics.log
<log_path>/tensorboard/all/...                 instead of these, with runner.per_worker_log
<log_path>/video/{eval,train}/seed_<s>/<n>.mp4
<log_path>/<experiment_name>/checkpoints/global_step_<N>/actor/...
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rlinf_isaac.engines.rlinf.tensorboard import read_scalars
from rlinf_isaac.ground.digest import bytes_digest, json_digest
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.ground.yaml_text import read_yaml_text

BOARDS = ("tensorboard", "tensorboard/all")
EVENTS = "events.out.tfevents.*"


@dataclass(frozen=True)
class Point:
    """The metrics of one global step. `time` (unix seconds) is the time of the last one."""

    step: int
    values: Mapping[str, float]
    time: float


@dataclass(frozen=True)
class RlinfResults:
    """Content of a result directory.

    Attributes:
        root: the directory.
        task: RLinf's ``runner.task_type``.
        config: RLinf's resolved config.
        points: metrics by global step, ascending; values that are not finite are left out.
        checkpoints: global step -> ``global_step_<N>``.
        videos: mp4 files.
        files: other files of the run: ``metrics.log``, ``config.yaml``.
        broken: video that does not decode -> reason; filled by the caller that decodes the videos.
        digest: sha256 over the metrics, the config, and the names and sizes of all other files.
    """

    root: Path
    task: str
    config: Mapping[str, Any]
    points: tuple[Point, ...]
    checkpoints: Mapping[int, Path]
    videos: tuple[Path, ...]
    files: tuple[Path, ...]
    digest: str
    broken: Mapping[Path, str] = field(default_factory=dict)

    def at(self, step: int) -> dict[str, float]:
        """The metrics of a checkpoint's global step."""
        return {name: value for point in self.points if point.step == step for name, value in point.values.items()}


def read_results(root: Path) -> RlinfResults:
    """Read a result directory of RLinf 0.2, 0.3 or later.

    Raises:
        InvalidJob: `root` is not a result directory, or a file in it is damaged.
    """
    board = next((root / name for name in BOARDS if (root / name / "config.yaml").is_file()), root / BOARDS[0])
    events, config_file = sorted(board.glob(EVENTS)), board / "config.yaml"
    if not events or not config_file.is_file():
        cause = f"{root} has no tensorboard/{EVENTS} with a config.yaml beside it"
        near = [each for each in (root.parent, *root.glob("*/"), *root.glob("*/*/")) if (each / "tensorboard").is_dir()]
        example = f", such as {near[0]}" if near else ""
        raise InvalidJob.of("no-rlinf-results", cause, f"name the directory that was runner.logger.log_path{example}")
    try:
        text = read_yaml_text(config_file)
        config = yaml.safe_load(text)
        task = config["runner"]["task_type"]
        scalars = [scalar for file in events for scalar in read_scalars(file)]
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError) as error:
        cause = f"{root}/tensorboard is damaged: {type(error).__name__} {' '.join(str(error).split())[:200]}"
        raise InvalidJob.of("rlinf-results-damaged", cause, "restore the file, or leave the damaged one out") from error
    # RLinf counts steps from 0 in its logs and from 1 in its checkpoints; a pure evaluation has step 0.
    shift = 0 if task == "embodied_eval" else 1
    points: dict[int, dict[str, tuple[float, float]]] = {}
    for tag, step, value, time in sorted(
        scalars, key=lambda scalar: scalar.time
    ):  # after a resume the latest value counts
        if math.isfinite(value):
            points.setdefault(step + shift, {})[tag] = (value, time)
    checkpoints = {
        int(path.name.removeprefix("global_step_")): path
        for path in root.glob("*/checkpoints/global_step_*")
        if path.name.removeprefix("global_step_").isdecimal()
    }
    videos = tuple(sorted(root.glob("video/**/*.mp4")))
    files = tuple(file for file in (config_file, root / "metrics.log") if file.is_file())
    others = [*videos, *(file for path in checkpoints.values() for file in path.rglob("*") if file.is_file())]
    identity = {
        "metrics": [[tag, step, repr(value)] for tag, step, value, _ in scalars],
        "config": bytes_digest(text.encode()),
        "files": sorted([file.relative_to(root).as_posix(), file.stat().st_size] for file in others),
    }
    return RlinfResults(
        root=root,
        task=task,
        config=config,
        points=tuple(
            Point(step, {tag: value for tag, (value, _) in values.items()}, max(time for _, time in values.values()))
            for step, values in sorted(points.items())
        ),
        checkpoints=dict(sorted(checkpoints.items())),
        videos=videos,
        files=files,
        digest=json_digest(identity),
    )
