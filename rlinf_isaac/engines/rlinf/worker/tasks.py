"""The driver's tasks: they build RLinf's cluster, workers and runner for a config, and execute orders."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from omegaconf import DictConfig
from rlinf.config import validate_cfg
from rlinf.runners.embodied_eval_runner import EmbodiedEvalRunner
from rlinf.scheduler import Cluster
from rlinf.utils.placement import HybridComponentPlacement

from rlinf_isaac.engines.rlinf.run_journal import JournalWriter
from rlinf_isaac.engines.rlinf.worker.workers import Policies, Simulators
from rlinf_isaac.ground.probe import importable_version


class Laps(Protocol):
    """Measures the parts of the start."""

    def lap(self, name: str) -> None:
        """End the part `name`."""
        ...


class Task:
    """RLinf's workers and runner for one config. The public methods of subclasses are orders.

    Attributes:
        kinds: component of the placement -> worker class.
        runner_class: RLinf's runner class.
    """

    kinds: ClassVar[Mapping[str, Any]]
    runner_class: ClassVar[Any]

    def __init__(self, config: DictConfig, journal: JournalWriter, clock: Laps) -> None:
        """Connect to Ray and validate the config; RLinf needs the cluster for this."""
        self.journal, self.clock = journal, clock
        if config.get("lane") is not None:
            take_lane(config)
        self.config = validate_cfg(config)
        self.groups: dict[str, Any] = {}
        self.runner: Any = None
        clock.lap("cluster")

    def build(self) -> None:
        """Launch the worker groups."""
        cluster = Cluster(cluster_cfg=self.config.cluster)
        placement = HybridComponentPlacement(self.config, cluster)
        for name, kind in self.kinds.items():
            group = kind.create_group(self.config)
            self.groups[name] = group.launch(
                cluster, name=self.config[name].group_name, placement_strategy=placement.get_strategy(name)
            )
        for group in self.groups.values():
            group.wait_until_made().wait()
        self.clock.lap("workers")

    def workers(self) -> list[str]:
        """Names of all workers that were launched."""
        return [
            f"{group.worker_group_name}:{each.rank}"
            for group in self.groups.values()
            for each in group.worker_info_list
        ]

    def start(self) -> None:
        """Load models, create simulators, and load the state of an interrupted run if there is one."""
        self.runner = self.runner_class(cfg=self.config, **self.groups)
        self.runner.init_workers()
        self.clock.lap("model_and_simulator")

    def describe(self) -> dict[str, Any]:
        """Versions of the packages that affect the results."""
        return {"versions": {name: importable_version(name) for name in ("rlinf", "ray", "torch")}}


class EvaluationTask(Task):
    """Evaluates any number of checkpoints in one simulator."""

    kinds: ClassVar[Mapping[str, Any]] = {"rollout": Policies, "env": Simulators}
    runner_class = EmbodiedEvalRunner

    def describe(self) -> dict[str, Any]:
        """In addition, the environment's identity and the number of slots of all workers."""
        found = self.groups["env"].describe().wait()
        slots = sum(each["slots"] for each in found)
        return super().describe() | {"identity": found[0]["identity"], "slots": slots}

    def play(self, *, measured: bool = True, **play: Any) -> None:
        """Play episodes of one checkpoint; see `RlinfStackCube.begin`. The env workers write the rows to journals.

        RLinf's metrics are journaled with ``time/load_checkpoint`` and ``time/eval``, in seconds, unless these episodes
        are not `measured`, because they are played a second time for their films.
        """
        began = time.monotonic()
        rounds = max(self.groups["env"].begin(play).wait())
        self.groups["env"].set_rounds(rounds).wait()
        self.groups["rollout"].begin(play, rounds).wait()
        loaded = time.monotonic()
        metrics = {f"eval/{name}": float(value) for name, value in self.runner.evaluate().items()}
        if not measured:
            return
        metrics |= {"time/load_checkpoint": loaded - began, "time/eval": time.monotonic() - loaded}
        self.runner.metric_logger.log(data=metrics, step=play["step"])
        self.journal.write("metrics", step=play["step"], values=metrics)


def take_lane(config: DictConfig) -> None:
    """Place one of several drivers on one accelerator of the cluster, or on one node if there are no accelerators.

    Each driver takes RLinf's next free Ray namespace, so a driver that fails does not affect the others.
    """
    cluster = Cluster(num_nodes=0)  # all nodes; RLinf's later calls of `Cluster(config)` return this object
    place = config.lane % (cluster.num_accelerators or cluster.num_nodes)
    config.cluster.num_nodes = cluster.num_nodes
    config.cluster.component_placement = dict.fromkeys(config.cluster.component_placement, str(place))
