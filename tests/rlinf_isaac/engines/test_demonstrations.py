from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rlinf_isaac.config.schema import DemosConfig, EnvConfig, JobConfig, PolicyConfig
from rlinf_isaac.config.task import stack_cube
from rlinf_isaac.engines.demonstrations import record_demonstrations, record_episodes
from rlinf_isaac.envs.mujoco.env import StackCubeVectorEnv
from rlinf_isaac.envs.stack_cube import contract
from rlinf_isaac.envs.stack_cube.expert import ScriptedExpert
from rlinf_isaac.ground.atomic import claimed
from rlinf_isaac.ground.digest import json_digest, tree_digest
from rlinf_isaac.ground.errors import DatasetError, InvalidJob, RlinfIsaacError
from rlinf_isaac.ground.events import Progress
from rlinf_isaac.media.png import decode_image

SIZE = 16
SCRIPT = """
import os, sys, threading
from multiprocessing import active_children
from pathlib import Path
from rlinf_isaac.ground.atomic import claimed
from rlinf_isaac.config.schema import DemosConfig, EnvConfig, JobConfig, PolicyConfig
from rlinf_isaac.engines.demonstrations import record_demonstrations

if __name__ == "__main__":
    job = JobConfig(
        env=EnvConfig(image_size=16, renderer="rays", max_episode_steps=240),
        policy=PolicyConfig(state_layout="proprio"),
        demos=DemosConfig(episodes=1000, workers=2),
    )
    for event in record_demonstrations(job, Path(sys.argv[1])):
        print(*(child.pid for child in active_children()), flush=True)
"""


def job(
    episodes: int = 3, workers: int = 1, noise: float = 0.02, first_seed: int = 1000, limit: int = 240
) -> JobConfig:
    return JobConfig(
        env=EnvConfig(image_size=SIZE, renderer="rays", max_episode_steps=limit),
        policy=PolicyConfig(state_layout="proprio+cubes"),
        demos=DemosConfig(episodes=episodes, first_seed=first_seed, noise=noise, workers=workers),
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demonstrations") / "stack2"
    events = list(record_demonstrations(job(workers=2), root))
    assert [(event.done, event.total) for event in events if isinstance(event, Progress)] == [(1, 3), (2, 3), (3, 3)]
    return root


@pytest.fixture
def env() -> Iterator[StackCubeVectorEnv]:
    env = StackCubeVectorEnv(1, stack_cube("stack2"), image_size=SIZE, renderer="rays", max_episode_steps=240)
    yield env
    env.close()


def columns(root: Path, episode: int) -> dict[str, list]:
    return pq.read_table(root / f"data/chunk-000/episode_{episode:06d}.parquet").to_pydict()


def test_number_of_workers_does_not_change_a_byte(dataset: Path, tmp_path: Path) -> None:
    list(record_demonstrations(job(workers=1), tmp_path / "one"))
    assert tree_digest(tmp_path / "one") == tree_digest(dataset)


def test_features_are_those_rlinf_expects(dataset: Path) -> None:
    info = json.loads((dataset / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["robot_type"]) == ("v2.1", 20, "franka")
    features = info["features"]
    for camera in ("observation.images.front", "observation.images.wrist"):
        assert (features[camera]["dtype"], features[camera]["shape"]) == ("image", [SIZE, SIZE, 3])
    assert features["observation.state"]["names"] == contract.state_names("proprio+cubes", 2)
    assert features["action"]["names"] == list(contract.ACTION_NAMES)
    assert contract.TASKS["stack2"].prompt in (dataset / "meta/tasks.jsonl").read_text()


def test_labels_are_clean_and_observations_come_before_them(dataset: Path, env: StackCubeVectorEnv) -> None:
    """Replaying the recorded labels plus the noise of the seed gives the recorded observations and success."""
    recorded = columns(dataset, 1)
    actions = np.array(recorded["action"], np.float32)
    noise = np.random.default_rng([1001, 1]).normal(0, 0.02, (len(actions), 6))
    observation, _ = env.reset(seed=1001)
    expert = ScriptedExpert()
    for t, label in enumerate(actions):
        policy = observation["policy"]
        np.testing.assert_array_equal(expert.act(policy), label)
        np.testing.assert_array_equal(
            contract.policy_state(policy, "proprio+cubes")[0], np.float32(recorded["observation.state"][t])
        )
        front = decode_image(recorded["observation.images.front"][t]["bytes"])
        np.testing.assert_array_equal(front, policy["table_cam"][0])
        executed = label.copy()
        executed[:6] += noise[t]
        observation, _, terminated, _, info = env.step(executed[None])
        assert terminated[0] == (t == len(actions) - 1)
    assert info["success"][0]


def test_provenance_says_how_it_was_made(dataset: Path, env: StackCubeVectorEnv) -> None:
    provenance = json.loads((dataset / "meta/provenance.json").read_text())
    assert provenance["env"] == env.identity.as_dict()
    assert provenance["seeds"] == [1000, 1001, 1002]
    assert provenance["failed_seeds"] == []
    assert provenance["demos"] == {"episodes": 3, "first_seed": 1000, "noise": 0.02}
    keys = provenance.keys() - {"recipe_digest", "seeds", "failed_seeds"}
    assert provenance["recipe_digest"] == json_digest({key: provenance[key] for key in keys})


def test_same_job_keeps_the_dataset(dataset: Path) -> None:
    before = tree_digest(dataset)
    (event,) = record_demonstrations(job(workers=1), dataset)
    assert isinstance(event, Progress)
    assert (event.done, event.total) == (3, 3)
    assert tree_digest(dataset) == before


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (job(noise=0.03), r"demos\.noise: 0\.02 recorded, 0\.03 requested"),
        (job(episodes=4), r"demos\.episodes"),
        (job(limit=300), r"env\.max_episode_steps"),
    ],
)
def test_another_job_is_refused_by_name(dataset: Path, changed: JobConfig, named: str) -> None:
    before = tree_digest(dataset)
    with pytest.raises(DatasetError, match=named):
        list(record_demonstrations(changed, dataset))
    assert tree_digest(dataset) == before


def test_a_dataset_that_lost_an_episode_is_refused(dataset: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(dataset, damaged)
    (damaged / "data/chunk-000/episode_000001.parquet").unlink()
    with pytest.raises(DatasetError, match="episode_000001"):
        list(record_demonstrations(job(), damaged))


def test_somebody_elses_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match="not recorded by"):
        list(record_demonstrations(job(), tmp_path))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_two_at_once_do_not_record_one_dataset(tmp_path: Path) -> None:
    with claimed(tmp_path / "x"), pytest.raises(InvalidJob, match="output-busy"):
        list(record_demonstrations(job(), tmp_path / "x"))
    assert list(tmp_path.iterdir()) == []


def test_failed_seeds_are_skipped_and_listed(tmp_path: Path, env: StackCubeVectorEnv) -> None:
    """With a time limit between the lengths of the episodes some seeds must fail."""
    lengths = {}
    for seed in range(1000, 1006):
        (episode,) = record_episodes(env, [seed], 0.02)
        assert episode.columns is not None
        lengths[seed] = len(episode.columns["action"])
    limit = int(np.median(list(lengths.values())))
    solved = [seed for seed, length in lengths.items() if length <= limit]
    assert 0 < len(solved) < len(lengths)
    list(record_demonstrations(job(episodes=len(solved), limit=limit), tmp_path / "some"))
    provenance = json.loads((tmp_path / "some/meta/provenance.json").read_text())
    assert provenance["seeds"] == solved
    assert provenance["failed_seeds"] == [seed for seed in lengths if seed < solved[-1] and seed not in solved]


def test_an_expert_that_always_fails_ends_the_job(tmp_path: Path) -> None:
    with pytest.raises(RlinfIsaacError, match=r"env\.max_episode_steps \(5\)"):
        list(record_demonstrations(job(limit=5), tmp_path / "none"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [job(episodes=0), job(workers=0)])
def test_nothing_to_do_is_an_invalid_job(wrong: JobConfig, tmp_path: Path) -> None:
    with pytest.raises(InvalidJob, match="at least 1"):
        list(record_demonstrations(wrong, tmp_path / "none"))


def test_a_killed_worker_fails_the_job(tmp_path: Path) -> None:
    from multiprocessing import active_children

    before = set(active_children())
    events = record_demonstrations(job(episodes=1000, workers=2), tmp_path / "killed")
    next(events)
    worker = next(child for child in active_children() if child not in before)
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(RlinfIsaacError, match="died"):
        list(events)
    assert list(tmp_path.iterdir()) == []
    assert set(active_children()) <= before


def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "record.py"
    script.write_text(SCRIPT)
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path / "data")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    parent.kill()
    parent.wait()
    parent.stdout.read()  # ends when the last process that holds the pipe is gone
    parent.stdout.close()
    for pid in workers:
        assert not running(pid)


def running(pid: int) -> bool:
    """Whether the process exists and is not merely a zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_an_episode_can_be_stopped(env: StackCubeVectorEnv) -> None:
    asked = iter([False, False, True])
    (episode,) = record_episodes(env, [0], 0.0, lambda: next(asked))
    assert (episode.columns, env.elapsed.tolist()) == (None, [2])


def test_an_episode_is_the_same_beside_others(env: StackCubeVectorEnv) -> None:
    several = StackCubeVectorEnv(3, stack_cube("stack2"), image_size=SIZE, renderer="rays", max_episode_steps=240)
    episodes = record_episodes(several, [0, 1, 2], 0.02)
    several.close()
    for episode in episodes:
        (alone,) = record_episodes(env, [episode.seed], 0.02)
        assert (episode.columns is None) == (alone.columns is None)
        for key, column in (alone.columns or {}).items():
            np.testing.assert_array_equal(episode.columns[key], column)
