"""Writes a comparison as a folder to host or to mail: the page, its videos beside it, and the data.

The page's addresses are relative, so it plays from disk. The folder replaces an earlier one of the same command as a
whole, and nothing else.
"""

from __future__ import annotations

import csv
import json
import logging
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_project.comparison.compare import Comparison
from mlflow_project.comparison.episodes import table_row
from mlflow_project.comparison.evaluations import Evaluation
from mlflow_project.comparison.figure import draw
from mlflow_project.comparison.foreign import known
from mlflow_project.comparison.funnel import funnel
from mlflow_project.comparison.origin import origins
from mlflow_project.comparison.report import Places, render
from mlflow_project.comparison.robustness import robustness_table
from mlflow_project.comparison.snapshot import find_browser, take
from mlflow_project.comparison.tables import pair_table
from mlflow_project.comparison.traces import as_script, from_script, trace_name
from rlinf_isaac.ground.atomic import new_directory
from rlinf_isaac.ground.errors import Problem, VideoError
from rlinf_isaac.ground.probe import check_output

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger("mlflow_project")

PAGE = "index.html"
DATA = Path("data") / "comparison.json"
FORMAT = "rlinf-isaac comparison"
"""Value of ``format`` in `DATA`, by which an earlier export is known."""


@dataclass
class Exported:
    """What an export has made.

    Attributes:
        page: the page.
        videos: number of videos beside it.
        missing: what could not be had, one sentence each.
        browser: the browser that has drawn ``page.png`` and ``page.pdf``; None: there is none.
    """

    page: Path
    videos: int = 0
    missing: list[str] = field(default_factory=list)
    browser: str | None = None


def check_export(directory: Path) -> list[Problem]:
    """The reasons why nothing can be exported to a directory: it cannot be made, or holds something else."""
    if problems := check_output(directory.parent):
        return problems
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        cause = f"{directory} is there already and is no directory"
    elif directory.is_dir() and any(directory.iterdir()) and not _is_export(directory):
        cause = f"{directory} is not empty, and no earlier export; what is in it would be lost"
    else:
        return []
    return [Problem("export-not-ours", cause, "name a new directory for --export")]


def export(client: MlflowClient, comparison: Comparison, title: str, directory: Path, server: str = "") -> Exported:
    """Write the folder.

    Args:
        client: client of the store with the runs.
        comparison: of runs in that store.
        title: of the page.
        directory: of the export (`check_export`).
        server: address of the MLflow server, for links to the runs; empty if there is none.
    """
    done = Exported(directory / PAGE)
    with new_directory(directory, replace=True) as folder, tempfile.TemporaryDirectory(dir=folder) as scratch:
        places = Places(server, {}, {})
        for number, standing in enumerate(comparison.standings):
            own = Path("videos") / f"{number + 1}-{re.sub(r'[^A-Za-z0-9.-]+', '_', standing.label)[:60]}"
            _copy_films(client, standing.evaluation, folder, own, places, Path(scratch), done)
        (folder / PAGE).write_text(render(comparison, title, places=places), encoding="utf-8")
        (folder / "data").mkdir()
        tables = _tables(comparison)
        for name, rows in tables.items():
            _write_csv(folder / "data" / f"{name}.csv", rows)
        values = {"format": FORMAT, "title": title, "verdict": comparison.verdict, "method": comparison.method} | tables
        (folder / DATA).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        draw(comparison, folder / "figure.png", folder / "figure.pdf")
        browser = find_browser()
        if browser is not None and take(browser, folder / PAGE, folder / "page.png", folder / "page.pdf"):
            done.browser = browser
    return done


def _is_export(directory: Path) -> bool:
    try:
        return json.loads((directory / DATA).read_text(encoding="utf-8")).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        return False


def _copy_films(
    client: MlflowClient,
    evaluation: Evaluation,
    folder: Path,
    own: Path,
    places: Places,
    scratch: Path,
    done: Exported,
) -> None:
    """Copy the videos of an evaluation to ``folder/own``, each with its trace and a still image of its last frame."""
    from mlflow.exceptions import MlflowException

    from rlinf_isaac.media.preview import write_still  # imports numpy

    assert places.files is not None
    for row in evaluation.rows:
        if row.video is None:
            continue
        target = own / (f"{row.task}_" if row.task else "").replace("/", "_") / Path(row.video).name
        still = target.with_suffix(".jpg")
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        try:
            film = Path(client.download_artifacts(evaluation.run, row.video, str(scratch)))
            write_still(film, folder / still)
            film.replace(folder / target)
        except (MlflowException, VideoError, OSError) as error:
            done.missing.append(f"{row.video} of run {evaluation.run}: {error}")
            continue
        places.files[evaluation.run, row.video] = target.as_posix()
        places.posters[evaluation.run, row.video] = still.as_posix()
        done.videos += 1
        try:  # films of earlier releases have no trace
            script = Path(client.download_artifacts(evaluation.run, trace_name(row.video), str(scratch)))
            trace = json.dumps(from_script(script.read_text(encoding="utf-8")), separators=(",", ":"))
            (folder / trace_name(target.as_posix())).write_text(as_script(trace), encoding="utf-8")
        except (MlflowException, OSError, ValueError) as error:
            logger.debug("no trace of %s: %s", row.video, error)


def _tables(comparison: Comparison) -> dict[str, list[dict[str, Any]]]:
    stages = funnel(comparison)
    checkpoints, episodes = [], []
    for number, (standing, origin) in enumerate(zip(comparison.standings, origins(comparison), strict=True)):
        evaluation, rate = standing.evaluation, standing.success
        checkpoints.append(
            {
                "rank": standing.place,
                "checkpoint": standing.label,
                "run": evaluation.run,
                "sha256": evaluation.checkpoint,
                "step": evaluation.step,
                "success": rate.rate,
                "low": rate.low,
                "high": rate.high,
                "episodes": rate.n,
                **{name: standing.outcomes.get(name, 0) for name in comparison.outcomes},
                "return": known(standing.episode_return),
                "length": known(standing.length),
                **({f"subtask/{stage.name}": stage.share for stage in stages.rows[number][:-1]} if stages else {}),
                **asdict(origin),
            }
        )
        episodes += [{"label": standing.label, "run": evaluation.run, **table_row(row)} for row in evaluation.rows]
    tables = {"checkpoints": checkpoints, "episodes": episodes, "pairs": pair_table(comparison)}
    robustness = robustness_table(comparison.standings)
    return tables | ({"robustness": robustness} if robustness else {})


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
