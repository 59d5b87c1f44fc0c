"""What TensorBoard reads of a journal is what the journal has, also when those who report it are killed."""

from __future__ import annotations

import io
import json
import math
import signal
from pathlib import Path

import numpy as np
import pytest
from journals import operations_of, points, write
from PIL import Image
from support import mortal
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from mlflow_project.reporting.replay import is_complete, replay
from mlflow_project.reporting.target import Progress, targets_of
from mlflow_project.tracking.operations import StartRun


def read(root: Path) -> dict[str, EventAccumulator]:
    """Directory below `root` -> what TensorBoard's own reader makes of it."""
    found = {}
    for file in root.rglob("events.out.tfevents.*"):
        accumulator = EventAccumulator(str(file.parent), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
        found[file.parent.relative_to(root).as_posix()] = accumulator.Reload()
    return found


def scalars(accumulator: EventAccumulator) -> list[tuple[str, int, float, float]]:
    return [
        (tag, event.step, event.wall_time, event.value)
        for tag in accumulator.Tags()["scalars"]
        for event in accumulator.Scalars(tag)
    ]


def expected(rows: list[tuple[str, int, float, float]]) -> list[tuple[str, int, float, float]]:
    return [(name, step, time_s, float(np.float32(value))) for name, step, time_s, value in rows]


def same(found: list[tuple[str, int, float, float]], rows: list[tuple[str, int, float, float]]) -> bool:
    def plain(row: tuple[str, int, float, float]) -> tuple[str, int, float, float]:
        return (*row[:3], -1.0 if math.isnan(row[3]) else row[3])

    return sorted(map(plain, found)) == sorted(map(plain, expected(rows)))


def check(journal: Path) -> None:
    """Every run has its directory, and exactly the metrics of the journal."""
    root, stem = journal.parent.parent / "tensorboard", journal.stem
    found, wanted = read(root), points(journal)
    names = {each.run: each.name for each in operations_of(journal) if isinstance(each, StartRun)}
    places = [stem if name == "eval tiny" else f"{stem}/{name}" for name in names.values()]
    twice = list(names)[places.index(f"{stem}/step-1", 2)]
    places[-1] += f"-{twice[:8]}"
    assert found.keys() == set(places)
    for run, place in zip(wanted, places, strict=True):
        assert same(scalars(found[place]), wanted[run]), place


def test_a_journal_is_read_back_from_event_files(tmp_path):
    journal = write(tmp_path).path
    assert is_complete(journal, replay(journal, "tensorboard"))
    assert targets_of(journal) == ["tensorboard"]
    check(journal)
    found = read(tmp_path / "tensorboard")
    outer, nested = found[journal.stem], found[f"{journal.stem}/step-1"]
    params, description = (outer.Tensors(name)[0].tensor_proto.string_val[0] for name in ("params", "description"))
    assert params.endswith(b"| cfg/model/width | 32 |")
    assert description == b"**one** is best"
    start = metadata.parse_session_start_info_plugin_data(
        outer.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    )
    assert {name: value.string_value for name, value in start.hparams.items()} == {
        "cfg/lr": "0.001",
        "cfg/model/width": "32",
    }
    (rollout,), (curve,) = nested.Images("rollout"), nested.Images("plots/curve")
    with Image.open(io.BytesIO(rollout.encoded_image_string)) as animation:
        assert (animation.format, animation.n_frames, rollout.step) == ("GIF", 3, 5)
    assert (curve.width, curve.height, curve.step) == (6, 4, 3)


@pytest.fixture(scope="module")
def mortal_replay():
    with mortal(Path(__file__).with_name("mortal_replay.py")) as process:

        def run(journal: Path, line: int) -> tuple[int, int]:
            process.stdin.write(json.dumps({"journal": str(journal), "line": line}) + "\n")
            return tuple(json.loads(process.stdout.readline()))

        yield run


def test_a_reporter_that_is_killed_anywhere_doubles_and_loses_nothing(tmp_path, mortal_replay):
    journal = write(tmp_path / "whole").path
    status, lines = mortal_replay(journal, 0)
    assert (status, lines > 100) == (0, True)
    check(journal)
    rng = np.random.default_rng(0)
    for attempt in range(6):
        other = tmp_path / str(attempt) / "journal" / journal.name
        other.parent.mkdir(parents=True)
        content = journal.read_bytes()
        # What the verb had written when the first, the second ... reporter was killed.
        ends = sorted(rng.choice(range(content.index(b"\n") + 1, len(content)), 3, replace=False))
        for end in ends:
            other.write_bytes(content[:end])
            status, _ = mortal_replay(other, int(rng.integers(1, lines)))
            assert status in (0, -signal.SIGKILL)
        other.write_bytes(content)
        assert mortal_replay(other, 0)[0] == 0
        assert is_complete(other, Progress.load(other, "tensorboard"))
        check(other)
