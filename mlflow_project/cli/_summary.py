"""What a verb prints at its end: the checkpoints compared, how to serve the UI, the link that opens the view."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from mlflow_project import ui
from mlflow_project.cli._session import stdout
from mlflow_project.rl_recorder import Improved
from mlflow_project.runs import TrackedRun
from mlflow_project.sweep_recorder import Evaluated, leaderboard


def print_comparison(results: Sequence[Evaluated], tracked: TrackedRun) -> None:
    """Print the checkpoints, the best first, and where to look at them."""
    table = Table(title="Checkpoints, the best first", title_justify="left")
    for column in ("step", "success", "95 % Wilson interval", "n", "return", "length"):
        table.add_column(column, justify="right")
    for each in leaderboard(results):
        rate = each.success
        interval = f"{100 * rate.low:.0f} .. {100 * rate.high:.0f} %"
        cells = [str(each.step), f"{100 * rate.rate:.0f} %", interval, str(rate.n)]
        table.add_row(*cells, f"{each.episode_return:.2f}", f"{each.length:.0f}")
    stdout.print(table)
    print_links(tracked)


def print_gains(improved: Sequence[Improved], tracked: TrackedRun) -> None:
    """Print what reinforcement learning made of every start checkpoint, and where to look at it."""
    table = Table(title="Before and after, on the same held-out seeds", title_justify="left")
    for column in ("from step", "before", "after", "gained", "lost", "n", "p (one-sided)"):
        table.add_column(column, justify="right")
    for each in improved:
        gain = each.gain
        rates = (f"{100 * successes / gain.n:.0f} %" for successes in (gain.before, gain.after))
        counts = map(str, (gain.gained, gain.lost, gain.n))
        table.add_row(str(each.step), *rates, *counts, f"{gain.p_value:.2g}")
    stdout.print(table)
    for each in improved:
        stdout.print(f"checkpoint     {each.path}")
    print_links(tracked)


def print_links(tracked: TrackedRun) -> None:
    """Print the command that serves the UI (for a local store) and the link to the comparison below `tracked`."""
    ids = tracked.ids()
    if ids is None:
        return
    run_id, experiment_id = ids
    if command := ui.serve_command(tracked.tracking_uri):
        stdout.print("\nserve the UI   ", end="")
        stdout.print(command, markup=False)
    stdout.print("then open      " if command else "\nopen           ", end="")
    stdout.print(ui.comparison_link(ui.base_url(tracked.tracking_uri), experiment_id, run_id), markup=False)
