"""Helpers that several test modules share."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from mlflow_project.comparison.evaluations import Evaluation
from rlinf_isaac.config import flatten, load_config
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.engines.rlinf.tensorboard import Scalar
from rlinf_isaac.ground.events import CheckpointSaved, EpisodeRow, Event, Metrics

SMALL_PRESET = Path(__file__).with_name("small.yaml")
SMALL = [f"{key}={value}" for key, value in flatten(yaml.safe_load(SMALL_PRESET.read_text())).items() if key != "base"]
"""The same as overrides, for what reads all of them: `main`."""
# Demonstrations need their time; evaluations of an untrained policy end by time-out in any case.
SHORT_EVALUATION = "env.max_episode_steps=16"
# Reinforcement learning in seconds: episodes of two chunks.
SMALL_RL = [
    SHORT_EVALUATION,
    "rl.iterations=1",
    "rl.episodes=4",
    "rl.num_envs=2",
    "rl.workers=1",
    "rl.minibatch=4",
    "rl.epochs=2",
    "rl.value_widths=[8]",
    "rl.save_interval=1",
    "rl.eval_interval=2",
    "rl.eval_episodes=2",
    "rl.lr=1e-4",
    # Not those of the preset, but those that do most.
    "rl.noise_steps=0",
    "rl.accumulate=1",
    "rl.warmup_iterations=0",
]

# Where lerobot's two formats keep the mp4 files of a camera.
V21_VIDEOS = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
V30_VIDEOS = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


def small_config(overrides: Sequence[str] = ()) -> JobConfig:
    """`SMALL_PRESET` with overrides."""
    return load_config(str(SMALL_PRESET), overrides)


def kill_when(process: subprocess.Popen, text: str, number: int = signal.SIGKILL) -> None:
    """Send a signal as soon as `text` appears in the process's progress, and wait for its end."""
    seen = []
    assert process.stderr is not None
    for line in process.stderr:
        seen.append(line)
        if text in line:
            process.send_signal(number)
            process.communicate()
            return
    raise AssertionError(f"{text!r} never appeared in:\n{''.join(seen)}")


def shown(label: str, done: int) -> str:
    """How the line that says that so much of a piece of work is done begins, for `kill_when`."""
    from mlflow_project.tracking.pace import Pace, line
    from rlinf_isaac.ground.events import Progress

    before, slash, _ = line(Progress(label, done, done), {}, Pace(), None).partition("/")
    return before + slash


@contextmanager
def mortal(script: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that forks writers which may be killed: it has imported torch once, and takes orders line by line."""
    command = [sys.executable, str(script)]
    tests = Path(__file__).parent
    # For mortal.py; the packages come first, because tests/rlinf_isaac would be taken for one.
    places = filter(None, [os.environ.get("PYTHONPATH"), str(tests.parent), str(tests)])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, bufsize=1, env=environment) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0


def use_dead_server(patch: pytest.MonkeyPatch, uri: str) -> None:
    """Record to a server that does not answer, and give it up soon."""
    patch.setenv("MLFLOW_TRACKING_URI", uri)
    for module in ("mlflow_project.cli.sync", "mlflow_project.tracking.runs"):
        patch.setattr(f"{module}.PATIENCE_S", 0.5)


def add_video_feature(root: Path, name: str, size: tuple[int, int], video_path: str) -> None:
    """Describe a camera of a dataset as mp4 files."""
    info = json.loads((root / "meta/info.json").read_text())
    info["features"][name] = {"dtype": "video", "shape": [*size, 3], "names": ["height", "width", "channels"]}
    info["video_path"] = video_path
    (root / "meta/info.json").write_text(json.dumps(info))


def only_error(result: Result, code: str) -> None:
    """The verb ended with exit code 2 and this one problem."""
    assert result.exit_code == 2, result.output + repr(result.exception)
    assert result.stderr.count("error ") == 1, result.stderr
    assert code in result.stderr
    assert "cure " in result.stderr


def rows_of(directory: Path) -> list[dict[str, Any]]:
    """All episode rows below an evaluation's output, sorted by checkpoint and seed."""
    lines = [line for file in directory.rglob("episodes.jsonl") for line in file.read_text().splitlines()]
    return sorted(map(json.loads, lines), key=lambda row: (row["checkpoint_step"], row["seed"]))


def metrics_of(events: Iterable[Event]) -> dict[int, dict[str, float]]:
    """Step -> metrics of a training that do not depend on the clock."""
    return {
        event.step: {name: value for name, value in event.values.items() if not name.startswith("time/")}
        for event in events
        if isinstance(event, Metrics)
    }


def saved(events: Iterable[Event]) -> dict[int, str]:
    """Step -> digest of the checkpoints that a training saved."""
    return {event.step: event.digest for event in events if isinstance(event, CheckpointSaved)}


def write_scalars(path: Path, scalars: Iterable[Scalar]) -> Path:
    """An event file by TensorBoard's own writer of records, which is done when this is."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    with open(path, "wb") as file:
        for tag, step, value, time in scalars:
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            RecordWriter(file).write(Event(wall_time=time, step=step, summary=summary).SerializeToString())
    return path


SETTINGS = {
    "environment": {"task": "stack2", "backend": "mujoco-4.0.0", "assets": "a" * 64, "prompt": "Stack."},
    "action_chunk": 8,
    "policy_seed": 0,
}


def make_evaluation(
    outcomes: str, step: int = 100, *, first_seed: int = 5000, videos: int = 0, **fields: Any
) -> Evaluation:
    """One checkpoint, from the outcomes of its episodes: ``s``, ``d`` or ``t`` each."""
    ends = {"s": "success", "d": "drop", "t": "timeout"}
    rows = [
        EpisodeRow(
            checkpoint_step=step,
            checkpoint=f"{step:064x}",
            seed=first_seed + number,
            env_index=number,
            success=end == "s",
            outcome=ends[end],
            length=100 + number,
            episode_return=float(end == "s"),
            policy_seed=0,
            video=f"videos/episode_{number:03d}.mp4" if number < videos else None,
        )
        for number, end in enumerate(outcomes)
    ]
    values = {
        "run": f"{step:032x}",
        "name": f"step-{step}",
        "experiment": "1",
        "sweep": "f" * 32,
        "sweep_name": "sweep",
        "step": step,
        "checkpoint": f"{step:064x}",
        "rows": tuple(rows),
        "settings": SETTINGS,
        "tags": {},
    }
    return Evaluation(**values | fields)


def arm_contacts(simulation: Any, row: int) -> list[tuple[str, ...]]:
    """Pairs of body names in contact, at least one of them the robot's, in one env of the embedded simulator."""
    model = simulation.model
    pairs = [
        tuple(model.body(model.geom_bodyid[geom]).name for geom in contact.geom)
        for contact in simulation.data[row].contact
    ]
    return [names for names in pairs if any(name.startswith("panda_") for name in names)]
