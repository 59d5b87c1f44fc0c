"""Aliases, their order, and who wins; on real stores."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient
from support import mortal

from mlflow_project.promotion import registry as registry_module
from mlflow_project.promotion.registry import CANDIDATE, CHAMPION, PREVIOUS, Registry
from mlflow_project.recorders.logged_checkpoints import log_model
from mlflow_project.tracking.runs import tracked_run
from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.ground.errors import PromotionRefused

TAGS = {"gate.evidence": "all"}


@pytest.fixture(params=["sqlite", pytest.param("server", marks=pytest.mark.slow)])
def uri(request, monkeypatch) -> str:
    on_server = request.param == "server"
    uri = request.getfixturevalue("server").uri if on_server else request.getfixturevalue("store")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


@pytest.fixture
def models(uri, bundles) -> list[tuple[str, str]]:
    """(model id, digest) of two checkpoints that the store knows."""
    with tracked_run("sft", output=Path("out")) as run:
        for path in bundles:
            log_model(run.recorder, read_bundle(path), "pi0-tiny", "output")
    client = MlflowClient(uri)
    found = []
    for path in bundles:
        digest = read_bundle(path).digest
        experiments = [each.experiment_id for each in client.search_experiments()]
        (model, *_) = client.search_logged_models(experiments, f"tags.`checkpoint.sha256` = '{digest}'")
        found.append((model.model_id, digest))
    return found


@pytest.fixture
def registry(uri, tmp_path) -> Registry:
    return Registry(MlflowClient(uri), f"stack-cube-{tmp_path.name}")


def aliases(registry: Registry) -> dict[str, str]:
    found = {alias: registry.aliased(alias) for alias in (CHAMPION, PREVIOUS, CANDIDATE)}
    return {alias: version.number for alias, version in found.items() if version}


def states(registry: Registry) -> list[str]:
    return [version.tags["promotion.state"] for version in registry.versions()]


def test_promotions_and_the_ways_back(registry, models):
    assert aliases(registry) == {}
    registry.promote(*models[0], TAGS, None)
    registry.promote(*models[1], TAGS, "1")
    registry.promote(*models[0], TAGS, "2")
    assert aliases(registry) == {CHAMPION: "3", PREVIOUS: "2", CANDIDATE: "3"}
    assert [each.number for each in registry.rollback({"rollback.run": "r"})] == ["3", "2"]
    assert aliases(registry) == {CHAMPION: "2", PREVIOUS: "1", CANDIDATE: "3"}
    assert [each.number for each in registry.rollback({})] == ["2", "1"]
    assert states(registry) == ["promoted", "rolled back", "rolled back"]
    assert registry.rolled_back(models[1][1]) == "2"
    with pytest.raises(PromotionRefused, match="first champion"):
        registry.rollback({})
    assert aliases(registry)[CHAMPION] == "1"


def test_the_champion_must_be_the_one_that_was_compared_with(registry, models):
    registry.promote(*models[0], TAGS, None)
    for expected in (None, "7"):
        with pytest.raises(PromotionRefused, match="is version 1 now"):
            registry.promote(*models[1], TAGS, expected)
    assert (aliases(registry), len(registry.versions())) == ({CHAMPION: "1", CANDIDATE: "1"}, 1)


@contextmanager
def meanwhile(name: str, action, *, after: bool):
    """Let `action` happen before or after the first call of a method of the client: what another machine does."""
    method, done = getattr(MlflowClient, name), []

    def interrupted(*arguments, **options):
        first = not done
        done.append(True)
        if first and not after:
            action()
        result = method(*arguments, **options)
        if first and after:
            action()
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowClient, name, interrupted)
        yield


@pytest.fixture
def elsewhere(registry, tmp_path, monkeypatch) -> Registry:
    """The same model, from a machine that does not see our lock."""
    with monkeypatch.context() as patch:
        patch.setenv("RLINF_ISAAC_CACHE", str(tmp_path / "elsewhere"))
        return Registry(registry._client, registry.name)


def test_of_two_machines_the_first_to_claim_wins(registry, elsewhere, models):
    registry.promote(*models[0], TAGS, None)
    third = ("m-0", "c" * 64)

    def other():
        with pytest.raises(PromotionRefused, match=r"version 2 of .* is about to take the place of version 1"):
            elsewhere.promote(models[0][0], third[1], TAGS, "1")

    with meanwhile("create_model_version", other, after=True):
        registry.promote(*models[1], TAGS, "1")
    assert aliases(registry) == {CHAMPION: "2", PREVIOUS: "1", CANDIDATE: "2"}
    assert states(registry) == ["promoted", "promoted", "lost"]


def test_a_machine_that_is_late_is_told(registry, elsewhere, models):
    registry.promote(*models[0], TAGS, None)
    with (
        meanwhile("create_model_version", lambda: elsewhere.promote(*models[0], TAGS, "1"), after=False),
        pytest.raises(PromotionRefused, match="was version 1 and is version 2 now"),
    ):
        registry.promote(*models[1], TAGS, "1")
    assert aliases(registry) == {CHAMPION: "2", PREVIOUS: "1", CANDIDATE: "2"}
    assert states(registry) == ["promoted", "promoted", "lost"]


def test_an_abandoned_claim_runs_out(registry, models, monkeypatch):
    registry.promote(*models[0], TAGS, None)
    registry._client.create_model_version(
        registry.name,
        f"models:/{models[0][0]}",
        tags={"checkpoint.sha256": "c" * 64, "promotion.replaces": "1", "promotion.state": "open"},
        model_id=models[0][0],
    )
    with pytest.raises(PromotionRefused, match="if that promotion was interrupted"):
        registry.promote(*models[1], TAGS, "1")
    monkeypatch.setattr(registry_module, "CLAIM_S", -1)
    registry.promote(*models[1], TAGS, "1")
    assert aliases(registry) == {CHAMPION: "4", PREVIOUS: "1", CANDIDATE: "4"}


@pytest.fixture(scope="module")
def promoter() -> Iterator[subprocess.Popen[str]]:
    with mortal(Path(__file__).with_name("mortal_promoter.py")) as process:
        yield process


class TestProcesses:
    """On a database of their own each, made from one that has a champion."""

    @pytest.fixture
    def prepared(self, store, models, tmp_path) -> Path:
        Registry(MlflowClient(store), "stack-cube").promote(*models[0], TAGS, None)
        return tmp_path / "mlflow.db"

    @pytest.fixture
    def uri(self, store, monkeypatch) -> str:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
        return store

    @staticmethod
    def promote(process, database: Path, model: tuple[str, str], *limits: int) -> list[list[int]]:
        order = {"uri": f"sqlite:///{database}", "model_id": model[0], "digest": model[1], "replaces": "1"}
        process.stdin.write(json.dumps(order | {"limits": limits}) + "\n")
        return json.loads(process.stdout.readline())

    def test_kill_9_at_any_line(self, promoter, prepared, models, tmp_path):
        def after(database: Path) -> Registry:
            return Registry(MlflowClient(f"sqlite:///{database}"), "stack-cube")

        whole = Path(shutil.copy(prepared, tmp_path / "whole.db"))
        ((status, lines),) = self.promote(promoter, whole, models[1], 0)
        assert (status, aliases(after(whole))[CHAMPION]) == (0, "2")
        for limit in [*sorted(random.Random(0).sample(range(2, lines), 10)), lines]:
            database = Path(shutil.copy(prepared, tmp_path / f"{limit}.db"))
            ((status, _),) = self.promote(promoter, database, models[1], limit)
            assert status == -signal.SIGKILL
            registry = after(database)
            champion = registry.aliased(CHAMPION)
            assert champion.tags["gate.evidence"] == ("all" if champion.number == "1" else models[1][1])
            if champion.number == "1":  # the same command again finishes
                assert self.promote(promoter, database, models[1], 0)[0][0] == 0
            champion = registry.aliased(CHAMPION)
            assert champion.digest == models[1][1]
            assert aliases(registry) == {CHAMPION: champion.number, PREVIOUS: "1", CANDIDATE: champion.number}

    def test_of_three_at_once_one_wins(self, promoter, prepared, models):
        results = self.promote(promoter, prepared, models[1], 0, 0, 0)
        assert sorted(status for status, _ in results) == [0, 3, 3]
        registry = Registry(MlflowClient(f"sqlite:///{prepared}"), "stack-cube")
        assert aliases(registry) == {CHAMPION: "2", PREVIOUS: "1", CANDIDATE: "2"}
        assert len(registry.versions()) == 2, "the others were told before they registered anything"
