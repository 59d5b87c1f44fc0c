"""A task in a file, from its environment in processes of its own to a dataset."""

from __future__ import annotations

from pathlib import Path

import yaml

from rlinf_isaac.config import load_config
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.engines.demonstrations import record_demonstrations
from rlinf_isaac.ground.reading import read_json


def test_demonstrations_do_not_depend_on_the_number_of_workers(toy_task, tmp_path) -> None:
    (tmp_path / "toy.py").write_bytes(Path(__file__).with_name("toy.py").read_bytes())
    values = toy_task(make="toy.py:Drawn").as_dict()
    values["env"] = {key: values["env"][key] for key in ("kind", "make", "success", "max_steps")}
    (tmp_path / "plane.yaml").write_text(yaml.safe_dump(values))
    bytes_of = []
    for workers in (1, 2):
        overrides = [f"env.task={tmp_path / 'plane.yaml'}", "demos.episodes=3", f"demos.workers={workers}"]
        root = tmp_path / f"dataset-{workers}"
        *_, last = record_demonstrations(load_config("tiny", overrides), root)
        assert (last.done, last.total) == (3, 3)
        bytes_of.append({path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()})
    assert bytes_of[0] == bytes_of[1]
    dataset = LeRobotDataset(root)
    assert dataset.fps == 10
    provenance = read_json(root / "meta" / "provenance.json", 10**6)
    assert provenance["env"]["backend"].startswith("gymnasium-toy-")
    assert provenance["expert"].startswith("toy.py:Expert-")
    assert len(provenance["seeds"]) == 3
