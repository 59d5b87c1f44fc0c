"""Draws the pictures of docs/evaluate.md, with the project's own statistics.

    python .ci/docs_pictures.py          writes docs/images/*.svg

The numbers are those of the run that docs/compare.png shows (`mlflow run . --env-manager local`, 50 seeds).
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("SOURCE_DATE_EPOCH", "0")  # the same bytes every time

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from rlinf_isaac.stats.paired import mcnemar
from rlinf_isaac.stats.rates import wilson_interval
from rlinf_isaac.stats.unpaired import fisher

FOLDER = Path(__file__).parents[1] / "docs" / "images"
SEEDS = 50
SOLVED = {"step-400": 11, "step-800": 35, "step-1200": 45, "step-1200-rl-4": 46}
WON = 10
"""Seeds that step-1200 solves and step-800 does not; there is none the other way round."""
DARK, LIGHT, LOST, TEXT = "#00796b", "#80cbc4", "#ef9a9a", "#5f6b76"


def draw_intervals() -> None:
    """The same rate for more and more episodes, and the four checkpoints of the run."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.9), width_ratios=(1, 1.1))
    counts = (10, 20, 50, 100, 200, 500)
    for row, n in enumerate(counts):
        _interval(left, row, 9 * n // 10, n)
    left.set(yticks=range(len(counts)), yticklabels=[f"{9 * n // 10} of {n}" for n in counts])
    left.set_title("90 % of more and more episodes", loc="left")
    for row, solved in enumerate(SOLVED.values()):
        _interval(right, row, solved, SEEDS)
    right.set(yticks=range(len(SOLVED)), yticklabels=[f"{name}: {solved}" for name, solved in SOLVED.items()])
    right.set_title(f"Four checkpoints, {SEEDS} episodes each", loc="left")
    for axes in (left, right):
        axes.set(xlim=(0, 100), xlabel="success, %, and its 95 % interval")
        axes.margins(y=0.12)
        axes.invert_yaxis()
    _save(figure, "intervals")


def draw_pairs() -> None:
    """Why the same seeds: what two checkpoints solve, side by side and seed by seed."""
    figure, axes = plt.subplots(figsize=(7.2, 2.2))
    worse, better = SOLVED["step-800"], SOLVED["step-1200"]
    both = better - WON
    for row, solved in enumerate((range(better), range(both))):
        for seed in range(SEEDS):
            axes.plot(seed, row, "s", ms=6, color=(DARK if seed < both else LIGHT) if seed in solved else LOST)
    axes.set(yticks=(0, 1), yticklabels=("step-1200", "step-800"), ylim=(1.6, -0.6), xlabel="seeds, sorted", xticks=())
    apart = 2 * fisher((better, SEEDS), (worse, SEEDS))  # two-sided, as there are equally many episodes
    paired = mcnemar(WON, 0)
    title = f"Both solve {both}, only step-1200 {WON}, only step-800 none: p = {paired:.3f}"
    axes.set_title(f"{title}\nThe same rates on different seeds: p = {apart:.3f}", loc="left")
    _save(figure, "pairs")


def _interval(axes: plt.Axes, row: int, successes: int, n: int) -> None:
    low, high = (100 * bound for bound in wilson_interval(successes, n))
    axes.plot((low, high), (row, row), color=LIGHT, lw=7, solid_capstyle="butt")
    axes.plot(100 * successes / n, row, "o", color=DARK)
    text, side = (f"{low:.0f} .. {high:.0f}", "right") if low > 25 else (f"{low:.0f} .. {high:.0f}", "left")
    axes.text(low - 2 if side == "right" else high + 2, row, text, ha=side, va="center", color=TEXT, fontsize=9)


def _save(figure: plt.Figure, name: str) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0, colors=TEXT)
        axes.xaxis.label.set_color(TEXT)
    figure.tight_layout()
    FOLDER.mkdir(exist_ok=True)
    figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None})


def main() -> None:
    """Draw both."""
    plt.rcParams |= {
        "svg.hashsalt": "docs",
        "svg.fonttype": "path",
        "font.size": 10,
        "axes.titlesize": 10,
        "axes.titlecolor": TEXT,
        "axes.titlepad": 12,
    }
    draw_intervals()
    draw_pairs()


if __name__ == "__main__":
    main()
