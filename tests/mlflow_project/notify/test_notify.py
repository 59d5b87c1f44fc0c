"""What people are told of a run: by a real HTTP server, and by a real command."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from webhook import Hook

from mlflow_project.notify import addresses, notifier
from mlflow_project.notify.addresses import VARIABLE, parse
from mlflow_project.notify.notifier import Notifier
from mlflow_project.tracking.followers import followed_by
from mlflow_project.tracking.recorder import Recorder
from mlflow_project.tracking.runs import tracked_run
from mlflow_project.vocabulary import ENDED_TAG, RESULT_TAG, ROLLBACK_TAG
from rlinf_isaac.ground.errors import InvalidJob, TrainingDiverged


@pytest.fixture(autouse=True)
def patient(monkeypatch) -> None:
    """However busy the machine is, there is time for everything that has no end of its own here."""
    monkeypatch.setattr(notifier, "_PATIENCE_FOR_ID_S", 120.0)
    monkeypatch.setattr("mlflow_project.tracking.runs.PATIENCE_S", 120.0)


@pytest.fixture
def hook() -> Iterator[Hook]:
    each = Hook()
    yield each
    each.close()


@pytest.fixture
def command(tmp_path) -> tuple[str, Callable[[], list[dict]]]:
    """A command that writes down what it was told, and what it has written."""
    script, told = tmp_path / "tell me", tmp_path / "told"
    script.write_text(
        f"#!{sys.executable}\n"
        "import json, os, sys\n"
        "given = {k: v for k, v in os.environ.items() if k.startswith('RLINF_ISAAC_EVENT_')}\n"
        f"open({str(told)!r}, 'a').write(json.dumps([sys.argv[1:], json.load(sys.stdin), given]) + chr(10))\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)

    def read() -> list[dict]:
        return [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []

    return f"'{script}' 'two words' \\$HOME", read


def test_the_end_and_a_failure_reach_a_url_and_a_command(store, hook, command):
    line, told = command
    with (
        followed_by(Notifier([parse(hook.url), parse(line)])),
        tracked_run("sft", output=Path("out"), name="sft a") as run,
    ):
        run.recorder.metrics({"train/loss": 0.25, "train/lr": 1e-3}, 20)
        with tracked_run("eval", output=Path("out")):  # an inner end is no news
            pass
    (post,) = hook.posts
    run_id, experiment = run.ids()
    assert (post["event"], post["verb"], post["run"], post["status"]) == ("finished", "sft", "sft a", "FINISHED")
    assert (post["id"], post["metrics"]) == (run_id, {"train/loss": 0.25, "train/lr": 1e-3})
    assert post["link"].endswith(f"/#/experiments/{experiment}/runs/{run_id}")
    assert post["type"].startswith("application/json")
    assert post["text"].startswith("✅ sft a: finished on ")
    assert "train/loss 0.25" in post["text"]
    assert post["time"].endswith("Z")
    ((arguments, given, environment),) = told()
    assert arguments == ["two words", "$HOME"], "no shell has read them"
    assert given == {key: value for key, value in post.items() if key not in ("path", "type")}
    assert (environment["RLINF_ISAAC_EVENT_EVENT"], environment["RLINF_ISAAC_EVENT_RUN"]) == ("finished", "sft a")

    with pytest.raises(RuntimeError), followed_by(Notifier([parse(hook.url)])), tracked_run("rl", output=Path("out")):
        raise RuntimeError("no luck at https://me:password123@there")
    assert (hook.posts[1]["event"], hook.posts[1]["status"]) == ("failed", "FAILED")
    assert hook.posts[1]["message"] == "RuntimeError: no luck at https://***@there"


def test_divergence_and_collapse_are_told_when_they_happen_and_not_again(store, hook):
    def told() -> list[tuple[str, str, str]]:
        return [(post["event"], post["status"], post["message"]) for post in hook.posts]

    def train() -> None:
        with followed_by(Notifier([parse(hook.url)])), tracked_run("rl", output=Path("out")) as run:
            diverge(run.recorder)

    def diverge(recorder: Recorder) -> None:
        nested = recorder.start_run("from-step-4")
        nested.metrics({"train/loss": float("nan")}, 1, time_s=1.0)  # told again after a resume
        nested.tags({f"{ROLLBACK_TAG}1": "back to the start checkpoint"})
        nested.metrics({"train/policy_loss": float("inf"), "rollout/success_once": 0.5}, 2)
        nested.tags({f"{ROLLBACK_TAG}2": "back to checkpoint 1, with learning rate 0.1: the loss is inf"})
        nested.tags({ENDED_TAG: "collapsed", RESULT_TAG: "Training ended after 2 roll-backs."})
        raise TrainingDiverged("the gradient is nan")

    with pytest.raises(TrainingDiverged):
        train()
    assert told() == [
        ("diverged", "RUNNING", "train/policy_loss is inf at step 2"),
        (
            "rolled_back",
            "RUNNING",
            "iteration 2 was a collapse; back to checkpoint 1, with learning rate 0.1: the loss is inf",
        ),
        ("collapsed", "RUNNING", "Training ended after 2 roll-backs."),
        ("diverged", "FAILED", "TrainingDiverged: the gradient is nan"),
    ]
    assert {post["run"] for post in hook.posts[:3]} == {"from-step-4"}
    assert hook.posts[0]["metrics"] == {"train/loss": None, "train/policy_loss": None, "rollout/success_once": 0.5}


class Hasty(Notifier):
    """Has no time left at the end."""

    def close(self, limit_s: float) -> None:
        super().close(0.2)


def test_an_address_is_tried_twice_and_then_left(store, hook, command, caplog, monkeypatch):
    """A refusal, a command that fails, and a server that never answers: no harm is done and no secret told."""
    monkeypatch.setattr(notifier, "_RETRY_S", 0.0)
    hook.answers = [503]
    with followed_by(Notifier([parse(hook.url), parse("false")])), tracked_run("sft", output=Path("out")):
        pass
    assert [post["event"] for post in hook.posts] == ["finished"], "the second time"
    assert "false was not notified that finished: it ended with exit code 1" in caplog.text

    caplog.clear()
    hook.hold.clear()
    with followed_by(Hasty([parse(hook.url)])), tracked_run("sft", output=Path("out")) as run:
        pass
    assert run.outcome is not None
    assert f"http://127.0.0.1:{hook.server.server_port}/*** was not notified" in caplog.text
    assert "secret" not in caplog.text


def test_several_addresses_are_told_apart(monkeypatch):
    monkeypatch.setenv(VARIABLE, "true\nhttps://host/a;b ; false")
    assert addresses.chosen(("auto",)) == ["true", "https://host/a;b", "false"]
    assert addresses.chosen(("auto", "none", "echo 'a' ; true")) == ["true", "https://host/a;b", "false", "echo 'a'"]
    assert str(parse("https://me:pw@host:8/secret?x=y")) == "https://host:8/***"
    with pytest.raises(InvalidJob):
        parse("")
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    (warning,) = addresses.problems(("https://host/secret",))
    assert (warning.code, warning.level) == ("notify-recorded", "warning")
    assert "secret" not in warning.cause.replace("may be a secret", "")
