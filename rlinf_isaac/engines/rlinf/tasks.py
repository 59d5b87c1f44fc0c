"""What the driver can do: build RLinf's cluster, workers and runner for a config, and follow orders with them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any, Protocol

from omegaconf import DictConfig
from rlinf.config import validate_cfg
from rlinf.runners.embodied_eval_runner import EmbodiedEvalRunner
from rlinf.runners.embodied_runner import EmbodiedRunner
from rlinf.runners.sft_runner import SFTRunner
from rlinf.scheduler import Cluster
from rlinf.utils.placement import HybridComponentPlacement

from rlinf_isaac.engines.rlinf.journal import JournalWriter
from rlinf_isaac.engines.rlinf.workers import Learner, Policies, Simulators, Trainer


class Laps(Protocol):
    """Times the parts of the start."""

    def lap(self, name: str) -> None:
        """What was done since the last lap was `name`."""
        ...


class Evaluation:
    """One cluster, one simulator, any number of checkpoints. Orders: `play`."""

    def __init__(self, config: DictConfig, journal: JournalWriter, clock: Laps) -> None:
        """Attaches to Ray: RLinf validates its config with the cluster at hand."""
        self.journal, self.clock = journal, clock
        self.config = validate_cfg(config)
        self.rollout: Any = None
        self.env: Any = None
        clock.lap("cluster")

    def build(self) -> None:
        """Launch the worker groups."""
        config = self.config
        cluster = Cluster(cluster_cfg=config.cluster)
        placement = HybridComponentPlacement(config, cluster)
        self.rollout = Policies.create_group(config).launch(
            cluster, name=config.rollout.group_name, placement_strategy=placement.get_strategy("rollout")
        )
        self.env = Simulators.create_group(config).launch(
            cluster, name=config.env.group_name, placement_strategy=placement.get_strategy("env")
        )
        for group in (self.rollout, self.env):
            group.wait_until_made().wait()
        self.clock.lap("workers")

    def workers(self) -> list[str]:
        """Names of all workers that were launched."""
        return worker_names(*(group for group in (self.rollout, self.env) if group is not None))

    def start(self) -> None:
        """Load the first checkpoint, build the simulator."""
        self.runner = EmbodiedEvalRunner(cfg=self.config, rollout=self.rollout, env=self.env)
        self.runner.init_workers()
        self.clock.lap("model_and_simulator")

    def describe(self) -> dict[str, Any]:
        """The environment, and how many step side by side."""
        found = self.env.describe().wait()
        return {"identity": found[0]["identity"], "slots": sum(each["slots"] for each in found)}

    def play(self, **play: Any) -> None:
        """Play episodes of one checkpoint; see `env.RlinfStackCube.begin`. Rows are journalled by the env workers."""
        rounds = max(self.env.begin(play).wait())
        self.env.set_rounds(rounds).wait()
        self.rollout.begin(play, rounds).wait()
        metrics = {f"eval/{name}": float(value) for name, value in self.runner.evaluate().items()}
        self.runner.metric_logger.log(data=metrics, step=play["step"])
        self.journal.write("metrics", step=play["step"], values=metrics)


class FineTuning:
    """RLinf's SFTRunner. Orders: `train`."""

    def __init__(self, config: DictConfig, journal: JournalWriter, clock: Laps) -> None:
        """Attaches to Ray: RLinf validates its config with the cluster at hand."""
        self.journal, self.clock = journal, clock
        self.config = validate_cfg(config)
        self.actor: Any = None
        clock.lap("cluster")

    def build(self) -> None:
        """Launch the workers, which open the dataset."""
        cluster = Cluster(cluster_cfg=self.config.cluster)
        placement = HybridComponentPlacement(self.config, cluster)
        self.actor = Trainer.create_group(self.config).launch(
            cluster, name=self.config.actor.group_name, placement_strategy=placement.get_strategy("actor")
        )
        self.actor.wait_until_made().wait()
        self.clock.lap("workers")

    def workers(self) -> list[str]:
        """Names of all workers that were launched."""
        return worker_names(self.actor) if self.actor is not None else []

    def start(self) -> None:
        """Build model and optimiser, or load those of an interrupted run."""
        self.runner = SFTRunner(cfg=self.config, actor=self.actor)
        self.runner.metric_logger.logger["journal"] = JournalBackend(self.journal)
        self.runner.init_workers()
        self.clock.lap("model")

    def describe(self) -> dict[str, Any]:
        """Versions of what trains."""
        return {"versions": versions()}

    def train(self) -> None:
        """Train to the end."""
        self.runner.run()


class Reinforcement:
    """RLinf's EmbodiedRunner. Orders: `train`."""

    def __init__(self, config: DictConfig, journal: JournalWriter, clock: Laps) -> None:
        """Attaches to Ray: RLinf validates its config with the cluster at hand."""
        self.journal, self.clock = journal, clock
        self.config = validate_cfg(config)
        self.groups: dict[str, Any] = {}
        clock.lap("cluster")

    def build(self) -> None:
        """Launch the worker groups."""
        cluster = Cluster(cluster_cfg=self.config.cluster)
        placement = HybridComponentPlacement(self.config, cluster)
        for name, kind in {"actor": Learner, "rollout": Policies, "env": Simulators}.items():
            group = kind.create_group(self.config)
            self.groups[name] = group.launch(
                cluster, name=self.config[name].group_name, placement_strategy=placement.get_strategy(name)
            )
        for group in self.groups.values():
            group.wait_until_made().wait()
        self.clock.lap("workers")

    def workers(self) -> list[str]:
        """Names of all workers that were launched."""
        return worker_names(*self.groups.values())

    def start(self) -> None:
        """Build models, optimiser and simulators, or load those of an interrupted run."""
        self.runner = EmbodiedRunner(cfg=self.config, **self.groups)
        self.runner.metric_logger.logger["journal"] = JournalBackend(self.journal)
        self.runner.init_workers()
        self.clock.lap("model_and_simulator")

    def describe(self) -> dict[str, Any]:
        """Versions of what trains."""
        return {"versions": versions()}

    def train(self) -> None:
        """Evaluate the start, train to the end."""
        if self.config.runner.val_check_interval > 0 and self.runner.global_step == 0:
            self.runner.update_rollout_weights()
            metrics = {f"eval/{name}": value for name, value in self.runner.evaluate().items()}
            self.runner.metric_logger.log(data=metrics, step=-1)
        self.runner.run()


class JournalBackend:
    """A backend of RLinf's MetricLogger that writes to the journal.

    RLinf counts steps from 0 where it logs, and from 1 where it saves; here it is from 1.
    """

    def __init__(self, journal: JournalWriter) -> None:
        self.journal = journal

    def log(self, data: Mapping[str, Any], step: int) -> None:
        """Write one line; values may be numpy's or torch's scalars."""
        self.journal.write("metrics", step=step + 1, values={name: float(value) for name, value in data.items()})

    def finish(self) -> None:
        """Every line is out already."""


def versions() -> dict[str, str]:
    """Of the packages whose behaviour a result depends on."""
    return {name: importlib.metadata.version(name) for name in ("rlinf", "ray", "torch")}


def worker_names(*groups: Any) -> list[str]:
    """Names of the workers of these groups."""
    return [f"{group.worker_group_name}:{each.rank}" for group in groups for each in group.worker_info_list]


TASKS = {"embodied_eval": Evaluation, "sft": FineTuning, "embodied": Reinforcement}
