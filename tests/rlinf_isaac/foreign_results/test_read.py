"""Results of other tools: files that the tools wrote (files/README.md), tables, and damage to all of them."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlinf_isaac.foreign_results.model import Options
from rlinf_isaac.foreign_results.read import READERS, format_of, read_foreign
from rlinf_isaac.ground.errors import InvalidJob

FILES = Path(__file__).parent / "files"
ARENA = json.dumps({"gr1_open": {"success_rate": 0.25, "num_episodes": 8}})
ARENA_EPISODES = "".join(
    json.dumps(
        {"job_name": job, "episode_in_env": 0, "env_id": i, "seed": 7, "success": success, "episode_length": 40 + i}
    )
    + "\n"
    for job in ("gr1_open", "gr1_close")
    for i, success in enumerate((True, False))
)
ROBOMIMIC = (
    'Average Rollout Stats\n{\n  "Return": 0.5,\n  "Horizon": 9.0,\n  "Success_Rate": 0.5,\n  "Num_Success": 4.0\n}\n'
)
TABLE = "task,seed,policy,success,force\npush,1,a,1,0.5\npush,2,a,false,\npush,1,b,0,nan\npush,2,b,True,1\n"


def read(path: Path, **stated):
    return read_foreign(path, format_of(path), Options(**stated))


def code(path: Path, **stated) -> str:
    with pytest.raises(InvalidJob) as caught:
        read(path, **stated)
    return caught.value.problems[0].code


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["vla_eval_0.8.0_aggregate.json", "vla_eval_0.8.0_recording.sqlite"])
def test_vla_eval(name):
    results = read(FILES / name)
    assert (results.format, results.policies) == ("vla-eval", ("random",))
    assert results.version == ("0.8.0" if name.endswith("json") else "not known")
    said = json.loads((FILES / "vla_eval_0.8.0_aggregate.json").read_text())
    counts = {task["task"]: (task["mean_success"], task["num_episodes"]) for task in said["tasks"]}
    assert {arm.task: (arm.successes / arm.n, arm.n) for arm in results.arms} == counts
    assert all(arm.seeded for arm in results.arms)
    assert [row.length for row in results.arms[0].rows] == [10 + i for i in range(10)]
    assert results.known["seed"] == 7


def test_of_a_vla_eval_episode_that_was_tried_again_the_last_counts(tmp_path):
    path = tmp_path / "recording-x.sqlite"
    path.write_bytes((FILES / "vla_eval_0.8.0_recording.sqlite").read_bytes())
    before = read(path).arms
    with closing(sqlite3.connect(path)) as database, database:
        (row,) = database.execute("SELECT * FROM episode_results WHERE task_name = 'reach' AND episode_id = 0")
        solved = json.loads(row[6])["success"]
        again = ["again", *row[1:6], json.dumps({"success": not solved}), *row[7:]]
        database.execute(f"INSERT INTO episode_results VALUES ({','.join('?' * len(again))})", again)
    after = read(path).arms
    assert [arm.n for arm in after] == [arm.n for arm in before]
    assert abs(sum(arm.successes for arm in after) - sum(arm.successes for arm in before)) == 1


def test_lerobot_of_one_task():
    results = read(FILES / "lerobot_0.4.4", policy="act")
    said = json.loads((FILES / "lerobot_0.4.4/eval_info.json").read_text())
    (arm,) = results.arms
    assert 100 * arm.successes / arm.n == said["aggregated"]["pc_success"]
    assert arm.policy == "act"
    assert arm.seeded
    assert [row.seed for row in arm.rows] == [1000 + i for i in range(8)]
    assert arm.rows[0].length is None


def test_lerobot_of_several_tasks_leaves_seeds_out_unless_they_are_stated():
    results = read(FILES / "lerobot_0.4.4_tasks")
    said = json.loads((FILES / "lerobot_0.4.4_tasks/eval_info.json").read_text())["overall"]
    assert sum(arm.n for arm in results.arms) == said["n_episodes"]
    assert [arm.seeded for arm in results.arms] == [False, False]
    stated = read(FILES / "lerobot_0.4.4_tasks", first_seed=1000)
    assert [arm.seeded for arm in stated.arms] == [True, True]
    assert stated.digest != results.digest


def test_a_video_is_taken_from_below_the_directory_only(tmp_path):
    (tmp_path / "secret.mp4").write_bytes(b"")
    run = tmp_path / "run"
    (run / "videos").mkdir(parents=True)
    (run / "videos/eval_episode_0.mp4").write_bytes(b"")
    value = json.loads((FILES / "lerobot_0.4.4/eval_info.json").read_text())
    value["video_paths"] = ["/elsewhere/run/videos/eval_episode_0.mp4", "../secret.mp4", str(tmp_path / "secret.mp4")]
    write(run / "eval_info.json", json.dumps(value))
    videos = [row.video for row in read(run).arms[0].rows]
    assert videos == [run / "videos/eval_episode_0.mp4", *[None] * 7]


def test_summaries_that_do_not_fit_their_episodes_are_refused(tmp_path):
    value = json.loads((FILES / "lerobot_0.4.4/eval_info.json").read_text())
    value["aggregated"]["pc_success"] = 99.0
    assert code(write(tmp_path / "eval_info.json", json.dumps(value))) == "results-damaged"


def test_tables(tmp_path):
    results = read(write(tmp_path / "t.csv", TABLE))
    assert [(arm.policy, arm.task, arm.successes, arm.n) for arm in results.arms] == [
        ("a", "push", 1, 2),
        ("b", "push", 1, 2),
    ]
    assert [dict(row.extras) for arm in results.arms for row in arm.rows] == [{"force": 0.5}, {}, {}, {"force": 1.0}]
    assert code(write(tmp_path / "t.csv", TABLE + "push,2,b,1,1\n")) == "results-damaged"


def test_rates_need_a_number_of_episodes(tmp_path):
    path = write(tmp_path / "w.csv", "Name,_runtime,eval/success_once\nbefore,1,0.859375\nafter,1,0.953125\n")
    assert code(path) == "rate-without-n"
    assert [arm.counts for arm in read(path, episodes=64).arms] == [(55, 64), (61, 64)]
    assert code(path, episodes=10) == "results-damaged"  # no whole number of successes has this rate
    history = '{"_step": 1, "eval/success_rate": 0.5}\n{"_step": 2, "eval/success_rate": 0.75}\n{"_step": 3}\n'
    assert [arm.counts for arm in read(write(tmp_path / "h.jsonl", history), episodes=4).arms] == [(3, 4)]


def test_episodes_of_arena(tmp_path):
    write(tmp_path / "episode_results.jsonl", ARENA_EPISODES)
    results = read(tmp_path)
    assert [(arm.policy, arm.task, arm.successes, arm.n, arm.seeded) for arm in results.arms] == [
        ("gr1_open", "", 1, 2, False),
        ("gr1_close", "", 1, 2, False),
    ]
    assert [row.length for row in results.arms[0].rows] == [40, 41]
    assert [(arm.policy, arm.task) for arm in read(tmp_path, policy="gr00t").arms] == [
        ("gr00t", "gr1_open"),
        ("gr00t", "gr1_close"),
    ]
    before = {"job_name": "a", "episode_idx": 0, "outcomes": {"success_rate": 1.0, "moved": 0.5}}
    (row,) = read(write(tmp_path / "before.jsonl", json.dumps(before))).arms[0].rows
    assert (row.success, row.extras) == (True, {"success_rate": 1.0, "moved": 0.5})
    assert code(write(tmp_path / "no.jsonl", json.dumps(before | {"outcomes": {"moved": 1}}))) == "results-damaged"


def test_summaries(tmp_path):
    assert read(write(tmp_path / "m.json", ARENA)).arms[0].counts == (2, 8)
    assert read(write(tmp_path / "log.txt", ROBOMIMIC)).arms[0].counts == (4, 8)
    assert code(write(tmp_path / "n.json", '{"a": {"success_rate": 0.5}}')) == "rate-without-n"
    assert code(write(tmp_path / "x.json", "[]")) == "unknown-results"


@given(data=st.data())
def test_random_damage_is_a_problem_and_never_a_crash(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    wholes = {
        "lerobot": (FILES / "lerobot_0.4.4_tasks/eval_info.json").read_bytes(),
        "vla-eval": (FILES / "vla_eval_0.8.0_aggregate.json").read_bytes(),
        "arena": ARENA.encode(),
        "arena episodes": ARENA_EPISODES.encode(),
        "robomimic": ROBOMIMIC.encode(),
        "table": TABLE.encode(),
        "recording": (FILES / "vla_eval_0.8.0_recording.sqlite").read_bytes(),
    }
    name = data.draw(st.sampled_from(sorted(wholes)))
    content = bytearray(wholes[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        cut = data.draw(st.sampled_from([0, 1, 7, len(content)]))
        put = st.binary(max_size=6) | st.sampled_from([b"null", b"[]", b"{}", b"-1", b"1e999", b'"', b",", b"NaN"])
        content[at : at + cut] = data.draw(put)
    ending = {"table": "csv", "robomimic": "txt", "recording": "sqlite", "arena episodes": "jsonl"}.get(name, "json")
    path = folder / f"damaged.{ending}"
    path.write_bytes(content)
    for format in {name.split()[0], "table"} & READERS.keys() or {"vla-eval"}:
        with suppress(InvalidJob):
            assert all(arm.n > 0 for arm in read_foreign(path, format, Options()).arms)
    with suppress(InvalidJob):
        format_of(path)


KEYS = ["per_task", "metrics", "successes", "per_episode", "aggregated", "benchmark", "tasks", "task", "episodes"]
KEYS += ["config", "params", "success_rate", "success", "seed"]
LEAVES = st.sampled_from([None, True, -1, 3, 0.5, 1e300, "", "a", [], {}])
INNER = st.lists(LEAVES, max_size=2) | st.dictionaries(st.sampled_from(KEYS), LEAVES, max_size=3)


@given(value=LEAVES | st.dictionaries(st.sampled_from(KEYS), LEAVES | INNER | st.lists(INNER, max_size=2), max_size=4))
def test_any_json_is_read_or_refused(value, tmp_path_factory):
    path = write(tmp_path_factory.mktemp("any") / "x.json", json.dumps(value))
    for format in ("lerobot", "vla-eval", "arena", "table", "robomimic"):
        with suppress(InvalidJob):
            read_foreign(path, format, Options(episodes=4, first_seed=1))
