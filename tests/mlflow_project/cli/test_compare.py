from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from mlflow import MlflowClient
from support import SHORT_EVALUATION, only_error

from mlflow_project.comparison.snapshot import find_browser
from mlflow_project.comparison.traces import from_script
from rlinf_isaac.media.video import verify_video


def evaluate(root, *more):
    return ["eval", "--ckpt-root", root, "--output", "out", "--overrides", SHORT_EVALUATION, *more]


@pytest.fixture
def client(store) -> MlflowClient:
    return MlflowClient(store)


def runs_of(client, verb):
    experiment = client.get_experiment_by_name("rlinf-isaac")
    if experiment is None:
        return []
    order = ["attributes.start_time ASC"]
    found = client.search_runs([experiment.experiment_id], f"tags.rlinf_isaac.verb = '{verb}'", order_by=order)
    return [run for run in found if "mlflow.parentRunId" not in run.data.tags]


def page_of(client, run):
    return Path(client.download_artifacts(run.info.run_id, "comparison.html")).read_text()


def test_two_sweeps_with_equal_settings_are_paired(invoke, client, small_checkpoints):
    assert invoke(*evaluate(small_checkpoints, "--ckpt-steps", "2,4", "--episodes", 2)).exit_code == 0
    assert invoke(*evaluate(small_checkpoints, "--ckpt-steps", "6", "--episodes", 2)).exit_code == 0
    sweeps = runs_of(client, "eval")
    link = f"http://127.0.0.1:5000/#/experiments/1/runs/{sweeps[1].info.run_id}"
    result = invoke("compare", sweeps[0].info.run_id, link, "--output", "out")
    assert result.exit_code == 0, result.output
    assert "Not paired" not in result.stdout
    assert "1-3" in result.stdout, "nobody solved anything: all three may have any place"
    (run,) = runs_of(client, "compare")
    assert run.info.status == "FINISHED"
    table = client.load_table(run.info.experiment_id, "paired_episodes.json", [run.info.run_id])
    assert list(table["seed"]) == [5000, 5001]
    assert len(table.columns) == 1 + 3 + 2
    assert page_of(client, run).count("<video muted loop") == 6
    state = client.get_experiment(run.info.experiment_id).tags[f"mlflow.sharedViewState.rlinf-isaac-{run.info.run_id}"]
    for nested in client.search_runs([run.info.experiment_id], "metrics.`eval/episodes` > 0"):
        assert nested.info.run_id in state


def test_other_settings_are_compared_unpaired_and_it_is_said_why(invoke, client, small_checkpoints):
    assert invoke(*evaluate(small_checkpoints, "--ckpt-steps", 2, "--episodes", 1)).exit_code == 0
    changed = ("--ckpt-steps", 4, "--episodes", 1, "--policy-seed", 1, "--first-seed", 6000)
    assert invoke(*evaluate(small_checkpoints, *changed)).exit_code == 0
    ids = [run.info.run_id for run in runs_of(client, "eval")]
    result = invoke("compare", ",".join(ids), "--output", "out")
    assert result.exit_code == 0, result.output
    page = page_of(client, runs_of(client, "compare")[0])
    # Sweeps of equal names come in the order of their random ids.
    for either, other in (
        ("Not paired", ""),
        ("policy seed (0 against 1)", "policy seed (1 against 0)"),
        ("seeds (5000 to 5000 against 6000 to 6000)", "seeds (6000 to 6000 against 5000 to 5000)"),
    ):
        for text in (result.stdout, page):
            assert either in text or (other and other in text)


def test_what_cannot_be_compared_is_refused_all_at_once(invoke, client, small_checkpoints, tmp_path):
    experiment = client.create_experiment("other")
    empty = client.create_run(experiment, run_name="empty").info.run_id
    result = invoke("compare", "nonsense", "0" * 32, empty, "--output", "out")
    assert result.exit_code == 2
    for code in ("unknown-run", "not-in-store", "no-evaluations"):
        assert code in result.stderr
    assert not (tmp_path / "out").exists()
    assert runs_of(client, "compare") == []


def test_without_a_store_nothing_is_made(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from mlflow_project.cli import cli

    only_error(CliRunner().invoke(cli, ["compare", "0" * 32]), "not-in-store")
    assert list(tmp_path.iterdir()) == []


def test_an_export_is_a_folder_that_needs_no_server(invoke, client, small_checkpoints, tmp_path):
    assert invoke(*evaluate(small_checkpoints, "--ckpt-steps", "2,4")).exit_code == 0
    (sweep,) = runs_of(client, "eval")
    result = invoke("compare", sweep.info.run_id, "--output", "out", "--export", "report")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "report"
    assert "with 4 videos" in result.stdout
    drawn = {"page.png", "page.pdf"} if find_browser() else set()
    assert {path.name for path in folder.iterdir()} == {
        *("index.html", "videos", "data", "figure.png", "figure.pdf"),
        *drawn,
    }
    page = (folder / "index.html").read_text()
    places = re.findall(r'data-file="([^"]+)"', page) + re.findall(r'poster="([^"]+)"', page)
    assert len(places) == 8
    for place in places:
        assert (folder / place).stat().st_size > 100
    for film in folder.rglob("*.mp4"):
        trace = from_script(film.with_suffix(".trace.mjs").read_text())
        verify_video(film, trace["at"][-1] + 1)
    with (folder / "data" / "episodes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["label"], row["seed"]) for row in rows] == [
        (f"step-{step}", str(seed)) for step in (2, 4) for seed in range(5000, 5005)
    ]
    values = json.loads((folder / "data" / "comparison.json").read_text())
    assert [each["run"] for each in values["checkpoints"]] == [
        run.info.run_id
        for step in (2, 4)
        for run in client.search_runs(
            [sweep.info.experiment_id], f"tags.`checkpoint.sha256` != '' and attributes.run_name = 'step-{step}'"
        )
    ]

    # An earlier export is replaced as a whole; anything else is not touched.
    (folder / "videos" / "left.txt").write_text("of the last export")
    assert invoke("compare", sweep.info.run_id, "--output", "out", "--export", "report").exit_code == 0
    assert not (folder / "videos" / "left.txt").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    only_error(invoke("compare", sweep.info.run_id, "--output", "out", "--export", "mine"), "export-not-ours")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
