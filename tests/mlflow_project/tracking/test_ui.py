from __future__ import annotations

import json
import shlex
from urllib.parse import parse_qs, urlsplit

import pytest

from mlflow_project.tracking import ui


def query_of(link):
    return {key: values[0] for key, values in parse_qs(urlsplit(link).fragment.partition("?")[2]).items()}


def test_the_link_opens_the_saved_view():
    link = ui.comparison_link("http://host:5000/", "7", "a" * 32)
    assert link.startswith("http://host:5000/#/experiments/7/runs?")
    # Nothing else: a filter in the link makes the UI ignore the view.
    assert query_of(link) == {"workflowType": "machine_learning", "viewStateShareKey": ui.view_name("a" * 32)}


def assert_flat_and_sorted(link):
    assert query_of(link) == {
        "workflowType": "machine_learning",
        "searchFilter": f"tags.mlflow.parentRunId = '{'a' * 32}'",
        "orderByKey": "metrics.`eval/success_once`",
        "orderByAsc": "false",
    }


def test_without_a_saved_view_the_link_filters_and_sorts():
    assert_flat_and_sorted(ui.comparison_link("http://host", "7", "a" * 32, saved_view=False))


def test_an_unknown_mlflow_gets_the_plain_link(monkeypatch):
    monkeypatch.setattr(ui, "KNOWN_VERSIONS", ((99, 0), (100, 0)))
    assert_flat_and_sorted(ui.comparison_link("http://host", "7", "a" * 32))


def test_links_inside_the_ui_keep_the_places_of_ids():
    run = "{{run:" + "a" * 32 + "}}"
    link = ui.comparison_link("", "{{experiment}}", run, charts=True)
    assert link.startswith("#/experiments/{{experiment}}/runs?")
    assert f"viewStateShareKey=rlinf-isaac-{run}&compareRunsMode=CHART" in link
    assert ui.artifact_link("http://h/", "1", run, "comparison.html").startswith(
        f"http://h/#/experiments/1/runs/{run}/artifacts/comparison.html?"
    )


def test_image_names_are_those_of_log_image(store):
    """MLflow's own names differ in the identifier and the time only."""
    import re

    from mlflow import MlflowClient
    from PIL import Image

    client = MlflowClient(store)
    run_id = client.create_run("0").info.run_id
    client.log_image(run_id, Image.new("RGB", (8, 8)), key="rollout", step=3, synchronous=True)
    found = sorted(file.path for file in client.list_artifacts(run_id, "images"))
    ((stamp, identifier),) = set(re.findall(r"timestamp\+(\d+)\+([0-9a-f-]+)", " ".join(found)))
    assert found == sorted(ui.image_names("rollout", 3, int(stamp), identifier))
    assert ui.LOGGED_IMAGES.items() <= client.get_run(run_id).data.tags.items()


@pytest.mark.parametrize("uri", ["sqlite:////tmp/a b/mlflow.db", "sqlite:////tmp/$(x)/mlflow.db"])
def test_the_serve_command_is_quoted(uri):
    words = shlex.split(ui.serve_command(uri, port=5001))
    assert words == [
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false",
        *("mlflow", "server", "--backend-store-uri", uri, "--port", "5001"),
    ]


def test_a_server_needs_no_command():
    assert ui.serve_command("http://host:5000") is None
    assert ui.base_url("http://host:5000") == "http://host:5000"
    assert ui.base_url("sqlite:////x.db") == "http://127.0.0.1:5000"


def test_the_saved_view_fits_an_experiment_tag():
    from mlflow.utils.validation import _validate_experiment_tag

    state = json.dumps(ui.comparison_view("a" * 32))
    _validate_experiment_tag(f"mlflow.sharedViewState.{ui.view_name('a' * 32)}", state)
    assert len(state) < 5000, "the limit of MLflow 3.14"


def test_a_table_without_rows():
    assert json.loads(ui.table([])) == {"columns": [], "data": []}
