"""From a name to a verified bundle: the cache, and kill -9 while it is filled."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from support import mortal

from mlflow_project.recorders.logged_checkpoints import bundle_tags
from mlflow_project.serving.log_model import log_policy_model
from mlflow_project.serving.resolve import resolve_model
from rlinf_isaac.ground.errors import BundleError, InvalidJob

CHAMPION = "models:/stack-cube@champion"


@pytest.fixture
def cache(registry, tmp_path, monkeypatch) -> Path:
    """An empty cache, beside the store of `registry`."""
    monkeypatch.setenv("RLINF_ISAAC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry)
    return tmp_path / "cache" / "bundles"


@pytest.fixture
def stored_weights(registry) -> Path:
    """The weights in the artifact store."""
    (path,) = Path(registry.removeprefix("sqlite:///")).parent.rglob("artifacts/6/model.safetensors")
    return path


def entries(cache: Path) -> list[str]:
    return sorted(entry.name for entry in cache.iterdir() if not entry.name.endswith(".lock"))


def code_of(name: str | Path) -> str:
    with pytest.raises(InvalidJob) as refused:
        resolve_model(str(name))
    return refused.value.problems[0].code


@pytest.mark.parametrize("name", [CHAMPION, "models:/stack-cube/1"])
def test_a_version_is_fetched_once_and_verified(cache, bundle, stored_weights, name):
    first = resolve_model(name)
    assert (first.digest, first.path, first.verified) == (bundle.digest, cache / bundle.digest, True)
    aside = stored_weights.rename(stored_weights.with_suffix(".aside"))
    try:
        assert resolve_model(name).path == first.path
    finally:
        aside.rename(stored_weights)
    assert entries(cache) == [bundle.digest]


def test_a_damaged_cache_is_noticed_and_fetched_again(cache, bundle, caplog):
    weights = resolve_model(CHAMPION).path / "model.safetensors"
    for damage in (flip, lambda path: path.write_bytes(path.read_bytes()[:-1]), Path.unlink):
        damage(weights)
        assert resolve_model(CHAMPION).digest == bundle.digest
        assert "damaged" in caplog.text
        caplog.clear()
    assert entries(cache) == [bundle.digest]


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_store_is_refused_and_leaves_nothing(cache, stored_weights, damage):
    whole = stored_weights.read_bytes()
    try:
        if damage == "flip":
            flip(stored_weights)
        elif damage == "cut":
            stored_weights.write_bytes(whole[: len(whole) // 2])
        else:
            stored_weights.unlink()
        with pytest.raises(BundleError):
            resolve_model(CHAMPION)
        assert entries(cache) == []
    finally:
        stored_weights.write_bytes(whole)


def test_names_that_lead_nowhere(cache, tmp_path, monkeypatch):
    assert code_of("models:/stack-cube/7") == "unknown-model"
    assert code_of("models:/stack-cube@nobody") == "unknown-model"
    assert code_of("models:/other/1") == "unknown-model"
    assert code_of("m-" + 32 * "0") == "unknown-model"
    assert code_of(tmp_path / "nothing") == "not-a-bundle"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'none.db'}")
    assert code_of(CHAMPION) == "unknown-model"
    assert not (tmp_path / "none.db").exists()


def test_through_a_server(server, bundle, tmp_path, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("RLINF_ISAAC_CACHE", str(tmp_path / "cache"))
    shutil.copytree(bundle.path, tmp_path / "6")
    mlflow.set_tracking_uri(server.uri)
    info = log_policy_model(resolve_model(str(tmp_path / "6")))
    shutil.rmtree(tmp_path / "6")
    assert resolve_model(info.model_uri).path == tmp_path / "cache" / "bundles" / bundle.digest
    assert resolve_model(info.model_uri).digest == bundle.digest


class TestModelsOfSft:
    """What `sft` recorded: a model with tags, whose bytes stay where they were made."""

    @pytest.fixture
    def model(self, store, bundle, tmp_path, monkeypatch):
        import mlflow

        monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
        monkeypatch.setenv("RLINF_ISAAC_CACHE", str(tmp_path / "cache"))
        mlflow.set_tracking_uri(store)
        shutil.copytree(bundle.path, tmp_path / "6")
        tags = bundle_tags(bundle) | {"checkpoint.uri": str(tmp_path / "6")}
        return mlflow.create_external_model(name="pi0-tiny-step-6", tags=tags, experiment_id="0")

    def test_is_served_from_where_it_lies(self, model, tmp_path, bundle):
        found = resolve_model(model.model_id)
        assert (found.path, found.digest) == (tmp_path / "6", bundle.digest)

    def test_cannot_be_served_when_it_changed(self, model, tmp_path):
        flip(tmp_path / "6" / "model.safetensors")
        assert code_of(model.model_id) == "model-bytes-missing"
        assert entries(tmp_path / "cache" / "bundles") == []

    def test_can_be_given_its_bytes_and_stays_the_same_model(self, model, tmp_path, bundle, store):
        assert log_policy_model(bundle, model_id=model.model_id).model_id == model.model_id
        shutil.rmtree(tmp_path / "6")
        assert resolve_model(model.model_id).path == tmp_path / "cache" / "bundles" / bundle.digest
        assert MlflowClient(store).get_logged_model(model.model_id).name == "pi0-tiny-step-6"

    def test_a_version_that_promises_another_checkpoint(self, model, store):
        client = MlflowClient(store)
        client.create_registered_model("stack-cube")
        source = f"models:/{model.model_id}"
        client.create_model_version("stack-cube", source, tags={"checkpoint.sha256": 64 * "0"})
        client.create_model_version("stack-cube", "/some/directory")
        client.set_logged_model_tags(model.model_id, {"checkpoint.sha256": "../../elsewhere"})
        assert code_of(model.model_id) == "foreign-model"
        assert code_of("models:/stack-cube/1") == "model-replaced"
        assert code_of("models:/stack-cube/2") == "foreign-model"


class TestProcesses:
    @pytest.fixture
    def fetcher(self, cache) -> Iterator[subprocess.Popen[str]]:
        with mortal(Path(__file__).with_name("mortal_fetcher.py")) as process:
            yield process

    @staticmethod
    def fetch(process, *limits: int) -> list[tuple[int, int, int, str]]:
        """(exit status, lines, downloads, digest) of each process."""
        process.stdin.write(f"{CHAMPION} {' '.join(map(str, limits))}\n")
        words = process.stdout.readline().split()
        return [(int(a), int(b), int(c), d) for a, b, c, d in zip(*[iter(words)] * 4, strict=True)]

    def test_two_at_once_download_once(self, fetcher, cache, bundle):
        results = self.fetch(fetcher, 0, 0, 0)
        assert [digest for *_, digest in results] == [bundle.digest] * 3
        assert sum(downloads for _, _, downloads, _ in results) == 1

    def test_kill_9_at_any_line(self, fetcher, cache, bundle):
        ((_, lines, _, _),) = self.fetch(fetcher, 0)
        chooser, torn = random.Random(0), 0
        for limit in [*chooser.sample(range(2, lines), 12), lines]:
            shutil.rmtree(cache)
            ((status, *_),) = self.fetch(fetcher, limit)
            assert status == -signal.SIGKILL
            left = entries(cache) if cache.exists() else []
            torn += any(name.startswith(f".{bundle.digest}.tmp-") for name in left)
            if bundle.digest in left:
                assert resolve_model(str(cache / bundle.digest)).digest == bundle.digest
            ((status, _, _, digest),) = self.fetch(fetcher, 0)
            assert (status, digest) == (0, bundle.digest)
            assert entries(cache) == [bundle.digest]
        assert torn > 2


def flip(path: Path) -> None:
    """Change one bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
