"""Arms of a comparison: recipes that were each trained several times, compared by the rates of their trainings.

A comparison of checkpoints says which checkpoint is better. An arm says how good a recipe is: its unit is the training
(`rlinf_isaac.stats.retraining`). Of a run with several evaluated checkpoints the last step counts and not the best one:
the best of several is chosen by the very rate that is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from mlflow_project.comparison.episodes import solved
from mlflow_project.comparison.evaluations import Evaluation
from rlinf_isaac.ground.errors import InvalidJob, Problem
from rlinf_isaac.stats.paired import holm
from rlinf_isaac.stats.retraining import Arm, RetrainingGain, compare_arms

NOT_KNOWN = "retraining noise is not known: it takes two trainings of each arm"


@dataclass(frozen=True)
class NamedArm:
    """One recipe: its name, and the evaluation of one checkpoint of each training."""

    name: str
    evaluations: tuple[Evaluation, ...]

    @property
    def rates(self) -> Arm:
        """The trainings' success rates over all their episodes."""
        return Arm.of([solved(each.rows) for each in self.evaluations])


@dataclass(frozen=True)
class ArmPair:
    """Two arms; `adjusted` is the p-value after Holm's correction over all pairs of arms whose noise is known."""

    first: str
    second: str
    gain: RetrainingGain
    adjusted: float | None

    @property
    def sentence(self) -> str:
        """The difference with its interval and p-value, or why there is none."""
        points = f"{self.first} - {self.second}: {100 * self.gain.difference:+.1f} points"
        if self.adjusted is None or self.gain.low is None or self.gain.high is None:
            return f"{points}; {NOT_KNOWN}"
        interval = f"95 % interval {100 * self.gain.low:+.1f} .. {100 * self.gain.high:+.1f}"
        return f"{points} ({interval}), Welch p = {self.gain.p_value:.2g}, after Holm {self.adjusted:.2g}"


def parse_arms(texts: Sequence[str], least: int = 2) -> dict[str, tuple[str, ...]]:
    """Name -> runs, of words ``NAME=RUN,RUN,...``; none, or `least` and more.

    Raises:
        InvalidJob: lists all words that are no arm, and a single arm.
    """
    problems, arms = [], {}
    cure = "give two arms or more as --arm NAME=RUN,RUN,..., each run once"
    words = [word for text in texts for word in text.split()]
    for word in words:
        name, _, rest = word.partition("=")
        runs = tuple(rest.split(","))
        if not name or not all(runs) or name in arms or len(set(runs)) < len(runs):
            problems.append(Problem("bad-arm", f"--arm {word} is no arm with a name and runs of its own", cure))
        arms[name] = runs
    if 0 < len(words) < least:
        problems.append(
            Problem("bad-arm", f"{words[0]} is the only arm, and there is nothing to compare it with", cure)
        )
    if problems:
        raise InvalidJob(problems)
    return arms


def read_arms(arms: Mapping[str, Sequence[str]], read: Callable[[str], list[Evaluation]]) -> tuple[NamedArm, ...]:
    """The arms with the last checkpoint of each run.

    Args:
        arms: name -> runs.
        read: the finished evaluations of one run and of those nested in it.

    Raises:
        InvalidJob: a run has several evaluations of its last step, a checkpoint stands for two trainings, or the
            trainings were evaluated in different tasks.
    """
    problems, found = [], []
    seen: set[str] = set()
    for name, runs in arms.items():
        taken = []
        for run in runs:
            evaluations = read(run)
            last = [each for each in evaluations if each.step == max(other.step for other in evaluations)]
            if len(last) > 1:
                cause = f"arm {name}: run {run} has {len(last)} evaluations of step {last[0].step}"
                problems.append(Problem("bad-arm", cause, "name the nested run of the evaluation that counts"))
            elif {last[0].run, last[0].checkpoint or last[0].run} & seen:
                cause = f"arm {name}: the checkpoint of run {run} stands for another training, too"
                problems.append(Problem("bad-arm", cause, "name one run for each training"))
            seen |= {key for each in last for key in (each.run, each.checkpoint) if key}
            taken.append(last[0])
        found.append(NamedArm(name, tuple(taken)))
    tasks = sorted({each.task for arm in found for each in arm.evaluations})
    if len(tasks) > 1:
        cause = f"the arms were evaluated in different tasks: {', '.join(tasks)}"
        problems.append(Problem("bad-arm", cause, "name evaluations of one task, or of the same tasks together"))
    if problems:
        raise InvalidJob(problems)
    return tuple(found)


def arm_pairs(arms: Sequence[NamedArm]) -> tuple[ArmPair, ...]:
    """Every pair of arms, by Welch's test of the trainings' rates."""
    gains = [(one.name, two.name, compare_arms(one.rates, two.rates)) for one, two in combinations(arms, 2)]
    adjusted = iter(holm([gain.p_value for *_, gain in gains if gain.p_value is not None]))
    return tuple(ArmPair(*row, next(adjusted) if row[2].known else None) for row in gains)


def arm_table(arms: Sequence[NamedArm]) -> list[dict[str, Any]]:
    """One row per arm; what is not known of a single training is None. Rates are in [0, 1]."""
    rows = []
    for arm in arms:
        rates = arm.rates
        low, high = rates.interval() or (None, None)
        taken = " ".join(f"{each.name} ({each.run})" for each in arm.evaluations)
        rows.append(
            {
                "arm": arm.name,
                "trainings": rates.trainings,
                "mean": rates.mean,
                "retraining_sd": rates.retraining_sd,
                "low": low,
                "high": high,
                "checkpoints": taken,
                "names": ", ".join(each.name for each in arm.evaluations),
            }
        )
    return rows


def arm_sentences(arms: Sequence[NamedArm]) -> list[str]:
    """Each arm, then each difference, for a terminal."""
    lines = []
    for row in arm_table(arms):
        known = row["low"] is not None
        noise = (
            f"sd between trainings {100 * row['retraining_sd']:.1f} points" if known else "retraining noise not known"
        )
        interval = f", 95 % interval {100 * row['low']:.0f} .. {100 * row['high']:.0f} %" if known else ""
        lines.append(f"{row['arm']}: {100 * row['mean']:.1f} % of {row['trainings']} trainings{interval}, {noise}")
    return [*lines, *(pair.sentence for pair in arm_pairs(arms))]
