"""All formats of MLflow's UI that are not public API. Each has a plain fallback.

They were taken from the source of MLflow 3.17 and 3.18. For a version outside `KNOWN_VERSIONS` no view is saved; links
then open the list of runs without the columns.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from mlflow_project.vocabulary import (
    EPISODES,
    GAIN,
    GAIN_P_VALUE,
    GAINED,
    LOST,
    PARENT_RUN_TAG,
    RETURN_MEAN,
    ROLLOUT,
    SUCCESS,
    SUCCESS_BEFORE,
    SUCCESS_HIGH,
    SUCCESS_LOW,
    VERB_TAG,
)

KNOWN_VERSIONS = ((3, 13), (4, 0))
"""Known versions of MLflow, (major, minor): the first bound is included, the second excluded."""

MAIN_VIEW = "rlinf-isaac-main"
"""Name of the saved view of all runs of `main`."""
DEFAULT_PORT = 5000
LOGGED_IMAGES = {"mlflow.loggedImages": "True"}
"""Tag of a run with images; without it the UI shows no chart of them."""
COLUMNS = (SUCCESS, SUCCESS_LOW, SUCCESS_HIGH, EPISODES, RETURN_MEAN)
CHARTS = (SUCCESS, SUCCESS_LOW, "eval/drop_rate", "eval/timeout_rate")
"""Columns and charts in the saved view of evaluated checkpoints."""
GAIN_COLUMNS = (SUCCESS_BEFORE, SUCCESS, GAIN, GAINED, LOST, GAIN_P_VALUE)
GAIN_CHARTS = GAIN_COLUMNS[:3]
"""Columns and charts in the saved view that compares checkpoints before and after reinforcement learning."""


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows in the format of `MlflowClient.log_table` (pandas ``orient="split"``). What a row lacks is null."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return json.dumps({"columns": columns, "data": [[row.get(column) for column in columns] for row in rows]})


def tables_tag(targets: Sequence[str]) -> dict[str, str]:
    """The tag that makes the UI show these artifacts of a run as tables."""
    return {"mlflow.loggedArtifacts": json.dumps([{"path": target, "type": "table"} for target in targets])}


def image_names(key: str, step: int, time_ms: int, identifier: str) -> tuple[str, str]:
    """Artifact names of an image and of its small version, as `MlflowClient.log_image` writes them.

    The run needs the tag `LOGGED_IMAGES` as well. The chart "image grid" shows the small version, a WebP, which may be
    animated; a click opens the full image.
    """
    stem = f"images/{key}+step+{step}+timestamp+{time_ms}+{identifier}"
    return f"{stem}.png", f"{stem}+compressed.webp"


def comparison_link(
    base_url: str,
    experiment_id: str,
    parent_run_id: str,
    metric: str = SUCCESS,
    *,
    saved_view: bool = True,
    charts: bool = False,
) -> str:
    """Link to a flat list of the runs that a parent run compares, best first.

    These are the runs nested in the parent, unless its saved view has another filter. A new browser opens an experiment
    in the GenAI view, which shows no runs, so the link sets ``workflowType``. Sorting by a metric flattens the list;
    sorting by time would fold the nested runs into their parent.

    Args:
        base_url: address of the UI (see `base_url`); empty for a link inside the UI.
        experiment_id: MLflow's id of the experiment.
        parent_run_id: MLflow's id of the parent run.
        metric: metric to sort by if there is no saved view.
        saved_view: open the view saved by `save_comparison_view` (`recorders.comparison_recorder`), with its columns
            and charts. The UI ignores the view if the link has its own filter, and shows the GenAI view if no view of
            that name exists.
        charts: open the charts and animated rollouts beside a narrow list, instead of the table.
    """
    query = {"workflowType": "machine_learning"}
    if saved_view and version_is_known():
        query["viewStateShareKey"] = view_name(parent_run_id)
    else:
        query["searchFilter"] = nested_in(parent_run_id)
        query["orderByKey"] = f"metrics.`{metric}`"
        query["orderByAsc"] = "false"
    if charts:
        query["compareRunsMode"] = "CHART"
    # Braces and colons are not escaped, so that links in descriptions can contain placeholders of ids.
    return f"{_app(base_url)}/experiments/{experiment_id}/runs?{urlencode(query, safe='{}:', quote_via=quote)}"


def artifact_link(base_url: str, experiment_id: str, run_id: str, path: str) -> str:
    """Link that opens an artifact of a run in the UI; `base_url` as in `comparison_link`."""
    address = f"{_app(base_url)}/experiments/{experiment_id}/runs/{run_id}/artifacts/{quote(path)}"
    return f"{address}?workflowType=machine_learning"


def run_link(base_url: str, experiment_id: str, run_id: str) -> str:
    """Link to the page of a run; `base_url` as in `comparison_link`."""
    return f"{_app(base_url)}/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def base_url(tracking_uri: str, port: int = DEFAULT_PORT) -> str:
    """Address of a store's UI: the tracking server itself, or the server that `serve_command` starts."""
    return tracking_uri if tracking_uri.startswith("http") else f"http://127.0.0.1:{port}"


def serve_command(tracking_uri: str, port: int = DEFAULT_PORT) -> str | None:
    """Shell command that serves the UI of a local store; None if the store is a server.

    Without job execution MLflow starts 2 processes instead of 11.
    """
    if tracking_uri.startswith("http"):
        return None
    command = ["mlflow", "server", "--backend-store-uri", tracking_uri, "--port", str(port)]
    return f"MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false {shlex.join(command)}"


def view_name(parent_run_id: str) -> str:
    """Name of the saved view of a sweep."""
    return f"rlinf-isaac-{parent_run_id}"


def comparison_view(
    search_filter: str,
    metrics: Sequence[str] = COLUMNS,
    charts: Sequence[str] = CHARTS,
    order: str = f"metrics.`{SUCCESS}`",
) -> dict[str, Any]:
    """The UI's state (``ExperimentPageUIState`` and ``ExperimentPageSearchFacetsState`` in MLflow's source) that lists
    the runs matching `search_filter`, the highest of `order` first, with a column for each of `metrics` and a bar chart
    for each of `charts`."""
    columns = [f"metrics.`{key}`" for key in metrics]
    chart = {"deleted": False, "isGenerated": False, "runsCountToCompare": 10}
    rollouts = {"uuid": "rollouts", "type": "IMAGE", "imageKeys": [ROLLOUT], "step": 0, "showRunParams": False}
    bars = [
        chart
        | {
            "metricSectionId": "rates",
            "uuid": f"bar-{number}",
            "type": "BAR",
            "metricKey": metric,
            "displayName": metric,
        }
        for number, metric in enumerate(charts)
    ]
    return {
        "searchFilter": search_filter,
        "orderByKey": order,
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": ["attributes.`Created`", *columns],
        "columnWidths": dict.fromkeys(columns, 160),
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "FIRST_10_RUNS",
        "compareRunCharts": [chart | {"metricSectionId": "rollouts"} | rollouts, *bars],
        "compareRunSections": [
            {
                "uuid": name.lower(),
                "name": name,
                "display": True,
                "isReordered": False,
                "deleted": False,
                "isGenerated": False,
                "columns": columns_of_charts,
                "cardHeight": height,
            }
            for name, columns_of_charts, height in (("Rates", 2, 240), ("Rollouts", 1, 620))
        ],
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }


def main_link(base_url: str, experiment_id: str) -> str:
    """Link to all runs of `main` with their success; `base_url` as in `comparison_link`. Without a saved view they are
    listed without columns."""
    query = {"workflowType": "machine_learning"}
    query |= {"viewStateShareKey": MAIN_VIEW} if version_is_known() else {"searchFilter": f"tags.{VERB_TAG} = 'main'"}
    return f"{_app(base_url)}/experiments/{experiment_id}/runs?{urlencode(query, quote_via=quote)}"


def _app(base_url: str) -> str:
    return f"{base_url.rstrip('/')}/#" if base_url else "#"


def nested_in(run_id: str) -> str:
    """MLflow's filter for the runs nested in the run `run_id`."""
    return f"tags.{PARENT_RUN_TAG} = '{run_id}'"


def version_is_known() -> bool:
    """Whether the installed MLflow is in `KNOWN_VERSIONS`, so that its UI understands the state written here."""
    from importlib.metadata import version

    release = tuple(int(part) for part in version("mlflow").split(".")[:2])
    return KNOWN_VERSIONS[0] <= release < KNOWN_VERSIONS[1]
