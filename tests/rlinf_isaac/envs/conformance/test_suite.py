"""Each planted fault is found by its code, and nothing is found in the environment without one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlinf_isaac.config import load_config
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.task import filled_with, task_of
from rlinf_isaac.engines.demonstrations import record_demonstrations
from rlinf_isaac.envs.conformance import ends, form, motions, rows
from rlinf_isaac.envs.conformance.bench import Bench
from rlinf_isaac.envs.conformance.suite import CHECKS, Result, run_suite
from rlinf_isaac.envs.host.env import HostEnv
from rlinf_isaac.jobs.conformance import ConformanceJob, bench_of
from rlinf_isaac.tasks.read import from_dict

FLIGHT = {
    "name": "flight",
    "prompt": "Fly to the middle.",
    "control_hz": 10,
    "cameras": {
        "base_0_rgb": {"dataset": "observation.images.above", "env": "pixels/above"},
        "left_wrist_0_rgb": {"dataset": "observation.images.carried", "env": "pixels/carried"},
    },
    "state": {"dims": 3, "names": ["x", "y", "z"], "env": "point"},
    "action": {"dims": 3, "clip": [-1, 1]},
    "env": {"kind": "gymnasium", "make": "toy.py:Flight", "success": "info.solved", "max_steps": 40},
    "expert": "toy.py:Expert",
}


def config_of(options: dict, action: dict | None = None, env: dict | None = None) -> JobConfig:
    values = FLIGHT | {"env": FLIGHT["env"] | {"options": options} | (env or {})}
    values |= {"action": FLIGHT["action"] | (action or {})}
    task = from_dict(values, "the test", Path(__file__).parent)
    return filled_with(load_config("tiny"), task)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """Demonstrations in the environment without a fault."""
    config = config_of({})
    config = replace(config, demos=replace(config.demos, episodes=6, workers=1, noise=0.0))
    root = tmp_path_factory.mktemp("data") / "flights"
    for _ in record_demonstrations(config, root):
        pass
    return root


def results_of(config: JobConfig, dataset: Path | None = None) -> list[Result]:
    return list(run_suite(bench_of(ConformanceJob(config, None, dataset))))


def found(results: list[Result]) -> set[tuple[str, str]]:
    return {(problem.code, problem.level) for each in results for problem in each.problems}


def test_nothing_is_found_where_nothing_is_wrong(recorded):
    results = results_of(config_of({}), recorded)
    assert [each for each in results if each.problems] == []
    assert [each.name for each in results] == [check.name for check in CHECKS]
    assert {each.result for each in results} == {"ok"}


ERROR, WARNING = "error", "warning"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"fault": "unseeded"}, {("env-unseeded", ERROR)}),
        ({"fault": "one start"}, {("env-same-start", WARNING)}),
        ({"fault": "global"}, {("env-rows-leak", ERROR), ("env-reset-touches", ERROR)}),
        ({"fault": "clock"}, {("env-not-deterministic", ERROR)}),
        ({"fault": "global generator"}, {("env-not-deterministic", ERROR)}),
        ({"fault": "process"}, {("env-other-process", ERROR)}),
        ({"fault": "stale wrist"}, {("env-camera-stale", ERROR)}),
        ({"fault": "wrist on the wall"}, {("env-camera-still", WARNING)}),
        ({"fault": "black"}, {("env-camera-blank", ERROR)}),
        ({"fault": "floats"}, {("env-camera", ERROR)}),
        ({"fault": "starts anew"}, {("env-terminal-observation", ERROR)}),
        ({"fault": "never solved"}, {("env-expert-fails", ERROR)}),
        ({"fault": "always solved"}, {("env-solved-at-start", ERROR)}),
        ({"fault": "no term"}, {("no-such-term", ERROR)}),
        ({"fault": "nan"}, {("env-not-finite", ERROR)}),
        ({"fault": "shape"}, {("env-crashed", ERROR)}),
        ({"fault": "raises"}, {("env-crashed", ERROR)}),
        ({"fault": "ignores"}, {("env-dim-ignored", WARNING), ("env-expert-fails", WARNING)}),
        ({"fault": "ignores all"}, {("env-dim-ignored", ERROR), ("env-expert-fails", ERROR)}),
        ({"reach": 0.5}, {("env-action-range", ERROR)}),
        ({"fps": 30}, {("env-control-rate", WARNING)}),
        ({"fault": "dt"}, {("env-control-rate", WARNING)}),
        ({"limit": 20}, {("env-own-limit", WARNING)}),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_fault_is_found_by_its_code(options, expected):
    assert found(results_of(config_of(options))) == expected


@pytest.mark.parametrize(
    ("options", "action", "expected"),
    [
        ({"fault": "bgr"}, {}, {("env-channel-order", ERROR)}),
        ({"fault": "upside down"}, {}, {("env-image-flipped", ERROR)}),
        ({"fault": "negative"}, {}, {("env-image-differs", WARNING)}),
        ({"fault": "large"}, {}, {("env-image-size", WARNING)}),
        ({"fault": "degrees"}, {}, {("env-state-differs", WARNING)}),
        ({"reach": 0.5}, {"clip": [-0.5, 0.5]}, {("env-dataset-actions", ERROR)}),
        ({"reach": 1.0}, {"clip": None}, {("env-no-clip", WARNING)}),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_difference_from_the_dataset_is_found_by_its_code(recorded, options, action, expected):
    assert found(results_of(config_of(options, action), recorded)) == expected


def test_a_dataset_of_another_rate_is_found(recorded):
    bench = bench_of(ConformanceJob(config_of({}), None, recorded))
    bench.recording = replace(bench.recording, fps=15)
    checks = [check for check in CHECKS if check.look is motions.rates]
    (result,) = run_suite(bench, tuple(checks))
    assert found([result]) == {("env-control-rate", ERROR)}
    assert "15 frames per second" in result.problems[0].cause


class Careless(HostEnv):
    """Breaks what `HostEnv` sees to for every environment, as one on another simulator might."""

    fault = ""

    def chunk_step(self, actions, active, on_frame=None, images=True):
        actions, active = np.array(actions, np.float32), np.array(active)
        if self.fault == "leaves out the last" and actions.shape[1] > 1:
            actions = actions[:, :-1]
        if self.fault == "steps all":
            active = ~self._done
        if self.fault == "takes anything":
            actions = np.nan_to_num(actions)
        if self.fault == "goes on" and self._done.any():
            self.reset(seed=1, options={"reset_mask": self._done})
        step = super().chunk_step(actions, active, on_frame, images)
        if self.fault == "starts anew" and self._done.any():
            self.reset(seed=1, options={"reset_mask": self._done})
            return replace(step, observation=self.observe())
        if self.fault == "other dtype":
            step.observation["point"] = step.observation["point"].astype(np.float32)
        return step

    def _judge(self, rows):
        if self.fault == "ends late":
            self.elapsed[rows] -= 1
        super()._judge(rows)
        if self.fault == "ends late":
            self.elapsed[rows] += 1


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("", set()),
        ("leaves out the last", {("env-chunk", ERROR)}),
        ("steps all", {("env-inactive-moves", ERROR), ("env-steps-after-end", ERROR)}),
        ("takes anything", {("env-bad-action", ERROR)}),
        ("goes on", {("env-steps-after-end", ERROR)}),
        ("starts anew", {("env-terminal-observation", ERROR), ("env-steps-after-end", ERROR)}),
        ("ends late", {("env-time-out", ERROR)}),
        ("other dtype", {("env-observation", ERROR), ("env-inactive-moves", ERROR)}),
    ],
)
def test_a_careless_vector_environment_is_found(fault, expected):
    task = task_of(config_of({}))

    def make(rows: int, max_steps: int | None) -> Careless:
        env = Careless(rows, task, max_steps, workers=1)
        env.fault = fault
        return env

    modules = (form.observations, rows.inactive_rows, rows.chunk_is_its_steps, motions.unusable_actions, ends.time_out)
    checks = [check for check in CHECKS if check.look in modules]
    assert len(checks) == len(modules)
    assert found(list(run_suite(Bench(make, task), tuple(checks)))) == expected
