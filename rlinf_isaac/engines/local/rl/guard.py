"""Recognises a training that has ruined its policy, and says to which checkpoint it goes back.

Two kinds of evidence are a collapse:

- The success has fallen. After every iteration its training episodes are compared with those that an earlier checkpoint
  of the same line played (Fisher's exact test, one-sided), and after every held-out evaluation its outcomes with those
  of the earlier checkpoints on the same seeds (McNemar's exact test, one-sided). The training is compared with all of
  them, over and over, so each p-value must be below `ALPHA` / (number of all comparisons that a run can make): the
  union bound. So a training whose success never falls goes back with a probability of at most `ALPHA` = 5 %. Of 2000
  simulated trainings of 22 iterations whose success stayed at 10, 50 or 90 % (128 episodes, 50 held-out seeds), 1.6 to
  1.9 % did with checkpoints and evaluations every 5 iterations, 0.4 to 2.5 % with both in each (64 episodes).
- The update has moved the policy too far: the KL divergence from the policy that played is above ``rl.guard_kl``, the
  share of clipped chunks above ``rl.guard_clip_fraction``, or a loss was not finite.

The training goes back to the newest checkpoint than which no other is separably better. For this choice `ALPHA` is the
level of each single comparison, because a doubtful checkpoint is rather left out than gone on from.
"""

from __future__ import annotations

from rlinf_isaac.config.keep import parse_keep
from rlinf_isaac.config.rl_schema import RlConfig
from rlinf_isaac.engines.local.rl.course import Checkpoint, Course, Iteration
from rlinf_isaac.stats.paired import mcnemar
from rlinf_isaac.stats.rates import RateEstimate
from rlinf_isaac.stats.sequential import ALPHA
from rlinf_isaac.stats.unpaired import fisher


def collapse(course: Course, newest: Iteration, rl: RlConfig) -> str:
    """Why the newest iteration, which `course` does not have yet, is a collapse; empty if it is none."""
    if newest.kl is not None and newest.kl > rl.guard_kl:
        return (
            f"the update of iteration {newest.number} moved the policy by a KL divergence of {newest.kl:.3g}, more "
            f"than rl.guard_kl {rl.guard_kl:g}"
        )
    if newest.clip_fraction is not None and newest.clip_fraction > rl.guard_clip_fraction:
        return (
            f"the update of iteration {newest.number} clipped {100 * newest.clip_fraction:.0f} % of its chunks, more "
            f"than rl.guard_clip_fraction {rl.guard_clip_fraction:g}"
        )
    level = ALPHA / max(1, comparisons(rl))
    line, known = course.line(newest.parent), course.checkpoints()
    for number in line:
        earlier = known.get(number)
        if earlier is None:
            continue
        # The weights of the newest iteration's parent played its episodes: they are no earlier ones.
        if number != newest.parent and newest.episodes and earlier.episodes:
            counts = _counts(earlier.successes, earlier.episodes, rl), _counts(newest.successes, newest.episodes, rl)
            p_value = fisher(_floor(counts[0]), _ceil(counts[1]))
            if p_value < level:
                then, now = _rate(earlier.successes, earlier.episodes), _rate(newest.successes, newest.episodes)
                return (
                    f"the success of the training episodes fell from {then} at {_name(number)} to {now} in iteration "
                    f"{newest.number} (p {p_value:.1e}, below {level:.1e})"
                )
        if newest.held_out and len(earlier.held_out) == len(newest.held_out):
            lost, gained = _differences(earlier.held_out, newest.held_out)
            p_value = mcnemar(lost, gained, "greater")
            if p_value < level:
                then, now = (_rate(sum(each), len(each)) for each in (earlier.held_out, newest.held_out))
                return (
                    f"the success on the held-out seeds fell from {then} at {_name(number)} to {now} after iteration "
                    f"{newest.number} ({lost} seeds lost, {gained} gained, p {p_value:.1e}, below {level:.1e})"
                )
    return ""


def comparisons(rl: RlConfig) -> int:
    """How many comparisons a training without a roll-back makes at most."""
    count = 0
    for number in range(1, rl.iterations + 1):
        # Checkpoints before the one that plays, and, if it is evaluated, all before it. The start checkpoint is one.
        count += 1 + max(0, number - 2) // rl.save_interval
        if rl.eval_interval and (number % rl.eval_interval == 0 or number == rl.iterations):
            count += 1 + (number - 1) // rl.save_interval
    return count


def target(course: Course, rl: RlConfig, before: int | None = None) -> int:
    """The newest checkpoint than which no other is separably better, 0 for the start checkpoint. With `before`, of the
    checkpoints before that iteration. What ``rl.keep`` has given up (`Course.gone`) does not count."""
    known = {
        number: each
        for number, each in course.checkpoints().items()
        if number not in course.gone and (before is None or number < max(1, before))
    }
    for number in sorted(known, reverse=True):
        rivals = (each for each in known.values() if each.number != number)
        if not any(_better(rival, known[number], rl) for rival in rivals):
            return number
    return 0


def best(course: Course, rl: RlConfig) -> int:
    """The checkpoint that is a training's result; 0 if it has left none.

    It is the one with the highest success on the held-out seeds, the newest of equal ones. Without held-out evaluations
    of checkpoints it is the newest than which no other is separably better.
    """
    known = {number: each for number, each in course.checkpoints().items() if number not in course.gone}
    evaluated = [each for each in known.values() if each.number and each.held_out]
    if not evaluated:
        found = target(course, rl)
        return found or max((number for number in known if number), default=0)
    return max(evaluated, key=lambda each: (sum(each.held_out) / len(each.held_out), each.number)).number


def give_up(course: Course, rl: RlConfig) -> None:
    """Add to ``course.gone`` what ``rl.keep`` does not hold, after each checkpoint in turn.

    It is a function of the course alone, so a training that is resumed after a kill decides the same. What training
    goes on from stays, and so do the checkpoints that a roll-back would go to and the best one, which is the result.
    """
    keep = parse_keep(rl.keep)
    if keep.all:
        return
    for newest in [each.number for each in course if each.saved and each.number]:
        if newest <= course.given_up_at:
            continue
        past = Course([each for each in course if each.number <= newest], course.gone)
        known = {number: each for number, each in past.checkpoints().items() if number and number not in past.gone}
        scores = {number: sum(each.held_out) / len(each.held_out) for number, each in known.items() if each.held_out}
        needed = {newest, past.weights, target(past, rl), target(past, rl, before=newest), best(past, rl)}
        course.gone |= known.keys() - keep.kept(known, scores).keys() - needed
        course.given_up_at = newest


def _better(rival: Checkpoint, one: Checkpoint, rl: RlConfig) -> bool:
    """Whether a checkpoint is separably better than another: on the held-out seeds if both were evaluated there, else
    by the training episodes that they played."""
    if rival.held_out and one.held_out:
        return mcnemar(*_differences(rival.held_out, one.held_out), "greater") <= ALPHA
    if not (rival.episodes and one.episodes):
        return False
    first, second = (_counts(each.successes, each.episodes, rl) for each in (rival, one))
    return fisher(_floor(first), _ceil(second)) <= ALPHA


def _differences(first: tuple[bool, ...], second: tuple[bool, ...]) -> tuple[int, int]:
    """Seeds that only the first solved, and those that only the second solved."""
    pairs = list(zip(first, second, strict=True))
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)


def _counts(successes: int, episodes: int, rl: RlConfig) -> tuple[float, float]:
    """Successes and episodes that count as independent.

    The episodes of a GRPO group share their seed and are not. The mean of a group varies at most as much as a single
    episode, so a group counts as one.
    """
    size = rl.group_size if rl.algorithm == "grpo" else 1
    return successes / size, episodes / size


def _floor(counts: tuple[float, float]) -> tuple[int, int]:
    return int(counts[0]), int(counts[1])


def _ceil(counts: tuple[float, float]) -> tuple[int, int]:
    return -int(-counts[0] // 1), int(counts[1])


def _rate(successes: int, episodes: int) -> str:
    return str(RateEstimate.of(successes, episodes))


def _name(number: int) -> str:
    return f"checkpoint {number}" if number else "the start"
