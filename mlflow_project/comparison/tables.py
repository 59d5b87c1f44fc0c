"""A comparison as tables: the leaderboard in markdown, the paired episodes, the pairs."""

from __future__ import annotations

from typing import Any

from mlflow_project.comparison.compare import DISAGREE, RANK_NOTE, SOLVED_BY, Comparison
from mlflow_project.vocabulary import ASSUMED_TAG, NOT_KNOWN_TAG

LONGEST = 25
"""Checkpoints in the markdown; a description is a tag, whose length MLflow limits."""


def leaderboard_markdown(comparison: Comparison, links: str = "") -> str:
    """The verdict, `links` and the leaderboard as MLflow's run description shows them, with links to the runs."""
    lines = [
        f"**{_plain(comparison.verdict)}** {links}".rstrip(),
        "",
        "| rank | checkpoint | success | 95 % Wilson interval | episodes | drops | time-outs | return | length |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in comparison.standings[:LONGEST]:
        link = f"[{_plain(each.label)}](#/experiments/{each.evaluation.experiment}/runs/{each.evaluation.run})"
        # Not str(success): its brackets would be a markdown link.
        rate, low, high = (f"{100 * value:.1f} %" for value in (each.success.rate, each.success.low, each.success.high))
        cells = [each.place, link, rate, f"{low} to {high}", each.success.n, each.drops, each.timeouts]
        lines.append(f"| {' | '.join(map(str, cells))} | {each.episode_return:.2f} | {each.length:.1f} |")
    notes = [f"And {len(comparison.standings) - LONGEST} more."] if len(comparison.standings) > LONGEST else []
    notes += training_notes(comparison)
    if comparison.pairs:
        notes += [f"P-values: {comparison.method}. {RANK_NOTE if comparison.ties else ''}".rstrip()]
        notes += [f"Not paired: {reason}." for reason in comparison.unpaired_reasons]
    return "\n\n".join(["\n".join(lines), *map(_plain, notes)]) + "\n"


def training_notes(comparison: Comparison) -> list[str]:
    """What was assumed of the trainings of these checkpoints, and what nobody knows of them; a line for all it holds
    for."""
    lines: dict[str, list[str]] = {}
    for each in comparison.standings:
        tags = each.evaluation.tags
        said = [f"{key.removeprefix(ASSUMED_TAG)}={tags[key]}" for key in sorted(tags) if key.startswith(ASSUMED_TAG)]
        for word, text in (("Assumed", ", ".join(said)), ("Not known", tags.get(NOT_KNOWN_TAG))):
            if text:
                lines.setdefault(f"{word} of the training: {text}", []).append(each.label)
    return [f"{line} ({', '.join(labels)})." for line, labels in lines.items()]


def episode_tables(comparison: Comparison) -> list[list[dict[str, Any]]]:
    """Per group of paired checkpoints: one row per seed, one column per checkpoint with how the episode ended."""
    tables = []
    for group in comparison.groups:
        members = [comparison.standings[i] for i in group]
        outcomes = [{row.seed: row.outcome for row in each.evaluation.rows} for each in members]
        rows = []
        for seed in sorted(set().union(*outcomes)):
            ends = [each.get(seed) for each in outcomes]
            solved = sum(end == "success" for end in ends)
            cells = dict(zip((each.label for each in members), ends, strict=True))
            rows.append({"seed": seed, **cells, SOLVED_BY: solved, DISAGREE: 0 < solved < sum(map(bool, ends))})
        tables.append(rows)
    return tables


def pair_table(comparison: Comparison) -> list[dict[str, Any]]:
    """One row per pair of checkpoints."""
    rows = []
    for pair in comparison.pairs:
        counts = pair.counts
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
                "test": pair.test,
                "p": pair.p_value,
                "p (Holm)": pair.adjusted,
                "better": None if pair.better is None else comparison.standings[pair.better].label,
                "unpaired because": pair.unpaired,
            }
        )
    return rows


def _plain(text: str) -> str:
    """`text` without what markdown would read as markup: names are other people's."""
    return "".join(f"\\{char}" if char in "\\`*_[](){}<>|#!" else " " if char in "\r\n" else char for char in text)
