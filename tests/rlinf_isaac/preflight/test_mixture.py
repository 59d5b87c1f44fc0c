from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support import small_config

from rlinf_isaac.data.lerobot.format import ACTION, FRONT_IMAGE, STATE
from rlinf_isaac.data.subset import held_out_episodes
from rlinf_isaac.preflight.dataset import check_held_out
from rlinf_isaac.preflight.mixture import check_mixture


@pytest.fixture
def other(small_dataset, tmp_path):
    """A copy of the dataset whose ``meta/info.json`` is changed by a function."""

    def make(change) -> Path:
        root = tmp_path / "other"
        shutil.copytree(small_dataset, root)
        path = root / "meta/info.json"
        info = json.loads(path.read_text())
        change(info)
        path.write_text(json.dumps(info))
        return root

    return make


def codes(roots, mix="", norm_stats=None):
    config = small_config([f"sft.mix=[{mix}]"])
    return [problem.code for problem in check_mixture(config, roots, norm_stats)]


def test_datasets_that_fit(small_dataset, other):
    roots = [small_dataset, other(lambda info: None)]
    assert codes(roots) == codes(roots, "1,0.5") == codes(roots[:1]) == []


@pytest.mark.parametrize(
    ("mix", "datasets", "found"),
    [
        ("1", 1, ["mix-count"]),
        ("1,2,3", 2, ["mix-count"]),
        ("1", 2, ["mix-count"]),
        ("1,0", 2, ["bad-value"]),
        ("-1,1", 2, ["bad-value"]),
        ("1,inf", 2, ["bad-value"]),
        ("1,1e-9", 2, ["mix-count"]),
    ],
)
def test_weights(small_dataset, other, mix, datasets, found):
    assert codes([small_dataset, other(lambda info: None)][:datasets], mix) == found


def test_a_dataset_given_twice_and_a_file_of_norm_stats(small_dataset, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(small_dataset)
    assert codes([small_dataset, link], norm_stats=tmp_path / "norm_stats.json") == ["mix-norm-stats", "mix-twice"]


def test_all_differences_at_once(small_dataset, other):
    def change(info):
        info["fps"] = 10
        features = info["features"]
        features["observation.images.extra"] = features[FRONT_IMAGE]
        features[STATE]["names"] = features[STATE]["names"][::-1]
        features[ACTION]["shape"], features[ACTION]["names"] = [2], ["a", "b"]

    assert codes([small_dataset, other(change)]) == ["mix-fps", "mix-cameras", "mix-dims", "mix-dims"]


def test_state_and_actions_are_the_features_of_the_task(small_dataset, other, tmp_path):
    """What the task does not read may differ."""

    def change(info):
        features = info["features"]
        features["observation.effort"] = {"dtype": "float32", "shape": [3], "names": None}
        features[ACTION]["names"] = features[ACTION]["names"][::-1]

    file = tmp_path / "task.yaml"
    file.write_text(
        "name: t\nprompt: dataset\ncontrol_hz: 20\naction: {dims: 3, dataset: observation.effort}\nstate: {dims: 23}\n"
    )
    roots, config = [small_dataset, other(change)], small_config([f"env.task={file}"])
    assert codes(roots) == ["mix-dims"]
    assert check_mixture(config, roots, None) == []


def test_enough_episodes_are_left_of_every_dataset_with_a_weight(small_dataset, other):
    roots = [small_dataset, other(lambda info: None)]

    def found(held_out, mix, among=roots):
        config = small_config([f"sft.val_episodes={held_out}", f"sft.mix=[{mix}]"])
        return [problem.code for problem in check_held_out(config, among)]

    (apart,) = held_out_episodes(4, 1, 0)
    assert apart in range(4), "two episodes each"
    assert found(1, "1,2") == found(1, "") == []
    assert found(3, "1,2") == ["val-mixture"], "one is left in all"
    assert found(3, "") == []
    assert found(4, "1,2") == found(4, "") == found(2, "", roots[:1]) == ["val-episodes"]
