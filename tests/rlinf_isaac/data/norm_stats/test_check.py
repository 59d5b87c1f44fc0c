from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from corpus.norm_stats import CASES, OTHER_DATA
from openpi_semantics import running_stats

from rlinf_isaac.data.lerobot.format import ACTION, STATE, vector_feature
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.norm_stats import FeatureStats, NormStats, Settings, compute_norm_stats
from rlinf_isaac.data.norm_stats.check import check_norm_stats_file, sample_rows
from rlinf_isaac.data.norm_stats.keys import canonicalise, identity

SETTINGS = Settings(action_horizon=10, batch_size=32, delta_actions="none")
NAMES = {"state": ["x", "y", "z"], "actions": ["dx", "gripper"]}


@pytest.fixture
def path(stats, tmp_path) -> Path:
    stats.save(tmp_path / "norm_stats.json")
    return tmp_path / "norm_stats.json"


def codes(report) -> list[str]:
    return [problem.code for problem in report.problems]


@pytest.mark.parametrize("mode", ["zscore", "quantile"])
def test_a_files_own_dataset(path, dataset, stats, mode):
    report = check_norm_stats_file(path, dataset, mode=mode, names=NAMES, settings=SETTINGS)
    assert report.problems == []
    assert (report.recomputed, report.digest) == ("equal", stats.digest)
    assert [(dim.key, dim.name) for dim in report.dims] == [(key, name) for key in NAMES for name in NAMES[key]]
    gripper = report.dims[-1]
    assert (gripper.q01, gripper.q99, gripper.remark) == (-1, 1, "")
    if mode == "zscore":
        assert all(abs(dim.normalised_mean) < 0.2 and 0.8 < dim.normalised_std < 1.2 for dim in report.dims)


def test_without_dataset_and_names(path):
    report = check_norm_stats_file(path, mode="zscore")
    assert (report.problems, report.recomputed) == ([], None)
    assert [dim.name for dim in report.dims] == ["0", "1", "2", "0", "1"]
    assert report.dims[0].normalised_mean is None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_corpus(case, path, dataset):
    case.break_it(path)
    before = sorted(path.parent.rglob("*"))
    report = check_norm_stats_file(path, dataset, mode="quantile", names=NAMES, settings=SETTINGS)
    assert case.code in [problem.code for problem in report.errors]
    assert all(problem.cause and problem.cure for problem in report.problems)
    assert sorted(path.parent.rglob("*")) == before


@pytest.mark.parametrize("case", [case for case in CASES if case.code not in OTHER_DATA], ids=lambda case: case.name)
def test_most_of_the_corpus_needs_no_dataset(case, path):
    case.break_it(path)
    assert case.code in codes(check_norm_stats_file(path, mode="quantile", names=NAMES))


def test_quantiles_are_needed_by_pi05_alone(path):
    content = json.loads(path.read_text())
    del content["norm_stats"]["state"]["q01"]
    path.write_text(json.dumps(content))
    report = check_norm_stats_file(path, mode="quantile")
    assert codes(report) == ["norm-stats-no-quantiles"]
    assert len(report.dims) == 5
    assert check_norm_stats_file(path, mode="zscore").problems == []


def test_a_near_constant_dim_is_a_warning_that_says_what_becomes_of_a_thousandth(tmp_path, write_v21):
    features = {STATE: vector_feature(["x", "rail"]), ACTION: vector_feature(["dx"])}
    rng = np.random.default_rng(0)
    state = np.stack([rng.normal(size=64), np.full(64, 0.5)], 1).astype(np.float32)
    root = write_v21(
        tmp_path / "d", [{STATE: state, ACTION: rng.normal(size=(64, 1)).astype(np.float32)}], features=features
    )
    dataset = LeRobotDataset(root)
    compute_norm_stats(dataset, 10).save(tmp_path / "norm_stats.json")
    for mode, thousandth in (("zscore", "1000"), ("quantile", "2000")):
        report = check_norm_stats_file(tmp_path / "norm_stats.json", dataset, mode=mode, settings=SETTINGS)
        assert report.errors == []
        (problem,) = report.problems
        assert (problem.code, problem.level) == ("norm-stats-near-constant", "warning")
        assert "state rail" in problem.cause
        assert f"becomes {thousandth}" in problem.cause
        assert report.dims[1].remark == "near-constant"


@pytest.mark.parametrize("mode", ["zscore", "quantile"])
@pytest.mark.parametrize("change", ["shift", "narrow", "wide"])
def test_statistics_of_other_data_are_named_by_dim(path, dataset, stats, mode, change):
    """One dim only: y is somewhere else, moves less, or moves more in the data that the file is of."""
    offset, factor = {"shift": (5.0, 1.0), "narrow": (0.0, 0.05), "wide": (0.0, 30.0)}[change]
    values = {
        name: [entry if i != 1 else entry * factor + (0 if name == "std" else offset) for i, entry in enumerate(vector)]
        for name, vector in stats.state.as_dict().items()
    }
    foreign = FeatureStats(**{name: np.array(vector) for name, vector in values.items()})
    dataclasses.replace(stats, state=foreign).save(path)
    report = check_norm_stats_file(path, dataset, mode=mode, names=NAMES, settings=SETTINGS)
    assert codes(report) == ["norm-stats-range"]
    assert "state y (" in report.problems[0].cause
    assert [bool(dim.remark) for dim in report.dims] == [False, True, False, False, False]


def test_wrong_quantiles_beside_right_moments_are_found(path, dataset, stats):
    for factor in (0.02, 50):
        state = dataclasses.replace(stats.state, q01=stats.state.q01 * factor, q99=stats.state.q99 * factor)
        dataclasses.replace(stats, state=state).save(path)
        assert codes(check_norm_stats_file(path, dataset, mode="quantile")) == ["norm-stats-range"]
        assert codes(check_norm_stats_file(path, dataset, mode="zscore")) == []


def test_rows_are_the_policys_delta_actions(path, dataset):
    delta = SETTINGS | {"delta_actions": "1,-1"}
    assert not np.array_equal(sample_rows(dataset, delta)["actions"], sample_rows(dataset, SETTINGS)["actions"])
    compute_norm_stats(dataset, **delta).save(path)
    report = check_norm_stats_file(path, dataset, mode="zscore", settings=delta)
    assert (report.problems, report.recomputed) == ([], "equal")


def test_values_as_openpi_estimates_them_are_close(path, dataset):
    theirs = running_stats(dataset, 10, 32)
    features = [
        FeatureStats(estimate.mean, estimate.std, estimate.quantile(0.01), estimate.quantile(0.99))
        for estimate in theirs.values()
    ]
    NormStats(*features).save(path)
    report = check_norm_stats_file(path, dataset, mode="quantile", settings=SETTINGS)
    assert (report.problems, report.recomputed) == ([], "close")


def test_another_horizon_is_noticed(path, dataset):
    report = check_norm_stats_file(path, dataset, mode="zscore", settings=SETTINGS | {"action_horizon": 20})
    assert report.recomputed == "different"
    assert [(problem.code, problem.level) for problem in report.problems] == [("norm-stats-differ", "warning")]
    assert "actions" in report.problems[0].cause


def test_the_identity_is_no_fault_but_is_remarked(path, dataset, stats):
    entries = json.loads(stats.to_json())["norm_stats"]
    misread = {"norm_stats": {"observation.state": entries["state"], "action": entries["actions"]}}
    path.write_bytes(canonicalise(json.dumps(misread).encode(), "identity").data)
    report = check_norm_stats_file(path, dataset, mode="quantile")
    assert report.problems == []
    assert {dim.remark for dim in report.dims} == {"identity"}
    assert identity(3).dim == 3


def test_a_dataset_without_a_whole_batch_is_reported(path, dataset):
    report = check_norm_stats_file(path, dataset, mode="zscore", settings=SETTINGS | {"batch_size": 1000})
    assert codes(report) == ["norm-stats-batch"]
