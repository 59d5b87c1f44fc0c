"""A real training in another process, looked at while it runs, after it was killed, and when it has ended."""

from __future__ import annotations

import json
from pathlib import Path

from support import SMALL_PRESET, only_error


def test_a_training_from_its_first_step_to_its_end(invoke, start, store, small_dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("RLINF_ISAAC_CACHE", str(tmp_path / "cache"))  # where no verb of another test is listed
    sft = ("sft", "--dataset", small_dataset, "--output", "out", "--preset", SMALL_PRESET)
    sft += ("--steps", "40", "--save-interval", "10", "--overrides", "sft.log_interval=2")
    seen = {}

    process = start(*sft)
    for line in process.stderr:
        seen.setdefault("first", line)
        if " 20/40" in line:
            seen["line"] = line
            seen["status"] = json.loads(invoke("status", "--output", "out", "--json").stdout)
            seen["watch"] = invoke("watch", "--output", "out").stdout
            process.kill()
            break
    process.communicate()
    # The link is the first thing that is said; a line has loss, learning rate and the saved checkpoint.
    assert seen["first"].startswith("run ")
    assert "/runs/" in seen["first"]
    for words in (" 50 %", "  loss ", "  lr ", "  saved 20"):
        assert words in seen["line"]
    (status,) = seen["status"]
    assert (status["state"], status["verb"], status["pid"]) == ("running", "sft", process.pid)
    assert status["progress"]["total"] == 40
    assert status["progress"]["done"] >= 20
    assert status["checkpoint"]["step"] >= 20
    assert status["run_id"] in seen["first"]
    for words in ("running", "parameters", "all trained", "sft ", "loss", "sft 20/40", "cpu"):
        assert words in seen["watch"]

    # Its process is gone, and nobody has ended its run.
    died = invoke("status", status["run_id"][:8], "--output", "out")
    assert (died.exit_code, "died" in died.stdout) == (1, True), died.output
    assert [row["status"] for row in json.loads(invoke("ls", "--json").stdout)["runs"]] == ["died"]
    assert "the same command resumes it" in invoke("watch", "--once", "--output", "out").stdout

    # The same command says where it resumes, and ends; the newest verb is that one.
    again = start(*sft)
    _, log = again.communicate()
    assert "sft resumes after step " in log
    ended = invoke("watch", "--once", "out")
    assert ended.exit_code == 0
    assert "finished" in ended.stdout
    assert "sft 40/40  100 %" in ended.stdout
    assert invoke("status", "out").exit_code == 0

    # What is listed are both calls, and each checkpoint with its place.
    listed = json.loads(invoke("ls", "--json").stdout)["runs"]
    assert [row["status"] for row in listed] == ["finished", "killed"]
    assert [each["step"] for each in listed[0]["checkpoints"]] == [10, 20, 30, 40]
    assert all(each["size"] > 1000 and Path(each["where"]).is_dir() for each in listed[0]["checkpoints"])


def test_watching_nothing(invoke, tmp_path, monkeypatch):
    monkeypatch.setenv("RLINF_ISAAC_CACHE", str(tmp_path / "cache"))
    only_error(invoke("watch", "--once"), "no-journal")
    only_error(invoke("watch", "0123456789abcdef"), "unknown-run")
    only_error(invoke("status", "."), "no-journal")
    assert invoke("status").stdout == "no verb has run on this machine lately\n"
