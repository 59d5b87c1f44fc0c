from __future__ import annotations

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_project.lineage.provenance import lerobot_dataset
from mlflow_project.plugins.lerobot_source import LeRobotSource
from mlflow_project.tracking.runs import tracked_run
from rlinf_isaac.ground.errors import DatasetError


@pytest.fixture
def dataset_root(tmp_path):
    root = tmp_path / "stack2"
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "info.json").write_text('{"codebase_version": "v2.1", "features": {}}')
    return root


def test_a_source_survives_the_round_trip(dataset_root):
    source = LeRobotSource(str(dataset_root), "ab" * 32)
    again = LeRobotSource.from_json(source.to_json())
    assert again.to_dict() == source.to_dict()
    assert again.load() == dataset_root


def test_a_dataset_that_is_gone_is_an_error(tmp_path):
    with pytest.raises(DatasetError):
        LeRobotSource(str(tmp_path / "gone")).load()


def test_mlflow_gives_back_the_source_of_a_recorded_run(store, dataset_root, tmp_path):
    with tracked_run("sft", output=tmp_path / "out") as run:
        run.recorder.dataset(lerobot_dataset(dataset_root, "ab" * 32))
    (used,) = MlflowClient(store).get_run(run.ids()[0]).inputs.dataset_inputs
    source = mlflow.data.get_source(used.dataset)
    assert isinstance(source, LeRobotSource)
    assert source.load() == dataset_root
    assert used.tags[0].value == "training"
