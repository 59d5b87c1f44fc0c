"""The real client of huggingface_hub against a hub on this machine, and against the cache that it made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from corpus.hub import TOKEN, Hub, serve

from rlinf_isaac.checkpoint.foreign.hub import Location, is_hub, parse
from rlinf_isaac.ground.errors import BundleError
from rlinf_isaac.ground.hub import uri_of

FILES = {
    "README.md": b"# A model",
    "config.json": b"{}",
    "model.safetensors": b"\2\0\0\0\0\0\0\0{}",
    "model.safetensors.index.json": b"{}",
    "optimizer.pt": b"large",
    "training_state/optimizer_state.safetensors": b"large",
    "assets/droid/norm_stats.json": b'{"norm_stats": {}}',
    "params/_METADATA": b"{}",
    "params/d/0a1b": b"chunk",
    "train_state/d/0a1b": b"large",
    "sft/step_4/model.safetensors": b"\2\0\0\0\0\0\0\0{}",
}
KEPT = [name for name in FILES if name != "README.md" and "optimizer" not in name and "train_state" not in name]
NAME = "lab/pi0-base"

FETCH = """
import json, sys
from rlinf_isaac.checkpoint.foreign.hub import fetch
from rlinf_isaac.ground.errors import BundleError
try:
    found = fetch(sys.argv[1])
    print(json.dumps({"path": str(found.path), "revision": found.revision, "uri": found.uri}))
except BundleError as error:
    (problem,) = error.problems
    print(json.dumps({"code": problem.code, "cause": problem.cause, "cure": problem.cure}))
"""


@pytest.fixture(scope="module")
def hub():
    models = {
        NAME: {"main": FILES, "v2": {**FILES, "config.json": b'{"v": 2}'}, "refs/pr/1": {"README.md": b""}},
        "lab/gated": {"main": FILES},
        "lab/words": {"main": {"README.md": b""}},
    }
    with serve(Hub(models, gated={"lab/gated"})) as served:
        yield served


@pytest.fixture
def fetch(tmp_path, hub):
    """Fetch in a process of its own: the client reads its environment when it is imported."""

    def run(uri: str, **environment: str) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        own |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        command = [sys.executable, "-c", FETCH, uri]
        done = subprocess.run(command, capture_output=True, text=True, env={**own, **environment}, check=False)
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        hub.status = 0
        return json.loads(done.stdout.splitlines()[-1])

    return run


def below(path: str) -> list[str]:
    return sorted(file.relative_to(path).as_posix() for file in Path(path).rglob("*") if file.is_file())


def test_what_matters_is_downloaded_once_and_found_offline(hub, fetch):
    found = fetch(f"hf://{NAME}")
    assert found["revision"] == hub.commit(NAME, "main")
    assert below(found["path"]) == sorted(KEPT)
    assert (Path(found["path"]) / "params/d/0a1b").read_bytes() == b"chunk"
    hub.asked.clear()
    assert fetch(f"hf://{NAME}") == found
    assert not [path for _, path in hub.asked if "/resolve/" in path]
    hub.asked.clear()
    assert fetch(f"hf://{NAME}", HF_HUB_OFFLINE="1") == found
    assert found["uri"] == f"hf://{NAME}@{found['revision']}"
    assert fetch(found["uri"], HF_HUB_OFFLINE="1") == found
    assert hub.asked == []
    hub.status = 503
    assert fetch(f"hf://{NAME}") == found  # a hub that is down


def test_a_folder_and_a_revision(hub, fetch):
    found = fetch(f"hf://{NAME}/sft/step_4/@v2")
    assert found["revision"] == hub.commit(NAME, "v2")
    assert below(found["path"]) == ["model.safetensors"]
    assert not (Path(found["path"]).parents[1] / "model.safetensors").exists()


def test_a_gated_model_wants_a_token_and_gets_it(hub, fetch):
    refused = fetch("hf://lab/gated")
    assert refused["code"] == "hub-gated"
    assert "hf auth login" in refused["cure"]
    assert "HF_TOKEN" in refused["cure"]
    assert below(fetch("hf://lab/gated", HF_TOKEN=TOKEN)["path"]) == sorted(KEPT)


@pytest.mark.parametrize(
    ("uri", "code", "cause"),
    [
        ("hf://lab/pi0-bass", "hub-no-repo", "hf://lab/pi0-bass does not exist, or is private"),
        (f"hf://{NAME}@v3", "hub-no-revision", f"hf://{NAME} has no revision 'v3'"),
        ("hf://lab/words", "hub-no-weights", "lab/words at "),
        (f"hf://{NAME}@refs/pr/1", "hub-no-weights", f"{NAME} at "),
        (f"hf://{NAME}/nowhere", "hub-no-weights", "has no weights in nowhere/"),
        ("hf://lab/pi0..base", "hub-uri", "hf://lab/pi0..base is not a valid name of a model"),
    ],
)
def test_what_is_not_there(fetch, uri, code, cause):
    refused = fetch(uri)
    assert refused["code"] == code
    assert cause in refused["cause"]


def test_no_hub_and_nothing_in_the_cache(hub, fetch):
    offline = fetch(f"hf://{NAME}@v2", HF_HUB_OFFLINE="1")
    assert offline["code"] == "hub-unreachable"
    assert "HF_HUB_OFFLINE is set" in offline["cause"]
    assert f"hf download {NAME} --revision v2" in offline["cure"]
    # Port 9 is that of the discard service, where nobody listens.
    alone = fetch(f"hf://{NAME}", HF_ENDPOINT="http://127.0.0.1:9")
    assert alone["code"] == "hub-unreachable"
    assert "ConnectError" in alone["cause"]
    hub.status = 500
    assert fetch(f"hf://{NAME}")["code"] == "hub-unreachable"


def test_without_the_client(fetch, tmp_path):
    (tmp_path / "huggingface_hub.py").write_text("raise ImportError('not here')")
    refused = fetch(f"hf://{NAME}", PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    assert refused["code"] == "no-huggingface-hub"
    assert "pip install 'rlinf-isaac[hub]'" in refused["cure"]


def test_spelling():
    assert parse("hf://a/b") == Location("a/b", "", None)
    assert parse(Path("hf://a/b@c")) == Location("a/b", "", "c")
    assert is_hub(Path("hf://a/b@c"))
    assert parse("hf://a/b.c/d/e-f") == Location("a/b.c", "d/e-f", None)
    assert parse("hf://a/b/@refs/pr/1") == Location("a/b", "", "refs/pr/1")
    assert parse("hf://a/b/c@v1.0") == Location("a/b", "c", "v1.0")
    assert parse("hf://a/b@v1.0/c/d") == Location("a/b", "c/d", "v1.0")
    assert parse("hf://a/b@refs/pr/1/c") == Location("a/b", "c", "refs/pr/1")
    assert parse("hf://a/b@fix%2Fnorm") == Location("a/b", "", "fix/norm")
    assert parse("hf://datasets/a/b@v2.1", "dataset") == parse("hf://a/b@v2.1", "dataset") == ("a/b", "", "v2.1")
    for uri in (
        "hf://a",
        "hf:/a/b",
        "HF://a/b",
        "hf://a/b@",
        "hf://a/b@c@d",
        "hf://a/b/../c",
        "hf://a/b@v1/../c",
        "hf://a/b/c@v1/d",
        "hf://a/b//c",
        "hf://a/b c",
        "hf://datasets/a/b",
        "hf://../b",
        "hf://a/b/.",
    ):
        assert is_hub(uri)
        with pytest.raises(BundleError) as error:
            parse(uri)
        assert error.value.problems[0].code == "hub-uri", uri
    assert not is_hub("models:/a@b")


def test_the_cache_says_what_it_holds(tmp_path):
    commit = "0123456789abcdef" * 2 + "01234567"
    snapshot = tmp_path / "hub" / "models--lab--pi0--base" / "snapshots" / commit
    assert uri_of(snapshot) == f"hf://lab/pi0--base@{commit}"
    assert uri_of(snapshot / "sft" / "4") == f"hf://lab/pi0--base@{commit}/sft/4"
    assert uri_of(tmp_path / "checkpoints" / "4") is None
