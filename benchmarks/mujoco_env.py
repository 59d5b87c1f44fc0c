"""Speed of the embedded environment: control steps and observations per second, by image size and renderer.

    python benchmarks/mujoco_env.py [--sizes 64,128,224] [--seconds 1.0] [--rounds 3]

Everything is measured in one process and in turns (round 1 of every case, then round 2, ...), and the best round of
each case counts, so that the ratios hold on a machine that is busy with other things as well. Rates are per second of
this process's CPU time (all its threads), which other processes disturb less, and per second of wall time.

An observation is both cameras. ``egl+shadows`` renders the same scene with a shadow map of 1024 pixels, which the
environment switches off, and ``egl+msaa`` with four samples per pixel.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np
from rich.console import Console
from rich.table import Table

from rlinf_isaac.envs.mujoco.rays import RayRenderer
from rlinf_isaac.envs.mujoco.rendering import EglRenderer, Renderer, egl_problem
from rlinf_isaac.envs.mujoco.simulation import Simulation
from rlinf_isaac.envs.stack_cube.contract import CAMERA_NAMES
from rlinf_isaac.envs.stack_cube.expert import ScriptedExpert

NO_QUALITY = 'shadowsize="0" offsamples="0"'
QUALITY = {"egl+shadows": 'shadowsize="1024" offsamples="0"', "egl+msaa": 'shadowsize="0" offsamples="4"'}
NUM_CUBES = 2
ROWS = (1, 4, 8)
"""How many rows take their control steps together."""


@dataclass
class Rate:
    """Best rates seen of one case, per second."""

    cpu: float = 0.0
    wall: float = 0.0

    def measure(self, work: Callable[[], None], seconds: float) -> None:
        """Repeat `work` for `seconds` and keep the rates if they are better than before."""
        wall, cpu, count = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - wall < seconds:
            work()
            count += 1
        self.cpu = max(self.cpu, count / (time.process_time() - cpu))
        self.wall = max(self.wall, count / (time.perf_counter() - wall))


def control_step(simulation: Simulation, rows: int) -> Callable[[], None]:
    """One control step of all rows with the expert's actions; new episodes every 100 steps."""
    steps, experts = 0, [ScriptedExpert() for _ in range(rows)]
    last_actions = np.zeros((rows, 7), np.float32)
    for row in range(rows):
        simulation.reset(row, row)

    def work() -> None:
        nonlocal steps, experts
        seen = simulation.measured.policy(last_actions)
        actions = np.stack([expert.act(seen, row) for row, expert in enumerate(experts)])
        simulation.control_step(range(rows), actions)
        steps += 1
        if steps % 100 == 0:
            experts = [ScriptedExpert() for _ in range(rows)]
            for row in range(rows):
                simulation.reset(row, steps + row)

    return work


def observation(renderer: Renderer, data: mujoco.MjData) -> Callable[[], None]:
    """Both cameras' images."""

    def work() -> None:
        for camera in CAMERA_NAMES:
            renderer.render(data, camera)

    return work


def cases(sizes: list[int]) -> dict[tuple[str, int], Callable[[], None]]:
    """(what, image size) -> work; the size of ``step``, which has no images, is the number of rows."""
    simulation = Simulation(1, NUM_CUBES)
    simulation.reset(0, 0)
    works = {("step", rows): control_step(Simulation(rows, NUM_CUBES), rows) for rows in ROWS}
    problem = egl_problem()
    if problem is not None:
        print(f"EGL is left out: {problem}")
    for size in sizes:
        works["rays", size] = observation(RayRenderer(simulation.model, size), simulation.data[0])
        if problem is not None:
            continue
        works["egl", size] = observation(EglRenderer(simulation.model, size), simulation.data[0])
        for name, quality in QUALITY.items():
            text = simulation.mjcf.replace(NO_QUALITY, quality)
            assert text != simulation.mjcf
            model = mujoco.MjModel.from_xml_string(text)
            works[name, size] = observation(EglRenderer(model, size, shadows=True), simulation.data[0])
    return works


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="64,128,224")
    parser.add_argument("--seconds", type=float, default=1.0, help="per case and round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]

    works = cases(sizes)
    rates = {case: Rate() for case in works}
    for _ in range(arguments.rounds):
        for case, work in works.items():
            rates[case].measure(work, arguments.seconds)

    print(f"mujoco {mujoco.__version__}, {os.cpu_count()} CPUs, {NUM_CUBES} cubes")
    for rows in ROWS:
        step = rates.pop(("step", rows))
        print(
            f"control steps of {rows} rows with the expert, no images: {rows * step.cpu:.0f} per CPU second, "
            f"{rows * step.wall:.0f} per second"
        )
    table = Table(title="observations (two cameras)")
    for column in ("size", "renderer", "per CPU second", "per second", "CPU time / egl's"):
        table.add_column(column, justify="left" if column == "renderer" else "right")
    for (name, size), rate in sorted(rates.items(), key=lambda item: (item[0][1], -item[1].cpu)):
        reference = rates.get(("egl", size))
        ratio = f"{reference.cpu / rate.cpu:.1f}" if reference else "-"
        table.add_row(str(size), name, f"{rate.cpu:.0f}", f"{rate.wall:.0f}", ratio)
    Console().print(table)


if __name__ == "__main__":
    main()
