"""A sweep that fans out over the nodes of a Ray cluster, which loses one of them. The cluster is two real ones here."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from rlinf_support import owned_by
from support import SHORT_EVALUATION, rows_of, small_config

from rlinf_isaac.checkpoint.bundle import Bundle, read_bundle
from rlinf_isaac.engines.base import EvaluationJob
from rlinf_isaac.engines.local import LocalEngine
from rlinf_isaac.engines.rlinf import RlinfEngine, Runtime
from rlinf_isaac.engines.rlinf.processes import OWNER, end_owned, new_owner, owned, ray_directory
from rlinf_isaac.engines.rlinf.session import RAY_PORTS, free_ports, ray_head
from rlinf_isaac.ground.events import CheckpointSaved, EpisodeDone, EvaluationFinished

pytestmark = pytest.mark.rlinf

EPISODES = 8


@dataclass
class Node:
    """A raylet (and a head's daemons), which is killed as a machine that loses power."""

    owner: str
    process: subprocess.Popen

    def kill(self) -> None:
        self.process.kill()
        end_owned(self.owner)
        self.process.wait()
        shutil.rmtree(ray_directory(self.owner), ignore_errors=True)


@pytest.fixture
def cluster(rlinf_python, tmp_path, monkeypatch) -> Iterator[tuple[str, Node, Node]]:
    """Address of a cluster of two nodes, its head, its other node. It wants a token, as Ray's do by default."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(24))
    ports = free_ports(len(RAY_PORTS))
    address = f"127.0.0.1:{ports[0]}"
    nodes = []

    def start(owner: str, command: list[str]) -> Node:
        ray_directory(owner).mkdir(mode=0o700)
        with open(tmp_path / f"node-{len(nodes)}.log", "w") as log:
            command = [*command, "--block", "--num-cpus=8"]
            process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {OWNER: owner})
        nodes.append(Node(owner, process))
        return nodes[-1]

    try:
        owner = new_owner()
        head = start(owner, [*ray_head(rlinf_python, ray_directory(owner), ports), "--include-dashboard=false"])
        code = f"import ray; ray.init('{address}'); assert len([n for n in ray.nodes() if n['Alive']]) == %d"

        def alive(count: int) -> bool:
            return subprocess.run([rlinf_python, "-c", code % count], capture_output=True).returncode == 0

        while not alive(1):
            assert head.process.poll() is None
        join = [rlinf_python, "-m", "ray.scripts.scripts", "start", "--disable-usage-stats"]
        second = start(new_owner(), [*join, f"--address={address}", "--node-ip-address=127.0.0.2"])
        while not alive(2):
            assert second.process.poll() is None
        yield address, head, second
    finally:
        for node in nodes:
            node.kill()


@pytest.fixture
def four_bundles(small_dataset, tmp_path) -> tuple[Bundle, ...]:
    from rlinf_isaac.jobs.sft import plan

    job = plan(small_config(["sft.steps=8"]), small_dataset, None, tmp_path / "sft")
    saved = [event for event in LocalEngine().sft(job) if isinstance(event, CheckpointSaved)]
    return tuple(read_bundle(event.path) for event in saved)


def test_all_rows_arrive_although_a_node_is_lost(rlinf_python, cluster, four_bundles, tmp_path):
    (address, head, second), bundles = cluster, four_bundles
    assert len(bundles) == 4
    config = small_config([SHORT_EVALUATION, f"eval.episodes={EPISODES}"])
    job = EvaluationJob(config, bundles, tmp_path / "rlinf")
    local = replace(job, output=tmp_path / "local")
    list(LocalEngine().evaluate(local))

    events = []
    runtime = Runtime(python=rlinf_python, ray_address=address, parallel=2)
    for event in RlinfEngine(runtime).evaluate(job):
        events.append(event)
        # The second lane is on the second node and begins with the second checkpoint.
        if isinstance(event, EpisodeDone) and event.row.checkpoint_step == bundles[1].step and owned(second.owner):
            second.kill()
    assert not owned(second.owner)

    assert {event.digest for event in events if isinstance(event, EvaluationFinished)} == {b.digest for b in bundles}
    assert sorted(rows_of(job.output), key=str) == sorted(rows_of(local.output), key=str)
    assert len(rows_of(job.output)) == EPISODES * len(bundles)
    assert set(owned_by(os.getpid())) <= set(owned(head.owner))
