"""Watches a training: records its course, and says after each iteration whether it goes on, goes back or ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.steps import CHECKPOINTS
from rlinf_isaac.engines.base import RlJob
from rlinf_isaac.engines.local.rl import guard
from rlinf_isaac.engines.local.rl.course import Course, CourseLog, Iteration
from rlinf_isaac.engines.local.rl.forecast import Forecast, forecast
from rlinf_isaac.ground.errors import TrainingDiverged
from rlinf_isaac.ground.events import Event, ResultChosen, RolledBack
from rlinf_isaac.stats.rates import RateEstimate, clopper_pearson_interval
from rlinf_isaac.stats.sequential import ALPHA

TARGETS = (0.8, 0.9)
"""Success rates that are forecast where the config names none."""


class Watch:
    """The watch over one training.

    Its decisions are functions of the recorded course, so a training that is resumed after a kill decides the same.

    Attributes:
        course: what the iterations have shown; empty before `begin`.
        forecasts: target -> the newest forecast, None if it is not known.
    """

    def __init__(self, job: RlJob, *, writes: bool = True) -> None:
        """With `writes` false another process records the course, and this one reads it."""
        self.job, self.rl, self._writes = job, job.config.rl, writes
        self.log = CourseLog(job.output / "course.jsonl")
        self.course = Course()
        self.forecasts: dict[float, Forecast | None] = {}

    @property
    def position(self) -> int:
        """For `resume`: as `CourseLog.position`."""
        return self.log.position()

    def begin(self, start: int | None) -> Iterator[Event]:
        """Read the course up to iteration `start`, from which training goes on (None: it is complete), and tell its
        roll-backs again."""
        end = self.rl.iterations if start is None else start
        self.course = self.log.rewind(end) if self._writes else self.log.read(end)
        if start and (not self.course.iterations or self.course.iterations[-1].number < start):
            self.course.iterations.append(Iteration(start, start - 1, saved=True))  # of a release without a watch
        guard.give_up(self.course, self.rl)
        for count, each in enumerate(self.course.rollbacks, start=1):
            yield self._rolled_back(each, count)

    @property
    def ended(self) -> str:
        """Why the training ended early; empty if it did not."""
        return self.course.iterations[-1].ended if self.course.iterations else ""

    @property
    def lr_factor(self) -> float:
        """What the learning rate of the policy is multiplied by, because of the roll-backs."""
        return float(self.rl.rollback_lr_factor ** len(self.course.rollbacks))

    @property
    def depth(self) -> int:
        """How many iterations will have led to the weights after the next one."""
        return self.course.depth(self.course.weights) + 1

    @property
    def needed(self) -> int:
        """The checkpoint before the newest one to which a roll-back would go; its state must be kept."""
        newest = max(self.course.checkpoints())
        return guard.target(self.course, self.rl, before=newest)

    def see(self, seen: Iteration, diverged: str = "") -> Iteration:
        """Decide after an iteration: complete it, and add it to the course (`record` makes that durable).

        Args:
            seen: what it has shown. `parent` and `saved` are filled in here, and `back_to`, `ended` and `reason` where
                the training does not go on.
            diverged: what was not finite.

        Raises:
            TrainingDiverged: it is a collapse, no roll-back or iteration is left, and there is no checkpoint.
        """
        rl = self.rl
        seen = replace(seen, parent=self.course.weights)
        reason = diverged or (guard.collapse(self.course, seen, rl) if rl.guard else "")
        if reason:
            self.course.iterations.append(seen)
            back = guard.target(self.course, rl)
            self.course.iterations.pop()
            if len(self.course.rollbacks) < rl.max_rollbacks and seen.number < rl.iterations:
                seen = replace(seen, back_to=back, reason=reason)
            elif any(self.course.checkpoints()):
                seen = replace(seen, ended="collapsed", reason=reason)
            else:
                raise TrainingDiverged(reason)
        elif reached := self._reached(seen):
            seen = replace(seen, ended="target", reason=reached, saved=True)
        else:
            last = seen.number == rl.iterations
            seen = replace(seen, saved=seen.number == 0 or last or seen.number % rl.save_interval == 0)
        self.course.iterations.append(seen)
        targets = (rl.target_success,) if rl.target_success else TARGETS
        self.forecasts = {each: forecast(self.course, each) for each in targets}
        return seen

    def record(self) -> Iterator[Event]:
        """Make the newest iteration durable, and tell if the training goes back after it."""
        newest = self.course.iterations[-1]
        if self._writes:
            self.log.append(newest)
        if newest.back_to is not None:
            yield self._rolled_back(newest, len(self.course.rollbacks))

    def kept(self) -> set[int]:
        """The checkpoints that stay on disk, as of the newest one, which has just been saved."""
        guard.give_up(self.course, self.rl)
        return set(self.course.checkpoints()) - self.course.gone

    def metrics(self) -> dict[str, float]:
        """Metrics of the newest iteration: roll-backs so far and those left, and the forecasts that there are."""
        done = len(self.course.rollbacks)
        values = {"rl/rollbacks": float(done)}
        if self.rl.guard:
            values["rl/rollbacks_left"] = float(self.rl.max_rollbacks - done)
        for goal, found in self.forecasts.items():
            if found is not None:
                name = f"{100 * goal:g}"
                values[f"forecast/iterations_to_{name}"] = found.iterations
                values[f"forecast/iterations_to_{name}_low"] = found.low
                values[f"forecast/iterations_to_{name}_high"] = found.high
                values[f"forecast/episodes_to_{name}"] = found.episodes
                values[f"time/forecast_to_{name}_s"] = found.seconds
        return values

    def note(self) -> str:
        """The newest iteration in a few words, for the progress line."""
        newest = self.course.iterations[-1]
        words = [f"success {newest.successes / newest.episodes:.2f}" if newest.episodes else "no episodes"]
        if newest.back_to is not None:
            words.append(f"back to {_name(newest.back_to)}: {newest.reason}")
        elif newest.ended:
            words.append(f"ends here: {newest.reason}")
        else:
            # The nearest target that is not reached; all of them are metrics.
            goals = sorted(self.forecasts.items())
            ahead = [(goal, found) for goal, found in goals if found is None or found.high > 0] or goals[-1:]
            words += [str(found) if found else f"{100 * goal:g} %: not known" for goal, found in ahead[:1]]
        return ", ".join(words)

    def result(self) -> ResultChosen:
        """The checkpoint that is the result of the training, which has ended."""
        known, number = self.course.checkpoints(), guard.best(self.course, self.rl)
        bundle = read_bundle(self.job.output / CHECKPOINTS / str(number), verify=False)
        ended = self.ended or "complete"
        played = self.course.iterations[-1].number
        words = {
            "complete": f"All {self.rl.iterations} iterations are done",
            "target": f"Training ended after iteration {played}: {self.course.iterations[-1].reason}",
            "collapsed": f"Training ended after iteration {played} and {len(self.course.rollbacks)} roll-backs: "
            f"{self.course.iterations[-1].reason}",
        }[ended]
        outcomes = known[number].held_out if number in known else ()
        because = (
            f"with {RateEstimate.of(sum(outcomes), len(outcomes))} on the held-out seeds, the most of all checkpoints"
            if outcomes
            else "the newest that is not separably worse than another; none was evaluated on held-out seeds"
        )
        return ResultChosen(
            number, bundle.path, bundle.digest, ended, f"{words}. The result is checkpoint {number}, {because}."
        )

    def _reached(self, seen: Iteration) -> str:
        """Whether the held-out success is surely above the target, as a sentence; empty if not, or if not asked."""
        rl, solved, n = self.rl, sum(seen.held_out), len(seen.held_out)
        if not (rl.target_success and rl.stop_at_target and seen.number and n):
            return ""
        # One of several evaluations would exceed the bound by chance more easily than a single one.
        level = ALPHA / (1 + rl.iterations // rl.eval_interval)
        low = clopper_pearson_interval(solved, n, 1 - 2 * level)[0]
        if low <= rl.target_success:
            return ""
        bound = f"lower bound {100 * low:.1f} %"
        return f"the held-out success {solved}/{n} is above the target of {100 * rl.target_success:g} % ({bound})"

    def _rolled_back(self, each: Iteration, count: int) -> RolledBack:
        assert each.back_to is not None
        lr = self.rl.lr * self.rl.rollback_lr_factor**count
        return RolledBack(each.number, each.back_to, each.reason, tuple(self.course.abandoned(each)), lr)


def _name(number: int) -> str:
    return f"checkpoint {number}" if number else "the start"
