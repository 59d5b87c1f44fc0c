"""The figure of a comparison, for a paper or a slide: success with its interval, and over training steps."""

from __future__ import annotations

import textwrap
from pathlib import Path

from mlflow_project.comparison.compare import Comparison
from mlflow_project.comparison.plot import starts_of

COLOUR = "#1f5fbf"


def draw(comparison: Comparison, *paths: Path) -> None:
    """Draw the figure into files, whose suffixes say the format (``.png``, ``.pdf``)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    standings = comparison.standings
    trained = [each for each in standings if each.label not in starts_of(standings)]
    steps = sorted({each.evaluation.step for each in trained})
    figure = Figure(figsize=(10, 1.6 + 0.42 * len(standings) + (0.8 if len(steps) > 1 else 0)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("\n".join(textwrap.wrap(_plain(comparison.verdict), 110)), fontsize=10, x=0.01, ha="left")
    axes = figure.subplots(1, 2 if len(steps) > 1 else 1, squeeze=False)[0]
    labels = [f"{_plain(each.label)}  (rank {each.place})" for each in standings]
    rates = [each.success for each in standings]
    errors = [[rate.rate - rate.low for rate in rates], [rate.high - rate.rate for rate in rates]]
    axes[0].barh(range(len(labels)), [rate.rate for rate in rates], color="#d8f0e6", height=0.7)
    axes[0].errorbar(
        [rate.rate for rate in rates], range(len(labels)), xerr=errors, fmt="o", color="#127a5b", capsize=3, ms=4
    )
    axes[0].set_yticks(range(len(labels)), labels, fontsize=8)
    axes[0].invert_yaxis()
    axes[0].set_xlim(0, 1)
    axes[0].set_xlabel(f"{comparison.success_title}, {comparison.interval_title}", fontsize=8)
    if len(steps) > 1:
        for sweep in dict.fromkeys(each.evaluation.sweep for each in trained):
            own = [each for each in trained if each.evaluation.sweep == sweep]
            own.sort(key=lambda each: each.evaluation.step)
            values = [each.success for each in own]
            errors = [[value.rate - value.low for value in values], [value.high - value.rate for value in values]]
            name = _plain(own[0].evaluation.sweep_name)
            at = [each.evaluation.step for each in own]
            axes[1].errorbar(at, [value.rate for value in values], yerr=errors, fmt="o-", capsize=3, ms=4, label=name)
        axes[1].set_ylim(0, 1)
        axes[1].set_xticks(steps if len(steps) <= 10 else steps[:: -(-len(steps) // 10)])
        axes[1].set_xlabel("training step", fontsize=8)
        axes[1].legend(fontsize=7, loc="lower right")
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.tick_params(labelsize=8)
    for path in paths:
        figure.savefig(path, dpi=160)


def _plain(text: str) -> str:
    """`text` without matplotlib's formulas: names come from other people."""
    return text.replace("\\", "\\\\").replace("$", r"\$")
