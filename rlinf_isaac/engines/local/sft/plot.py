"""Plots predicted and recorded actions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def plot_chunks(
    path: Path,
    recorded: np.ndarray,
    starts: np.ndarray,
    chunks: np.ndarray,
    names: Sequence[str] | None,
    fps: float,
    title: str,
) -> None:
    """Write a PNG with one panel for each dim of the actions.

    Args:
        path: path of the PNG; its directory is created.
        recorded: (T, A) actions of one episode, in robot units.
        starts: (N,) frames in which the predicted chunks start.
        chunks: (N, C, A) predicted actions, in robot units.
        names: names of the dims; None numbers them.
        fps: frames per second.
        title: title of the figure.
    """
    # matplotlib takes a second to import, and its pyplot would look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    dims = recorded.shape[1]
    columns = 2 if dims > 3 else 1
    rows = -(-dims // columns)
    figure = Figure(figsize=(6.5 * columns, 1.6 * rows + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False)
    seconds = np.arange(len(recorded)) / fps
    for dim, axis in enumerate(axes.flat):
        if dim >= dims:
            axis.set_visible(False)
            continue
        axis.plot(seconds, recorded[:, dim], color="0.55", linewidth=2.5, label="recorded")
        for number, (start, chunk) in enumerate(zip(starts, chunks, strict=True)):
            length = min(len(chunk), len(recorded) - start)
            own = seconds[start : start + length]
            axis.plot(own, chunk[:length, dim], color="C0", linewidth=1.2, label=None if number else "predicted")
        axis.set_ylabel(names[dim] if names else f"action {dim}")
        axis.margins(x=0)
        axis.grid(alpha=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("seconds")
    axes[0, 0].legend(loc="best", fontsize="small")
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
