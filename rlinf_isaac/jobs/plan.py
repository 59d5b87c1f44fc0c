"""Checks the options of `plan`, and answers: how many episodes show a difference, or what a number of them can show."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rlinf_isaac.ground.errors import Problem
from rlinf_isaac.jobs.options import NONE, words

if TYPE_CHECKING:
    from rlinf_isaac.preflight.findings import Findings
    from rlinf_isaac.stats.planning import Row

MOST_CHECKPOINTS = 1000
LOWEST_ALPHA, HIGHEST_POWER = 1e-6, 0.9999
NEAREST = 0.001
"""Smallest difference of rates that is looked at."""
_SUPPOSED = (0.0, 0.3, 0.5)
"""Correlations that are shown where none is known."""


@dataclass(frozen=True)
class Measured:
    """What an evaluation says of the next one.

    Attributes:
        names: its two checkpoints of the highest success rates.
        rates: of these, in [0, 1].
        correlation: phi of their outcomes; None: their episodes are not paired.
        seconds: per episode, as long as that evaluation took; None: not known.
    """

    names: tuple[str, str]
    rates: tuple[float, float]
    correlation: float | None
    seconds: float | None


@dataclass(frozen=True)
class Plan:
    """The answer.

    Attributes:
        rates: that were assumed, in [0, 1].
        power: that was asked for.
        alpha: error rate over all pairs; each test is made at `alpha_of_test`, as Holm's first step would.
        checkpoints: that are compared.
        episodes: of each checkpoint, that were asked about, or None.
        rows: one for each way to play them.
        measured: the evaluation that rates or correlation come from, or None.
        supposed: whether the correlations are examples, because none is known.
    """

    rates: tuple[float, float]
    power: float
    alpha: float
    checkpoints: int
    episodes: int | None
    rows: tuple[Row, ...]
    measured: Measured | None = None
    supposed: bool = False

    @property
    def alpha_of_test(self) -> float:
        """Error rate of one pair's test."""
        return self.alpha / (self.checkpoints * (self.checkpoints - 1) // 2)

    def seconds(self, row: Row) -> float | None:
        """How long all episodes of all checkpoints take, at the pace that was measured; None: not known."""
        each = self.episodes if self.episodes is not None else row.episodes
        if self.measured is None or self.measured.seconds is None or each is None:
            return None
        return each * self.checkpoints * self.measured.seconds

    @property
    def sentence(self) -> str:
        """What the first row says, against different seeds."""
        first, last = self.rows[0], self.rows[-1]
        seeds = f"the same seeds, if the outcomes have the correlation {first.correlation:g}"
        if not first.paired:
            seeds = "different seeds"
        goal = f"The difference between {percent(self.rates[0])} and {percent(self.rates[1])}"
        if self.episodes is None:
            text = f"{goal} is shown in {percent(self.power)} of all cases by {episodes_text(first)} episodes of each"
            other = f", by {episodes_text(last)} on different seeds"
        else:
            text = f"{goal} is shown by {self.episodes:,} episodes of each with a probability of {power_text(first)}"
            other = "" if last.power_at is None else f", of {power_text(last)} on different seeds"
        return f"{text} on {seeds}{other if first.paired else ''}."

    def as_dict(self) -> dict[str, Any]:
        """The numbers, for JSON."""
        rows = [asdict(row) | {"paired": row.paired, "seconds": self.seconds(row)} for row in self.rows]
        return asdict(self) | {"alpha_of_test": self.alpha_of_test, "rows": rows, "sentence": self.sentence}


def check(
    findings: Findings,
    *,
    rates: str = NONE,
    baseline: str = NONE,
    difference: str = NONE,
    power: str = "0.8",
    alpha: str = "0.05",
    checkpoints: str = "2",
    correlation: str = NONE,
    episodes: str = NONE,
    run: str = NONE,
    measure: Callable[[str], Measured] | None = None,
) -> Plan | None:
    """The answer to these options, or None if `findings` has errors.

    Args:
        measure: reads what the evaluation `run` has measured.
    """
    measured = None
    if run != NONE and measure is not None:
        with findings.collect():
            measured = measure(run)
    pair = _rates(findings, rates, baseline, difference, None if run == NONE else measured, run != NONE)
    wanted = _number(findings, "--power", power, 0, HIGHEST_POWER)
    level = _number(findings, "--alpha", alpha, LOWEST_ALPHA, 0.5)
    count = _integer(findings, "--checkpoints", checkpoints, 2, MOST_CHECKPOINTS)
    at = None if episodes == NONE else _integer(findings, "--episodes", episodes, 1, 10_000)
    phi = None if correlation == NONE else _number(findings, "--correlation", correlation, -1, 1)
    if findings.errors or pair is None or wanted is None or level is None or count is None:
        return None
    if wanted <= level:
        cause = f"--power {power} is not more than --alpha {alpha}, which chance alone reaches"
        findings.add([Problem("plan-option", cause, "ask for a power such as 0.8")])
        return None
    if phi is None and measured is not None:
        phi = measured.correlation
    from rlinf_isaac.stats import planning  # imports numpy
    from rlinf_isaac.stats.power import Discordance

    asked, correlations = _SUPPOSED if phi is None else (phi, 0.0), []
    for each in dict.fromkeys(asked if phi is not None or measured is None else ()):  # else it could not be paired
        try:
            Discordance.of(pair, each)
            correlations.append(each)
        except ValueError as error:
            if each == phi:
                findings.add([Problem("plan-correlation", str(error), "give a correlation in this range, or none")])
                return None
    found = planning.rows(pair, correlations, level, wanted, at, count)
    return Plan(pair, wanted, level, count, at, found, measured, supposed=asked is _SUPPOSED and bool(correlations))


def percent(value: float) -> str:
    """``86 %``, ``85.9 %``."""
    return f"{round(100 * value, 2):g} %"


def episodes_text(row: Row) -> str:
    """The number of episodes that a row asks for."""
    if row.episodes is None:
        return "more than 10,000"
    if row.roughly:
        return f"about {float(f'{row.episodes:.2g}'):,.0f}"
    return f"{'up to ' if 'until-decided' in row.test else ''}{row.episodes:,}"


def power_text(row: Row) -> str:
    """What the number that was asked about can show."""
    if row.power_at is None:
        return "not computed"
    return "more than 99.9 %" if row.power_at > 0.999 else f"{100 * row.power_at:.1f} %"


def _rates(
    findings: Findings, rates: str, baseline: str, difference: str, measured: Measured | None, run: bool
) -> tuple[float, float] | None:
    two = baseline != NONE, difference != NONE
    if (rates != NONE) + any(two) > 1 or any(two) != all(two) or not (run or any(two) or rates != NONE):
        cause = "it is not known which success rates are to be told apart"
        cure = "give one of --rates 0.86,0.95, or --baseline 0.8 with --difference 0.1, or --run RUN"
        findings.add([Problem("plan-rates", cause, cure)])
        return None
    if rates != NONE:
        parts = words(rates)
        found = [_number(findings, "--rates", part, 0, 1, closed=True) for part in parts]
        if len(parts) != 2:
            findings.add([Problem("plan-rates", f"--rates {rates} is not two success rates", "give two: 0.86,0.95")])
            return None
    elif all(two):
        first = _number(findings, "--baseline", baseline, 0, 1, closed=True)
        step = _number(findings, "--difference", difference, -1, 1, closed=True)
        found = [first, None if first is None or step is None else round(first + step, 12)]
        if found[1] is not None and not 0 <= found[1] <= 1:
            cause = f"--baseline {baseline} and --difference {difference} make a success rate of {found[1]:g}"
            findings.add([Problem("plan-rates", cause, "choose a smaller difference; both rates are in [0, 1]")])
            return None
    else:
        found = list(measured.rates) if measured else []
    if len(found) != 2 or found[0] is None or found[1] is None:
        return None
    if abs(found[0] - found[1]) < NEAREST:
        cause = f"the success rates {found[0]:g} and {found[1]:g} differ by less than 0.1 points, if at all"
        findings.add([Problem("plan-rates", cause, "give rates that differ by what you want to be able to see")])
        return None
    return found[0], found[1]


def _number(findings: Findings, option: str, text: str, low: float, high: float, closed: bool = False) -> float | None:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if low < value < high or (closed and value in (low, high)):
        return value
    where = f"in [{low:g}, {high:g}]" if closed else f"between {low:g} and {high:g}"
    findings.add([Problem("plan-option", f"{option} {text} is no number {where}", f"give one {where}")])
    return None


def _integer(findings: Findings, option: str, text: str, low: int, high: int) -> int | None:
    if text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high:
        return int(text)
    cause = f"{option} {text} is no whole number from {low} to {high:,}"
    findings.add([Problem("plan-option", cause, f"give one from {low} to {high:,}")])
    return None
