"""`plan`: how many episodes show a difference of success rates, or what a number of them can show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.table import Table

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import preflight, print_json, print_wide, stdout, verb_session
from mlflow_project.tracking.terminal import escaped
from rlinf_isaac.jobs import plan as planned
from rlinf_isaac.jobs.options import NONE

if TYPE_CHECKING:
    from rlinf_isaac.jobs.plan import Plan

EXAMPLE = """\b
Example:
  rlinf-isaac plan --rates 0.86,0.95
  rlinf-isaac plan --baseline 0.8 --difference 0.1 --correlation 0.3 --checkpoints 4
  rlinf-isaac plan --rates 0.86,0.95 --episodes 64
  rlinf-isaac plan --run 0123456789abcdef0123456789abcdef"""


@click.command("plan", epilog=EXAMPLE)
@options.option("--rates", "Success rates that are to be told apart, in [0, 1]: '0.86,0.95'.", NONE)
@options.option("--baseline", "The lower rate, with --difference in place of --rates.", NONE)
@options.option("--difference", "What is to be seen above --baseline, e.g. 0.1 for 10 points.", NONE)
@options.option("--power", "Probability with which the difference shall be shown.", "0.8")
@options.option("--alpha", "Error rate over all pairs of checkpoints, two-sided.", "0.05")
@options.option("--checkpoints", "How many are compared; each pair's test is then stricter (Holm).", "2")
@options.option(
    "--correlation", "phi of the outcomes on the same seed; the page of `compare` has it for every pair.", NONE
)
@options.option("--episodes", "Ask what so many episodes of each checkpoint can show.", NONE)
@options.option("--run", "Run of eval, or its link: rates, correlation and pace of its best two checkpoints.", NONE)
@click.option("--json", is_flag=True, help="Print JSON.")
def command(
    rates: str,
    baseline: str,
    difference: str,
    power: str,
    alpha: str,
    checkpoints: str,
    correlation: str,
    episodes: str,
    run: str,
    json: bool,
) -> None:
    """Say how many episodes show a difference of two success rates, with the exact power of the tests of `compare`.

    On the same seeds that is McNemar's test, and what it needs depends on how much the outcomes of one seed agree
    (correlation phi); on different seeds it is Boschloo's. With --run the rates are measured ones, and uncertain: the
    true difference is often smaller. --run beside --rates takes only the correlation and the pace from there.
    """
    with verb_session():
        with preflight() as findings:
            plan = planned.check(
                findings,
                rates=rates,
                baseline=baseline,
                difference=difference,
                power=power,
                alpha=alpha,
                checkpoints=checkpoints,
                correlation=correlation,
                episodes=episodes,
                run=run,
                measure=_measured,
            )
        assert plan is not None
        if json:
            print_json(plan.as_dict())
            return
        stdout.print(_heading(plan))
        print_wide(_table(plan))
        stdout.print(plan.sentence)
        if plan.supposed:
            stdout.print(
                "The correlations are examples, as none is known; the page of `compare` has that of every pair."
            )
        if plan.measured is not None:
            names = " and ".join(map(escaped, plan.measured.names))
            stdout.print(f"Measured of {names}; what was measured is uncertain, the true difference may be smaller.")


def _measured(run: str) -> planned.Measured:
    from mlflow_project.tracked.plan import measured

    return measured(run)


def _heading(plan: Plan) -> str:
    first, second = map(planned.percent, plan.rates)
    alpha = f"alpha {plan.alpha:g}"
    if plan.checkpoints > 2:
        pairs = plan.checkpoints * (plan.checkpoints - 1) // 2
        alpha += f" / {pairs} pairs of {plan.checkpoints} checkpoints"
    return f"{first} against {second}, power {planned.percent(plan.power)}, {alpha}, two-sided"


def _table(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    times = [plan.seconds(row) for row in plan.rows]
    for name in ("played on", "test", "episodes of each"):
        table.add_column(name, justify="right" if name.startswith("episodes") else "left", no_wrap=True)
    if plan.episodes is not None:
        table.add_column(f"power at {plan.episodes}", justify="right", no_wrap=True)
    if any(times):
        table.add_column("takes", justify="right", no_wrap=True)
    for row, seconds in zip(plan.rows, times, strict=True):
        where = f"the same seeds, correlation {row.correlation:.2g}" if row.paired else "different seeds"
        cells = [where, row.test, planned.episodes_text(row)]
        if plan.episodes is not None:
            cells.append(planned.power_text(row))
        if any(times):
            cells.append(_time(seconds))
        table.add_row(*cells)
    return table


def _time(seconds: float | None) -> str:
    from mlflow_project.tracking.pace import spell_time

    return "not known" if seconds is None else spell_time(seconds)
