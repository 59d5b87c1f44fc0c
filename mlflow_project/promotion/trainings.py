"""The gate's rule ``training-seeds``: a recipe is judged by several trainings, not by the luck of one.

The other rules judge one checkpoint. Trained again, its recipe gives another one, whose rate differs by some points; so
a gain over the champion may be that of the training and not of the recipe. Where it is asked for, this rule compares
the trainings of both (`rlinf_isaac.stats.retraining`), at the level that was asked for. It does not count what was
evaluated before, as the other rules do: who picks the trainings must not look at their rates first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlflow_project.comparison.arms import NamedArm, parse_arms, read_arms
from mlflow_project.comparison.evaluations import Evaluation
from mlflow_project.promotion.gate import Demands, Ruling
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.stats.retraining import Arm, compare_arms

RULE = "training-seeds"
CANDIDATE, CHAMPION = "candidate", "champion"


@dataclass(frozen=True)
class Trainings:
    """The trainings of a candidate's recipe and of the champion's; None where none were named.

    Attributes:
        digests: arm -> digests of all checkpoints that the named runs have evaluated.
    """

    candidate: NamedArm | None = None
    champion: NamedArm | None = None
    digests: tuple[tuple[str, frozenset[str]], ...] = ()

    def has(self, arm: str, digest: str | None) -> bool:
        """Whether this checkpoint is of one of the trainings of an arm."""
        return digest in dict(self.digests).get(arm, ())


def read_trainings(words: Sequence[str], read: Callable[[str], list[Evaluation]]) -> Trainings:
    """The trainings that ``candidate=RUN,RUN,...`` and ``champion=RUN,RUN,...`` name.

    Args:
        read: the finished evaluations of a run and of those nested in it.

    Raises:
        InvalidJob: the words are no such arms, or a run has no evaluation that counts.
    """
    named = parse_arms(words, least=1)
    if others := sorted(named.keys() - {CANDIDATE, CHAMPION}):
        cause = f"promote knows the arms {CANDIDATE} and {CHAMPION}, not {', '.join(others)}"
        raise InvalidJob.of("bad-arm", cause, f"--arm {CANDIDATE}=RUN,RUN --arm {CHAMPION}=RUN,RUN")
    found: dict[str, list[Evaluation]] = {}

    def remembered(run: str) -> list[Evaluation]:
        found[run] = read(run)
        return found[run]

    arms = {arm.name: arm for arm in read_arms(named, remembered)}
    digests = tuple(
        (name, frozenset(each.checkpoint for run in runs for each in found[run])) for name, runs in named.items()
    )
    return Trainings(arms.get(CANDIDATE), arms.get(CHAMPION), digests)


def rule_on(trainings: Trainings, candidate: str, champion: str | None, demands: Demands) -> Ruling:
    """Whether the candidate's recipe passes.

    Args:
        candidate: digest of the candidate.
        champion: digest of the champion; None if there is none.
        demands: `Demands.training_seeds` trainings of each recipe, at `Demands.alpha`.
    """
    required = demands.training_seeds
    sides = [(CANDIDATE, trainings.candidate, candidate)]
    if champion is not None:
        sides.append((CHAMPION, trainings.champion, champion))
    missing = []
    for name, arm, digest in sides:
        there = 0 if arm is None else arm.rates.trainings
        if there < required:
            missing.append(f"{there} trainings of the {name}'s recipe, required {required}")
        elif not trainings.has(name, digest):
            missing.append(f"none of the runs of the arm {name} has evaluated the {name}'s checkpoint")
    if missing or trainings.candidate is None:
        return Ruling(RULE, passed=False, because="; ".join(missing))
    ours = trainings.candidate.rates
    if champion is None or trainings.champion is None:
        return Ruling(RULE, passed=True, because=f"{_words(ours)}; there is no champion yet")
    theirs = trainings.champion.rates
    gain = compare_arms(ours, theirs, confidence=1 - 2 * demands.alpha)
    assert gain.low is not None
    assert gain.p_greater is not None
    finding = f"{_words(ours)}; the champion's {_words(theirs)}; difference {100 * gain.difference:+.1f} points, "
    if demands.require == "better":
        finding += f"Welch's test, one-sided p {gain.p_greater:.3g}, required {demands.alpha:.3g}"
        passed = gain.p_greater <= demands.alpha
    else:
        finding += f"lower bound {100 * gain.low:+.1f} points, required more than {-100 * demands.margin:+.3g}"
        passed = gain.low > -demands.margin
    within = "" if passed or gain.difference <= 0 else ": this gain is within the noise of retraining"
    return Ruling(RULE, passed, finding + within)


def _words(arm: Arm) -> str:
    noise = "" if arm.retraining_sd is None else f", sd between trainings {100 * arm.retraining_sd:.1f} points"
    return f"{arm.trainings} trainings, mean {100 * arm.mean:.1f} %{noise}"
