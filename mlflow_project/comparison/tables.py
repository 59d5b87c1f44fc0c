"""Makes the tables of a comparison: the leaderboard in Markdown, the paired episodes, and the pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlflow_project.comparison.by_task import rates
from mlflow_project.comparison.compare import DISAGREE, RANK_NOTE, SOLVED_BY, Comparison
from mlflow_project.comparison.foreign import figure
from mlflow_project.comparison.intervals import difference_of
from mlflow_project.comparison.robustness import robustness_notes
from mlflow_project.comparison.success_rules import audit_notes
from mlflow_project.comparison.ties import tie_notes
from mlflow_project.markdown import plain as _plain
from mlflow_project.vocabulary import ASSUMED_TAG, NOT_KNOWN_TAG
from rlinf_isaac.stats.rates import RateEstimate

MOST_COLUMNS = 6
"""Most checkpoints in the Markdown table of tasks."""
LONGEST = 25
"""Most checkpoints in the Markdown; a description is a tag, and MLflow limits the length of tags."""


def leaderboard_markdown(comparison: Comparison, links: str = "") -> str:
    """The run description in MLflow: the verdict, `links`, and the leaderboard with links to the runs."""
    endings = " | ".join(_plain(ending_title(name)) for name in comparison.outcomes)
    interval = f"{comparison.interval_title.removesuffix(' interval')} interval"
    lines = [
        f"**{_plain(comparison.verdict)}** {links}".rstrip(),
        "",
        f"| rank | checkpoint | {comparison.success_title} | {interval} | episodes | {endings} | return | length |",
        "|---" * (7 + len(comparison.outcomes)) + "|",
    ]
    for standing in comparison.standings[:LONGEST]:
        evaluation, success = standing.evaluation, standing.success
        link = f"[{_plain(standing.label)}](#/experiments/{evaluation.experiment}/runs/{evaluation.run})"
        # str(success) cannot be used, because its brackets would be a Markdown link.
        rate, low, high = (f"{100 * value:.1f} %" for value in (success.rate, success.low, success.high))
        counts = [standing.outcomes.get(name, 0) for name in comparison.outcomes]
        cells = [standing.place, link, rate, f"{low} to {high}", success.n, *counts]
        lines.append(
            f"| {' | '.join(map(str, cells))} | {figure(standing.episode_return, 2)} | {figure(standing.length, 1)} |"
        )
    notes = [f"And {len(comparison.standings) - LONGEST} more."] if len(comparison.standings) > LONGEST else []
    notes += [*tie_notes(comparison), *task_notes(comparison), *training_notes(comparison)]
    notes += [*robustness_notes(comparison.standings), *audit_notes(comparison.standings)]
    if comparison.pairs:
        notes += [f"P-values: {comparison.method}. {RANK_NOTE if comparison.ties else ''}".rstrip()]
        notes += [f"Not paired: {reason}." for reason in comparison.unpaired_reasons]
    return "\n\n".join(["\n".join(lines), *_task_markdown(comparison), *map(_plain, notes)]) + "\n"


def _task_markdown(comparison: Comparison) -> list[str]:
    """The success rates of each task as a Markdown table; empty if there are no tasks."""
    if not comparison.tasks:
        return []
    labels = [_plain(standing.label) for standing in comparison.standings[:MOST_COLUMNS]]
    lines = [f"| task | {' | '.join(labels)} |", "|---" * (1 + len(labels)) + "|"]
    for row in task_rates(comparison):
        cells = [
            "" if rate is None else f"{100 * rate.rate:.0f} % ({100 * rate.low:.0f} to {100 * rate.high:.0f})"
            for rate in row.rates[:MOST_COLUMNS]
        ]
        lines.append(f"| {_plain(row.task)} | {' | '.join(cells)} |")
    return ["\n".join(lines)]


@dataclass(frozen=True)
class TaskRow:
    """A task, how many episodes of it a checkpoint has at most, and the rate of each checkpoint, None without any."""

    task: str
    n: int
    rates: tuple[RateEstimate | None, ...]


def task_rates(comparison: Comparison) -> list[TaskRow]:
    """One row per task."""
    found = [rates(standing) for standing in comparison.standings]
    return [
        TaskRow(task, max(each[task].n for each in found if task in each), tuple(each.get(task) for each in found))
        for task in comparison.tasks
    ]


def task_notes(comparison: Comparison) -> list[str]:
    """Sentences that say in which task which checkpoint is shown to be better."""
    if not comparison.tasks or not comparison.task_pairs:
        return []
    shown, labels = [], [standing.label for standing in comparison.standings]
    for pair in comparison.task_pairs:
        if pair.better is not None:
            worse = pair.second if pair.better == pair.first else pair.first
            won = max(pair.counts.wins, pair.counts.losses), min(pair.counts.wins, pair.counts.losses)
            text = f"{labels[pair.better]} is better than {labels[worse]} in {pair.task}"
            shown.append(f"{text} ({won[0]} vs {won[1]} seeds won, p = {pair.adjusted:#.2g})")
    tests = len(comparison.task_pairs)
    found = "; ".join(shown) if shown else "no checkpoint is shown to be better than another in any task"
    return [f"Inside each task: {found}. P-values are corrected by Holm over {tests} tests in all tasks."]


def task_pair_table(comparison: Comparison) -> list[dict[str, Any]]:
    """One row per task and pair of checkpoints."""
    labels = [standing.label for standing in comparison.standings]
    return [
        {
            "task": pair.task,
            "first": labels[pair.first],
            "second": labels[pair.second],
            "paired seeds": pair.counts.n,
            "only first solved": pair.counts.wins,
            "only second solved": pair.counts.losses,
            "p": pair.p_value,
            "p (Holm)": pair.adjusted,
            "better": None if pair.better is None else labels[pair.better],
        }
        for pair in comparison.task_pairs
    ]


def ending_title(outcome: str) -> str:
    """The heading of the column that counts episodes with this outcome."""
    return {"drop": "drops", "failure": "failures", "timeout": "time-outs"}.get(outcome, outcome)


def training_notes(comparison: Comparison) -> list[str]:
    """Lines that say what was assumed about the training of the checkpoints, and what is not known. Checkpoints with
    the same text share a line."""
    lines: dict[str, list[str]] = {}
    for standing in comparison.standings:
        tags = standing.evaluation.tags
        facts = [f"{key.removeprefix(ASSUMED_TAG)}={tags[key]}" for key in sorted(tags) if key.startswith(ASSUMED_TAG)]
        for word, text in (("Assumed", ", ".join(facts)), ("Not known", tags.get(NOT_KNOWN_TAG))):
            if text:
                lines.setdefault(f"{word} of the training: {text}", []).append(standing.label)
    return [f"{line} ({', '.join(labels)})." for line, labels in lines.items()]


def episode_tables(comparison: Comparison) -> list[list[dict[str, Any]]]:
    """One table per group of paired checkpoints: a row per seed, and a column per checkpoint with its outcome."""
    tables = []
    for group in comparison.groups:
        members = [comparison.standings[i] for i in group]
        outcomes = [{(row.task, row.seed): row.outcome for row in member.evaluation.rows} for member in members]
        rows = []
        for task, seed in sorted(set().union(*outcomes)):
            ends = [outcome_of.get((task, seed)) for outcome_of in outcomes]
            solved = sum(end == "success" for end in ends)
            cells = dict(zip((member.label for member in members), ends, strict=True))
            own = {"task": task} if task else {}
            rows.append({**own, "seed": seed, **cells, SOLVED_BY: solved, DISAGREE: 0 < solved < sum(map(bool, ends))})
        tables.append(rows)
    return tables


def pair_table(comparison: Comparison) -> list[dict[str, Any]]:
    """One row per pair of checkpoints."""
    rows = []
    for pair in comparison.pairs:
        counts, difference = pair.counts, difference_of(comparison, pair)
        rows.append(
            {
                "first": comparison.standings[pair.first].label,
                "second": comparison.standings[pair.second].label,
                "paired seeds": counts and counts.n,
                "only first solved": counts and counts.wins,
                "only second solved": counts and counts.losses,
                "both solved": counts and counts.both,
                "neither solved": counts and counts.neither,
                "correlation phi": counts and counts.phi,
                "difference": difference and difference.value,
                "difference low": difference and difference.low,
                "difference high": difference and difference.high,
                "test": pair.test,
                "p": pair.p_value,
                "p (Holm)": pair.adjusted,
                "better": None if pair.better is None else comparison.standings[pair.better].label,
                "unpaired because": pair.unpaired,
            }
        )
    return rows
