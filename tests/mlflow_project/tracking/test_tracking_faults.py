"""Journals of a whole `main` through everything that goes wrong between a client and its tracking server.

What is in the store afterwards equals a clean delivery: nothing lost, nothing doubled, nothing left RUNNING.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from faults import postgres, proxy
from faults.proxy import Proxy
from mlflow import MlflowClient
from support import SHORT_EVALUATION, SMALL, SMALL_RL

from mlflow_project.cli import cli
from mlflow_project.tracking.journal import Journal
from mlflow_project.tracking.mlflow_environment import prepare_environment
from mlflow_project.tracking.sync import sync
from mlflow_project.tracking.uploader import Uploader
from rlinf_isaac.ground import lines

pytestmark = pytest.mark.slow

STORES = os.environ.get("RLINF_ISAAC_FAULT_STORES", "sqlite,postgresql").split(",")
SEEDS = range(1, 1 + int(os.environ.get("RLINF_ISAAC_FAULT_SEEDS", "1")))
MAIN = [*SMALL, *(item for item in SMALL_RL if item != SHORT_EVALUATION), "eval.episodes=2", "rl.episodes=2"]


@pytest.fixture(scope="module")
def whole_main(tmp_path_factory, empty_database) -> Path:
    """The output of a real, small `main`, whose journal has been nowhere."""
    directory = tmp_path_factory.mktemp("main")
    shutil.copy(empty_database, directory / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        arguments = ["main", "--rl-iterations", "1", "--output", "out", "--overrides", ",".join(MAIN)]
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0, result.output
    for state in directory.glob("out/journal/*.state.json"):
        state.unlink()
    return directory / "out"


@pytest.fixture
def journal(whole_main, tmp_path) -> Path:
    """A copy of its directory of journals; what they name stays where it is."""
    return shutil.copytree(whole_main / "journal", tmp_path / "copy" / "journal")


@pytest.fixture
def clean(whole_main, tmp_path, empty_database, content) -> Callable[[str], None]:
    """Compare a store with one that took the journal without any trouble."""
    shutil.copy(empty_database, tmp_path / "clean.db")
    uri = f"sqlite:///{tmp_path / 'clean.db'}"
    assert sync(shutil.copytree(whole_main / "journal", tmp_path / "clean"), tracking_uri=uri).complete

    def compare(other: str) -> None:
        expected, found = content(uri, by_name=False), content(other, by_name=False)
        assert len(found.runs) == len(expected.runs) >= 10
        assert {run["status"] for run in found.runs.values()} == {"FINISHED"}
        assert found == expected

    return compare


@pytest.fixture(scope="module")
def new_database() -> Iterator[Callable[[], str]]:
    """Make databases of PostgreSQL with MLflow's tables, each in a moment, once there is a first one."""
    if postgres.programs() is None:
        pytest.skip("PostgreSQL is not installed")
    with postgres.cluster() as cluster:
        prepare_environment()
        command = [sys.executable, "-m", "mlflow", "db", "upgrade", cluster.create("template")]
        subprocess.run(command, check=True, capture_output=True)
        numbers = itertools.count()
        yield lambda: cluster.create(f"store{next(numbers)}", "template")


@pytest.fixture(params=STORES)
def tracking(request, make_server):
    """A running ``mlflow server`` on sqlite or PostgreSQL."""
    if request.param == "sqlite":
        return make_server()
    return make_server(request.getfixturevalue("new_database")())


def deliver(directory: Path, uri: str) -> None:
    """Sync until all is there; pages and lost answers never become refusals."""
    for _ in range(80):
        report = sync(directory, tracking_uri=uri, patience_s=30)
        assert report.refused == []
        if report.complete:
            return
    raise AssertionError(report)


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_goes_wrong(tracking, own_server, journal, clean, monkeypatch, seed):
    """Pages, resets and lost answers all the time; for a while nobody answers; for another the server of another
    database does, whose experiment has the same id and the same name."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    MlflowClient(own_server.uri).create_experiment("rlinf-isaac")
    rest = proxy.drawn(seed, 0.2)
    faults = proxy.during(80, 83, "hang", proxy.during(120, 160, "other", rest))
    with Proxy(tracking.uri, other=own_server.uri, faults=faults) as between:
        deliver(journal, between.uri)
        seen = {fault for _, _, fault in between.requests}
    assert seen == {*proxy.FAULTS, "hang", "other", None}
    clean(tracking.uri)


@pytest.mark.parametrize("seed", SEEDS)
def test_live_while_everything_goes_wrong(tracking, whole_main, tmp_path, clean, seed):
    (original,) = (whole_main / "journal").glob("*.jsonl")
    texts = original.read_text().splitlines()
    prepare_environment()
    with Proxy(tracking.uri, faults=proxy.drawn(seed, 0.2)) as between:
        journal = Journal.create(tmp_path / "journal", "main", between.uri)
        uploader = Uploader(journal, between.uri)
        for text in texts[1:]:
            lines.append(journal.path, text)
            journal.on_append()
        assert uploader.close(limit_s=300).pending == 0
    clean(tracking.uri)


def test_four_clients_with_one_journal_at_once(tracking, whole_main, tmp_path, clean):
    copies = [shutil.copytree(whole_main / "journal", tmp_path / str(number) / "journal") for number in range(4)]
    command = [sys.executable, "-m", "mlflow_project.cli", "sync", "--tracking-uri", tracking.uri, "--output"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    clients = [
        subprocess.Popen(
            [*command, str(copy.parent)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for copy in copies
    ]
    for client in clients:
        output, _ = client.communicate()
        assert client.returncode == 0, output.decode()
    clean(tracking.uri)
