from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_isaac.data.norm_stats import from_json, load
from rlinf_isaac.ground.errors import NormStatsError


def code_of(data: bytes | str) -> str:
    with pytest.raises(NormStatsError) as error:
        from_json(data)
    (problem,) = error.value.problems
    return problem.code


def test_quantiles_may_be_absent(stats):
    content = json.loads(stats.to_json())
    content["norm_stats"]["state"] |= {"q01": None, "q99": None}
    del content["norm_stats"]["actions"]["q01"]
    read = from_json(json.dumps(content))
    assert read.state.q01 is None
    assert read.actions.q01 is None
    assert from_json(read.to_json()) == read


@pytest.mark.parametrize(
    ("renames", "named"),
    [
        ({"state": "observation.state", "actions": "action"}, "action, observation.state"),
        ({"state": "observation/state"}, "observation/state"),
        ({"actions": "action"}, "the keys action,"),
    ],
)
def test_lerobots_keys_are_refused(stats, renames, named):
    content = json.loads(stats.to_json())["norm_stats"]
    renamed = {renames.get(key, key): value for key, value in content.items()}
    with pytest.raises(NormStatsError, match=f"(?s){named}.*silently not be normalised.*--canonicalise") as error:
        from_json(json.dumps({"norm_stats": renamed}))
    assert error.value.problems[0].code == "norm-stats-keys"


@pytest.mark.parametrize("key", ["timestamp", "frame_index", "episode_index", "index", "task_index"])
def test_metadata_keys_are_refused(stats, key):
    content = json.loads(stats.to_json())
    content["norm_stats"][key] = content["norm_stats"]["state"]
    with pytest.raises(NormStatsError, match=f"has the keys {key}, which"):
        from_json(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (lambda stats: stats.pop("actions"), "norm-stats-missing-key", "lacks the key actions"),
        (lambda stats: stats["state"].pop("std"), "norm-stats-format", "state must be an object with mean, std"),
        (lambda stats: stats.update(state=[1.0]), "norm-stats-format", "state must be an object"),
        (lambda stats: stats["state"].update(mean=None), "norm-stats-format", "mean and std must not be null"),
        (lambda stats: stats["state"].update(mean=["a", "b"]), "norm-stats-format", "mean is not a list of numbers"),
        (lambda stats: stats["state"].update(mean=[[1.0], [2.0]]), "norm-stats-format", "mean is not a non-empty"),
        (lambda stats: stats["state"].update(mean=[10**400]), "norm-stats-not-json", "an integer of 401 digits"),
        (lambda stats: stats["state"].update(mean=[]), "norm-stats-format", "mean is not a non-empty list"),
        (lambda stats: stats["state"].update(mean=[float("nan")] * 2), "norm-stats-not-finite", "entry 0 is nan"),
        (lambda stats: stats["actions"].update(std=[1.0]), "norm-stats-lengths", "actions: mean, std, q01 and q99"),
        (lambda stats: stats["actions"].update(std=[1.0, -1.0]), "norm-stats-negative-std", "entry 1 is negative std"),
        (lambda stats: stats["actions"].update(q99=[-9.0, 1.0]), "norm-stats-quantile-order", "q99 < q01 at entry 0"),
    ],
)
def test_broken_content_is_named(stats, tmp_path, change, code, message):
    content = json.loads(stats.to_json())
    change(content["norm_stats"])
    path = tmp_path / "norm_stats.json"
    path.write_text(json.dumps(content))
    with pytest.raises(NormStatsError, match=message) as error:
        load(path)
    assert str(path) in str(error.value)
    assert [problem.code for problem in error.value.problems] == [code]


def test_both_features_are_reported_at_once(stats):
    content = json.loads(stats.to_json())
    content["norm_stats"]["state"]["std"][0] = -1.0
    content["norm_stats"]["actions"]["mean"] = []
    with pytest.raises(NormStatsError) as error:
        from_json(json.dumps(content))
    assert [problem.code for problem in error.value.problems] == ["norm-stats-negative-std", "norm-stats-format"]


def test_other_files(stats, tmp_path):
    with pytest.raises(NormStatsError, match="No such file") as error:
        load(tmp_path / "norm_stats.json")
    assert error.value.problems[0].code == "norm-stats-missing"
    text = stats.to_json()
    assert code_of(text[: len(text) // 2]) == "norm-stats-not-json"
    assert code_of(text.encode("utf-16")) == "norm-stats-not-json"
    assert code_of("[" * 100_000) == "norm-stats-not-json"
    assert code_of("[]") == "norm-stats-format"
    assert code_of(json.dumps(json.loads(text)["norm_stats"])) == "norm-stats-format"
    lerobot = {"mean": [0.0], "std": [1.0], "min": [0.0], "max": [0.0], "count": [3]}
    assert code_of(json.dumps({"action": lerobot, "observation.state": lerobot})) == "norm-stats-lerobot-stats"


def test_a_key_that_stands_twice_is_refused(stats):
    text = stats.to_json().replace('"actions"', '"state"')
    with pytest.raises(NormStatsError, match="names the key 'state' twice"):
        from_json(text)


@settings(deadline=None)
@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_load_or_raise_norm_stats_error(data):
    with pytest.raises(NormStatsError):
        from_json(data)
