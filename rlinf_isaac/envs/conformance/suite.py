"""The checks in their order, and how they are run: a crash of the environment is a finding, and the next check goes on
with a new one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rlinf_isaac.envs.conformance import ends, form, motions, recorded, rows, seeds, solving, timing
from rlinf_isaac.envs.conformance.bench import Bench, EnvCrashed, Look
from rlinf_isaac.ground.errors import InvalidJob, Problem, SimulatorDied

UNSEEDED = "env-unseeded"
"""Code of what leaves nothing to say for the checks that play an episode twice, even where it is a warning."""
CRASHES = 3
"""After so many the rest is not looked at."""


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: what should hold, for people.
        look: looks whether it does.
        needs: names of checks without whose success this one says nothing.
    """

    name: str
    look: Callable[[Bench], Look]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """What came of a check.

    Attributes:
        name: of the check.
        result: ``ok``, ``error``, ``warning`` or ``skipped``.
        seen: what was looked at, or why nothing was.
        problems: what is wrong.
    """

    name: str
    result: str
    seen: str
    problems: tuple[Problem, ...] = ()


MADE = "the environment can be made"
START = "a seed gives the same start"
EPISODE = "the same episode again"
PROCESS = "a new process plays the same"
SHOWN = "images show something"
APART = "rows are apart"
CHUNK = "a chunk is its steps"


def made(bench: Bench) -> Look:
    """The environment can be made, and is as the task says: otherwise there is nothing to look at."""
    identity = bench.env.identity
    return Look(f"{identity.backend}, {bench.task.action.dims} action dims")


CHECKS = (
    Check(MADE, made),
    Check("keys, shapes, dtypes", form.observations),
    Check("numbers are finite", form.finite),
    Check(SHOWN, form.images_show_something),
    Check(START, seeds.same_start),
    Check("other seeds, other starts", seeds.other_starts),
    Check(EPISODE, seeds.same_episode, (START,)),
    Check(APART, seeds.own_rows, (START, EPISODE)),
    Check("a reset touches no other row", rows.reset_of_one_row, (START, EPISODE)),
    Check("inactive rows stay", rows.inactive_rows),
    Check(CHUNK, rows.chunk_is_its_steps, (START, EPISODE)),
    Check("images change nothing", rows.without_images, (START, EPISODE)),
    Check("not solved at the start", ends.not_solved_at_the_start),
    Check("unusable actions are refused", motions.unusable_actions),
    Check("every dim acts", motions.every_dim_acts),
    Check("action ranges", motions.ranges),
    Check("control rate", motions.rates),
    Check("cameras see the robot move", form.cameras_move, (SHOWN,)),
    Check("first images as in the dataset", recorded.first_frames),
    Check("first states as in the dataset", recorded.first_states),
    Check("random episodes", solving.random_episodes),
    Check("the expert solves the task", solving.expert_solves),
    Check("time per step and image", timing.step_and_image),
    Check(PROCESS, seeds.other_process, (START, EPISODE, APART)),
    Check("time-outs", ends.time_out, (START, EPISODE, CHUNK, PROCESS)),
)


def run_suite(bench: Bench, checks: tuple[Check, ...] = CHECKS) -> Iterator[Result]:
    """Run the checks, and yield what came of each as soon as it is known; nothing more where there is no environment.
    Closes it."""
    failed: set[str] = set()  # checks that found an error or no seeds, or were skipped because of it
    crashes = 0
    try:
        for check in checks:
            missing = [name for name in check.needs if name in failed]
            if MADE in failed:
                return
            if crashes >= CRASHES:
                result = Result(check.name, "skipped", f"the environment has crashed in {crashes} checks")
            elif missing:
                result = Result(check.name, "skipped", f"says nothing without: {missing[0]}")
            else:
                result, crashed = _run(check, bench)
                crashes += crashed
            if result.result == "error" or missing or any(each.code == UNSEEDED for each in result.problems):
                failed.add(check.name)
            yield result
    finally:
        bench.drop()


def _run(check: Check, bench: Bench) -> tuple[Result, bool]:
    """What comes of a check, and whether the environment crashed."""
    cure = "run it by itself with the same seed and actions, and correct what it raises"
    try:
        look = check.look(bench)
    except InvalidJob as error:
        bench.drop()
        return Result(check.name, "error", "refused", error.problems), True
    except (SimulatorDied, EnvCrashed) as error:
        bench.drop()
        problem = Problem("env-crashed", f"{check.name}: {error}", cure)
        return Result(check.name, "error", "crashed", (problem,)), True
    levels = {problem.level for problem in look.problems}
    result = "error" if "error" in levels else "warning" if levels else "skipped" if look.skipped else "ok"
    return Result(check.name, result, look.seen, look.problems), False
