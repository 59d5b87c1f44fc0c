"""What a verb prints at its end: the checkpoints compared, how to serve the UI, the link that opens the view."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from mlflow_project.cli._session import print_wide, stderr, stdout
from mlflow_project.comparison.arms import arm_sentences
from mlflow_project.comparison.compare import Comparison
from mlflow_project.comparison.export import Exported
from mlflow_project.comparison.foreign import figure
from mlflow_project.comparison.robustness import robustness_notes
from mlflow_project.comparison.success_rules import audit_notes
from mlflow_project.comparison.tables import ending_title, task_notes, task_rates, training_notes
from mlflow_project.comparison.ties import tie_notes
from mlflow_project.promotion.judge import Judgement
from mlflow_project.recorders.rl_recorder import Improved
from mlflow_project.tracked.promote import Promotion
from mlflow_project.tracking import ui
from mlflow_project.tracking.redact import without_credentials
from mlflow_project.tracking.runs import TrackedRun
from mlflow_project.tracking.store import tracking_uri
from mlflow_project.tracking.terminal import escaped


def print_arms(comparison: Comparison) -> None:
    """Print the recipes that were named, and their differences."""
    for line in arm_sentences(comparison.arms):
        stdout.print(escaped(line))


def print_comparison(comparison: Comparison) -> None:
    """Print the verdict, then the checkpoints by success rate with the places that the tests leave possible."""
    stdout.print(comparison.verdict)
    table = Table(title="Checkpoints by success", title_justify="left")
    table.add_column("rank", justify="right")
    # Where it is narrow the headings fold, not the names.
    widest = max(len(each.label) for each in comparison.standings)
    table.add_column("checkpoint", min_width=min(widest, 24), overflow="fold")
    for column in (
        comparison.success_title,
        comparison.interval_title,
        "n",
        *map(ending_title, comparison.outcomes),
        "length",
    ):
        table.add_column(column, justify="right")
    for each in comparison.standings:
        rate = each.success
        interval = f"{100 * rate.low:.0f} .. {100 * rate.high:.0f} %"
        counts = map(str, (rate.n, *(each.outcomes.get(name, 0) for name in comparison.outcomes)))
        table.add_row(
            each.place, escaped(each.label), f"{100 * rate.rate:.0f} %", interval, *counts, figure(each.length, 0)
        )
    print_wide(table)
    if comparison.tasks:
        _print_tasks(comparison)
    notes = [
        *tie_notes(comparison),
        *task_notes(comparison),
        *training_notes(comparison),
        *robustness_notes(comparison.standings),
        *audit_notes(comparison.standings),
        *(f"Not paired: {reason}." for reason in comparison.unpaired_reasons),
    ]
    if comparison.pairs:
        notes.append(f"P-values: {comparison.method}.")
    for note in notes:
        stdout.print(note)


def _print_tasks(comparison: Comparison) -> None:
    """Print the success rate of each checkpoint in each task, with its interval."""
    table = Table(title="Success in each task, with 95 % Wilson intervals", title_justify="left")
    for column in ("task", "n", *(each.label for each in comparison.standings)):
        table.add_column(escaped(column), justify="left" if column == "task" else "right", overflow="fold")
    for row in task_rates(comparison):
        cells = [
            "-" if rate is None else f"{100 * rate.rate:.0f} % ({100 * rate.low:.0f} .. {100 * rate.high:.0f})"
            for rate in row.rates
        ]
        table.add_row(escaped(row.task), str(row.n), *cells)
    print_wide(table)


def print_gains(improved: Sequence[Improved]) -> None:
    """Print for every start checkpoint whether reinforcement learning improved it, then the numbers as a table."""
    for each in improved:
        stdout.print(each.verdict)
        if each.ending:
            stdout.print(each.ending)
    table = Table(title="Before and after, on the same held-out seeds", title_justify="left")
    for column in ("from", "before", "after", "gained", "lost", "n", "p (one-sided)"):
        table.add_column(column, justify="right")
    for each in improved:
        gain = each.gain
        rates = (f"{100 * successes / gain.n:.0f} %" for successes in (gain.before, gain.after))
        counts = map(str, (gain.gained, gain.lost, gain.n))
        table.add_row(each.name, *rates, *counts, f"{gain.p_value:.2g}")
    print_wide(table)
    for each in improved:
        stdout.print(f"checkpoint     {each.path}")


def print_rulings(judgement: Judgement) -> None:
    """Print whether the gate lets the candidate pass, then what each rule says, with its numbers."""
    stdout.print(judgement.verdict)
    table = Table(title="Rules of the gate", title_justify="left")
    for column in ("rule", "", "because"):
        table.add_column(column)
    for ruling in judgement.rulings:
        mark = Text("pass", "bold green") if ruling.passed else Text("refuse", "bold red")
        table.add_row(ruling.rule, mark, ruling.because)
    print_wide(table)


def show(result: Comparison | Judgement) -> None:
    """Print what a promotion comes to on its way."""
    if isinstance(result, Comparison):
        print_comparison(result)
    else:
        print_rulings(result)


def print_promotion(promotion: Promotion, name: str) -> None:
    """Print how a promotion to the registered model `name` ended."""
    version, champion = promotion.version, promotion.champion
    if promotion.outcome == "champion already" and version is not None:
        stdout.print(f"Version {version.number} of {name} is this checkpoint, and is champion already.")
        print_serve(name)
    elif promotion.refused_by:
        stdout.print(f"Refused by {', '.join(promotion.refused_by)}; nothing was registered.")
    elif promotion.outcome == "would be promoted":
        stdout.print(f"Dry run: the checkpoint would become champion of {name}; nothing was registered.")
    elif version is not None:
        was = f"version {champion.number} is now `previous`" if champion else "there was none before"
        stdout.print(f"Promoted: version {version.number} of {name} is the champion; {was}.")
        print_serve(name)


def print_serve(name: str) -> None:
    """Print the command that serves the champion of a registered model, from any directory."""
    store = shlex.quote(without_credentials(tracking_uri()))
    stdout.print(f"serve it       MLFLOW_TRACKING_URI={store} rlinf-isaac serve models:/{name}@champion")


def print_export(exported: Exported) -> None:
    """Print what an export has made, and what it lacks."""
    stdout.print(f"\nexported       {exported.page}, with {exported.videos} videos, data/ and figure.png, figure.pdf")
    if exported.browser is not None:
        stdout.print(f"drawn          page.png and page.pdf, by {exported.browser}")
    else:
        stdout.print(
            "not drawn      page.png and page.pdf, for which there is no browser here (chromium, google-chrome);"
            " open the page and print it"
        )
    for text in exported.missing:
        stderr.print(f"left out       {text}")


def print_links(tracked: TrackedRun, page: str | None = None) -> None:
    """Print the command that serves the UI (for a local store), and the link to the artifact `page` of `tracked` or,
    without one, to the runs nested in it. A verb inside of another leaves that to the outer one."""
    ids = None if tracked.nested else tracked.ids()
    if ids is None:
        return
    run_id, experiment_id = ids
    if command := ui.serve_command(tracked.tracking_uri):
        stdout.print("\nserve the UI   ", end="")
        stdout.print(command)
    stdout.print("then open      " if command else "\nopen           ", end="")
    base_url = ui.base_url(tracked.tracking_uri)
    if page is not None:
        stdout.print(ui.artifact_link(base_url, experiment_id, run_id, page))
    else:
        stdout.print(ui.comparison_link(base_url, experiment_id, run_id))
