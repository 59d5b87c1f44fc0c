from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpi_semantics import normalize, unnormalize

from rlinf_isaac.data.norm_stats import FeatureStats, NormStats, digest, from_json
from rlinf_isaac.data.norm_stats.keys import METADATA, canonicalise, identity, restore
from rlinf_isaac.data.norm_stats.normaliser import Normalizer
from rlinf_isaac.ground.errors import NormStatsError

STATE_SPELLINGS = ["state", "observation.state", "observation/state", ("observation", "state")]
ACTION_SPELLINGS = ["actions", "action"]


def feature(dim: int, mean: float = 5.0, std: float = 2.0) -> dict[str, list[float]]:
    return {"mean": [mean] * dim, "std": [std] * dim, "q01": [mean - 4] * dim, "q99": [mean + 4] * dim}


def entry_under(spelling: str | tuple[str, str], value: Any) -> dict[str, Any]:
    return {spelling: value} if isinstance(spelling, str) else {spelling[0]: {spelling[1]: value}}


def file_of(entries: dict[str, Any], **layout: Any) -> bytes:
    return json.dumps({"norm_stats": entries}, **layout).encode()


def lerobot_keyed(state: str | tuple[str, str] = "observation.state", action: str = "action") -> dict[str, Any]:
    return entry_under(state, feature(8)) | entry_under(action, feature(7))


def as_openpi(entries: dict[str, Any]) -> dict[str, Any]:
    """Lists -> arrays, as OpenPI loads them."""
    return {
        key: np.array(value) if isinstance(value, list) else as_openpi(value) if isinstance(value, dict) else value
        for key, value in entries.items()
    }


def code_of(data: bytes, mode: Any = "canonical") -> str:
    with pytest.raises(NormStatsError) as error:
        canonicalise(data, mode)
    (problem,) = error.value.problems
    return problem.code


class TestTheSilentNoOp:
    """LeRobot's keys in a norm_stats.json, with the semantics of OpenPI's own transforms."""

    sample = staticmethod(lambda: {"state": np.full(8, 7.0), "actions": np.full((10, 7), 9.0)})
    output = staticmethod(lambda: {"state": np.zeros(8), "actions": np.ones((10, 7))})

    @pytest.mark.parametrize("quantiles", [False, True])
    @pytest.mark.parametrize("state", STATE_SPELLINGS[1:])
    def test_openpi_trains_on_raw_numbers_without_a_word_and_fails_at_inference(self, state, quantiles):
        stats = as_openpi(lerobot_keyed(state) | {"episode_index": feature(1)})
        trained_on = normalize(self.sample(), stats, quantiles)
        assert (trained_on["state"] == 7).all()
        assert (trained_on["actions"] == 9).all()
        with pytest.raises(ValueError, match="Selector key"):
            unnormalize(self.output(), stats, quantiles)
        well_keyed = as_openpi({"state": feature(8), "actions": feature(7)})
        assert normalize(self.sample(), well_keyed, quantiles)["state"] == pytest.approx(0.5 if quantiles else 1)

    @pytest.mark.parametrize("state", STATE_SPELLINGS[1:])
    def test_we_refuse_the_file(self, state):
        with pytest.raises(NormStatsError) as error:
            from_json(file_of(lerobot_keyed(state)))
        assert [problem.code for problem in error.value.problems] == ["norm-stats-keys"]

    @pytest.mark.parametrize("mode", ["zscore", "quantile"])
    @pytest.mark.parametrize("state", STATE_SPELLINGS[1:])
    def test_canonical_gives_the_policy_that_the_statistics_describe(self, state, mode):
        stats = canonicalise(file_of(lerobot_keyed(state)), "canonical").norm_stats
        intended = as_openpi({"state": feature(8), "actions": feature(7)})
        quantiles = mode == "quantile"
        policy = Normalizer.of("state", stats.state, mode), Normalizer.of("actions", stats.actions, mode)
        sample, output = self.sample(), self.output()
        expected = normalize(sample, intended, quantiles)
        np.testing.assert_allclose(policy[0].normalize(sample["state"]), expected["state"], rtol=1e-6)
        np.testing.assert_allclose(policy[1].normalize(sample["actions"]), expected["actions"], rtol=1e-6)
        acted = unnormalize(output, intended, quantiles)["actions"]
        np.testing.assert_allclose(policy[1].unnormalize(output["actions"]), acted, rtol=1e-6)

    @pytest.mark.parametrize("mode", ["zscore", "quantile"])
    @pytest.mark.parametrize("state", STATE_SPELLINGS[1:])
    def test_identity_gives_the_policy_that_was_trained(self, state, mode):
        """What OpenPI trained on with the mis-keyed file is what our policy sees with its replacement, and back."""
        entries = lerobot_keyed(state)
        result = canonicalise(file_of(entries), "identity")
        trained_on = normalize(self.sample(), as_openpi(entries), mode == "quantile")
        for key, stats in (("state", result.norm_stats.state), ("actions", result.norm_stats.actions)):
            normaliser = Normalizer.of(key, stats, mode)
            assert np.array_equal(normaliser.normalize(self.sample()[key]), trained_on[key].astype(np.float32))
            assert np.array_equal(normaliser.unnormalize(trained_on[key]), self.sample()[key])
        # ... and OpenPI itself, given the replacement, does nothing either, this time without an error.
        replacement = as_openpi(json.loads(result.data)["norm_stats"])
        for transform in (normalize, unnormalize):
            data = transform(self.sample(), replacement, mode == "quantile")
            assert np.array_equal(data["state"].astype(np.float32), self.sample()["state"])


@pytest.mark.parametrize("mode", ["zscore", "quantile"])
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-1e6, max_value=1e6), min_size=1))
def test_the_identity_changes_no_float32(mode, values):
    x = np.array(values, np.float32)
    normaliser = Normalizer.of("state", from_json_again(identity(len(x))), mode)
    # A quantile adds and takes away 1 in float64, so what is below 1e-16 may become 0.
    np.testing.assert_allclose(normaliser.normalize(x), x, rtol=0, atol=2e-16 if mode == "quantile" else 0)
    np.testing.assert_allclose(normaliser.unnormalize(x), x, rtol=0, atol=2e-16 if mode == "quantile" else 0)


def from_json_again(stats: FeatureStats) -> FeatureStats:
    return from_json(NormStats(stats, stats).to_json()).state


@pytest.mark.parametrize("state", STATE_SPELLINGS)
@pytest.mark.parametrize("action", ACTION_SPELLINGS)
def test_every_spelling_is_renamed_and_metadata_dropped(state, action):
    entries = lerobot_keyed(state, action) | {key: feature(1) for key in METADATA}
    result = canonicalise(file_of(entries), "canonical", "here.json")
    assert result.norm_stats == from_json(file_of({"state": feature(8), "actions": feature(7)}))
    assert from_json(result.data) == result.norm_stats
    path = state if isinstance(state, str) else "/".join(state)
    assert result.record["keys"] == {path: "state", action: "actions"}
    assert result.record["dropped"] == list(METADATA)
    assert (result.record["mode"], result.record["source"]) == ("canonical", "here.json")
    assert result.record["source_sha256"] == digest(file_of(entries))
    assert result.record["norm_stats_sha256"] == digest(result.data) == result.norm_stats.digest


def test_a_file_that_is_keyed_well_is_returned_as_it_is():
    data = file_of({"actions": feature(7), "state": feature(8) | {"note": "by hand"}}, indent=7)
    result = canonicalise(data, "canonical")
    assert result.data == data
    assert result.record["norm_stats_sha256"] == digest(data)
    assert code_of(data, "identity") == "norm-stats-identity"
    with_metadata = file_of({"actions": feature(7), "state": feature(8), "index": feature(1)})
    assert code_of(with_metadata, "identity") == "norm-stats-identity"


def test_only_the_field_that_was_skipped_becomes_the_identity():
    result = canonicalise(file_of({"state": feature(8), "action": feature(7)}), "identity")
    assert result.norm_stats.state.mean.tolist() == [5.0] * 8
    assert result.norm_stats.actions.as_dict() == identity(7).as_dict()
    assert result.record["identity"] == ["actions"]


@settings(deadline=None)
@given(
    state=st.sampled_from(STATE_SPELLINGS),
    action=st.sampled_from(ACTION_SPELLINGS),
    metadata=st.sets(st.sampled_from(METADATA)),
    values=st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=2),
    mode=st.sampled_from(["canonical", "identity"]),
    layout=st.sampled_from([{}, {"indent": 2}, {"separators": (",", ":")}, {"indent": "\t"}]),
    tail=st.sampled_from(["", "\n", " \r\n"]),
    note=st.text(),
)
def test_the_source_comes_back_byte_for_byte(state, action, metadata, values, mode, layout, tail, note):
    entries = entry_under(state, feature(2, values[0]) | {"count": [3]}) | entry_under(action, feature(3, values[1]))
    entries |= {key: {"note": note} for key in metadata}
    data = json.dumps({"norm_stats": entries}, ensure_ascii=False, **layout).encode(errors="replace") + tail.encode()
    if mode == "identity" and state == "state" and action == "actions":
        assert code_of(data, mode) == "norm-stats-identity"
        return
    record = canonicalise(data, mode).record
    assert restore(json.loads(json.dumps(record))) == data
    assert ("observation.state/count" in record["dropped"]) == (state == "observation.state")


def test_an_edited_record_is_refused():
    record = canonicalise(file_of(lerobot_keyed()), "canonical").record
    edited = copy.deepcopy(record)
    edited["original"] = edited["original"].replace("5.0", "5.5")
    for broken in (edited, {}, record | {"original": "\ud800"}):
        with pytest.raises(NormStatsError) as error:
            restore(broken)
        assert error.value.problems[0].code == "norm-stats-record"


@pytest.mark.parametrize(
    ("entries", "code", "named"),
    [
        (lerobot_keyed() | {"reward": feature(1)}, "norm-stats-unknown-key", ["reward"]),
        (lerobot_keyed() | {"observation": {"images": {"front": 1}}}, "norm-stats-unknown-key", ["observation/images"]),
        (lerobot_keyed() | {"actions": feature(7, 6.0)}, "norm-stats-conflict", ["under actions and action"]),
        (
            lerobot_keyed("observation/state") | {"observation": {"state": feature(8, 6.0)}},
            "norm-stats-conflict",
            ["observation/state and observation/state (nested)"],
        ),
        ({"observation.state": feature(8)}, "norm-stats-missing-key", ["actions"]),
        ({"action": feature(7), "observation": {}}, "norm-stats-unknown-key", ["observation"]),
        (lerobot_keyed() | {"action": {"mean": [1.0]}}, "norm-stats-format", ["action"]),
    ],
)
def test_what_is_not_understood_is_refused_and_named(entries, code, named):
    with pytest.raises(NormStatsError) as error:
        canonicalise(file_of(entries), "canonical")
    assert [problem.code for problem in error.value.problems] == [code]
    assert all(name in str(error.value) for name in named)


def test_equal_statistics_under_two_spellings_are_one():
    result = canonicalise(file_of(lerobot_keyed() | {"actions": feature(7)}), "canonical")
    assert result.record["keys"] == {"observation.state": "state", "actions": "actions", "action": "actions"}


def test_other_inputs():
    assert code_of(file_of(lerobot_keyed()), "auto") == "norm-stats-mode"
    assert code_of(b"{") == "norm-stats-not-json"
    lerobot = {"mean": [0.0], "std": [1.0], "min": [0.0], "max": [0.0], "count": [3]}
    assert code_of(json.dumps({"action": lerobot}).encode()) == "norm-stats-lerobot-stats"
