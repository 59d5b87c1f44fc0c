"""Two datasets that differ in one described thing are told apart by every verb, or the difference is an assumption."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import small_config

from mlflow_project.serving.policy import announced
from rlinf_isaac.checkpoint.bundle import Bundle, read_bundle
from rlinf_isaac.checkpoint.description import checkpoint_config
from rlinf_isaac.checkpoint.facts import assumed
from rlinf_isaac.checkpoint.trained_with import mismatches
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.envs.stack_cube.contract import ACTION_NAMES, CONTROL_HZ, TASKS, state_names
from rlinf_isaac.preflight import check_dataset, check_training_data

Edit = Callable[[dict[str, Any], dict[str, str]], None]
"""Changes ``meta/info.json`` and the tasks (index -> instruction) of a dataset."""

VECTORS = {"observation.state": state_names("proprio+cubes", 2), "action": list(ACTION_NAMES)}
CAMERAS = ("observation.images.front", "observation.images.wrist")
WORDS = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12)


def _set(feature: str, key: str, value: Any) -> Edit:
    return lambda info, tasks: info["features"][feature].update({key: value})


@st.composite
def renamed(draw: st.DrawFn) -> Edit:
    feature = draw(st.sampled_from(sorted(VECTORS)))
    names = list(VECTORS[feature])
    names[draw(st.integers(0, len(names) - 1))] = draw(WORDS.filter(lambda word: word not in names))
    return _set(feature, "names", names)


@st.composite
def reordered(draw: st.DrawFn) -> Edit:
    feature = draw(st.sampled_from(sorted(VECTORS)))
    order = draw(st.permutations(VECTORS[feature]).filter(lambda names: names != VECTORS[feature]))
    return _set(feature, "names", list(order))


@st.composite
def unnamed(draw: st.DrawFn) -> Edit:
    feature = draw(st.sampled_from(sorted(VECTORS)))
    names = VECTORS[feature]
    labels = [
        None,
        ["state"],
        ["actions"],
        {"motors": names},
        [str(number) for number in range(len(names))],
        names[:-1],
    ]
    return _set(feature, "names", draw(st.sampled_from(labels)))


@st.composite
def at_another_rate(draw: st.DrawFn) -> Edit:
    fps = draw(st.integers(1, 500).filter(lambda rate: rate != CONTROL_HZ))
    return lambda info, tasks: info.update(fps=fps)


@st.composite
def in_other_words(draw: st.DrawFn) -> Edit:
    text = draw(st.text(min_size=1).filter(lambda prompt: prompt not in {task.prompt for task in TASKS.values()}))
    return lambda info, tasks: tasks.update({"0": text})


@st.composite
def with_other_cameras(draw: st.DrawFn) -> Edit:
    camera, size = draw(st.sampled_from(CAMERAS)), draw(st.tuples(st.integers(16, 512), st.integers(16, 512)))
    name = draw(WORDS.map(lambda word: f"observation.images.{word}").filter(lambda name: name not in CAMERAS))
    kind = draw(st.sampled_from(["renamed", "one more", "another size"]))

    def edit(info: dict[str, Any], tasks: dict[str, str]) -> None:
        features = info["features"]
        if kind == "another size":
            height, width = size if size != (200, 200) else (200, 201)
            features[camera]["shape"] = [height, width, 3]
        else:
            features[name] = features.pop(camera) if kind == "renamed" else dict(features[camera])

    return edit


EDITS = (renamed, reordered, unnamed, at_another_rate, in_other_words, with_other_cameras)


@pytest.fixture(scope="module")
def bundle(small_checkpoints) -> Bundle:
    return read_bundle(small_checkpoints / "2")


def strangers(dataset: Path, root: Path, edit: Edit = lambda info, tasks: None) -> Path:
    """`dataset` as somebody without our simulator describes it, after an edit; the frames are the same files."""
    shutil.copytree(dataset / "meta", root / "meta")
    (root / "data").symlink_to(dataset / "data")
    (root / "meta/provenance.json").unlink()
    info = json.loads((root / "meta/info.json").read_text())
    tasks = {"0": json.loads((root / "meta/tasks.jsonl").read_text())["task"]}
    edit(info, tasks)
    (root / "meta/info.json").write_text(json.dumps(info))
    rows = [json.dumps({"task_index": int(index), "task": text}) for index, text in tasks.items()]
    (root / "meta/tasks.jsonl").write_text("\n".join(rows) + "\n")
    return root


def codes(problems):
    return {problem.code for problem in problems}


@pytest.fixture(scope="module")
def plain(small_dataset, bundle, tmp_path_factory) -> Bundle:
    """Trained on a stranger's dataset that differs in nothing."""
    root = strangers(small_dataset, tmp_path_factory.mktemp("plain") / "data")
    assert check_dataset(small_config(), root) == []
    trained = replace(bundle, config=checkpoint_config(small_config(), LeRobotDataset(root)))
    assert mismatches(trained, small_config()) == []
    assert not assumed(trained)
    return trained


@pytest.mark.parametrize("edits", EDITS)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_one_difference_is_seen_by_every_verb(small_dataset, bundle, plain, edits, data):
    config = small_config()
    with tempfile.TemporaryDirectory() as scratch:
        other = strangers(small_dataset, Path(scratch) / "data", data.draw(edits()))
        # doctor, and sft, which makes the same checks
        found = check_dataset(config, other)
        assert found != []
        assert codes(found) <= codes(check_training_data(config, other, None, quick=True))
        if codes(found) & {"no-feature", "unused-camera"}:
            return  # another policy would have to be built for it, or the policy does not see it
        # eval and serve of what was trained on it all the same
        trained = replace(bundle, config=checkpoint_config(config, LeRobotDataset(other)))
    assert mismatches(trained, config) != [] or assumed(trained)
    assert announced(trained) != announced(plain)
