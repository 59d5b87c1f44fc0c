"""How a training tells again what an interrupted one has left, and where it goes on. Every engine begins so."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from pathlib import Path

from rlinf_isaac.checkpoint.bundle import find_bundles, read_bundle
from rlinf_isaac.checkpoint.steps import CHECKPOINTS
from rlinf_isaac.ground import lines
from rlinf_isaac.ground.events import CheckpointSaved, Event, Metrics, Progress, Resumed


class MetricsLog:
    """Durable record of the metrics of a training run, one JSON line per logging step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, metrics: Metrics) -> None:
        """Add an entry; it is on disk when this returns."""
        entry = {"step": metrics.step, "time": metrics.time, "values": dict(metrics.values)}
        lines.append(self.path, json.dumps(entry))

    def entries(self) -> list[Metrics]:
        """Everything that was added, in this order."""
        return [_parse(line) for line in lines.read(self.path)]

    def rewind(self, step: int) -> Iterator[Metrics]:
        """Forget entries after `step` (their steps are about to be repeated) and yield the others again."""
        yield from map(_parse, lines.rewind(self.path, lambda line: _parse(line).step <= step))


def _parse(line: str) -> Metrics:
    return Metrics(**json.loads(line))


def metrics_log(output: Path) -> MetricsLog:
    """The record of the metrics of the training in the directory `output`."""
    return MetricsLog(output / "metrics.jsonl")


def saved_checkpoint(output: Path, step: int) -> Iterator[Event]:
    """Tell of the checkpoint of a step; every byte of it is hashed.

    Raises:
        BundleError: its bytes are not those that were sealed.
    """
    path = find_bundles(output / CHECKPOINTS)[step]
    yield CheckpointSaved(step, path, read_bundle(path).digest)


def resume(
    output: Path,
    label: str,
    total: int,
    states: Collection[int],
    saved: Callable[[Path, int], Iterable[Event]] = saved_checkpoint,
    *,
    alone: bool = True,
    position: int = 0,
    announced: bool = True,
) -> Generator[Event, None, int | None]:
    """Tell again the metrics and checkpoints that the training in `output` has left, up to where it goes on.

    It goes on from the newest step that has both a checkpoint and a state. Metrics after that step are forgotten: their
    steps are about to be repeated.

    Args:
        output: directory of the job.
        label: ``sft`` or ``rl``, as in `Progress`.
        total: steps or iterations of the job.
        states: steps of which there is a state to go on from.
        saved: tells of the checkpoint of a step.
        alone: False for the processes of a team that leave files and announcements to the first one.
        position: a step that is not repeated although there is no checkpoint of it; training goes on after it.
        announced: whether `Resumed` is among the events. A training that may have ended early announces it by itself.

    Returns:
        The step to go on from, 0 for the beginning, or None if nothing is left to do.
    """
    bundles = find_bundles(output / CHECKPOINTS)
    start = max(position, max((step for step in states if step in bundles), default=0))
    if alone:
        if announced and 0 < start < total:
            yield Resumed(label, start, total)
        # A training that begins anew measures its start, at step 0, anew as well.
        yield from metrics_log(output).rewind(start if start else -1)
        for step in sorted(bundles):
            if step <= start:
                yield from saved(output, step)
    if start >= total:
        yield Progress(label, total, total, "complete")
        return None
    return start
