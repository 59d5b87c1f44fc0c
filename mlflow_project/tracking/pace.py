"""The pace of a piece of work, and its progress as one line: ``sft 480/1200  40 %  loss 0.4453  eta 1:29``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.filesize import decimal

from rlinf_isaac.ground.events import Progress

WINDOW_S = 120.0
"""The pace is that of the last two minutes, so that it follows a machine that others begin to use."""
_APART_S = 1.0

_WORDS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "sft": (
        ("train/loss", "loss", ".4f"),
        ("train/learning_rate", "lr", "lr"),
        ("val/loss", "val loss", ".4f"),
        ("heldout/success_once", "success", ".2f"),
    ),
    "rl": (
        ("rollout/success_once", "success", ".2f"),
        ("heldout/success_once", "held-out", ".2f"),
    ),
}
"""Label -> the metrics that its line has: name, word and format."""


@dataclass
class Pace:
    """How fast a piece of work proceeds.

    Attributes:
        samples: (seconds on a clock, items done), the oldest first. Items that were done before the first sample, by an
            interrupted job, do not count.
    """

    samples: list[tuple[float, int]] = field(default_factory=list)

    def add(self, now: float, done: int) -> None:
        """So many items are done at `now`, in seconds."""
        if self.samples and done <= self.samples[-1][1]:
            return
        if len(self.samples) > 1 and now - self.samples[-2][0] < _APART_S:
            self.samples.pop()
        self.samples.append((now, done))
        while len(self.samples) > 2 and now - self.samples[1][0] > WINDOW_S:
            self.samples.pop(0)

    @property
    def rate(self) -> float | None:
        """Items per second; None before the second sample."""
        if len(self.samples) < 2:
            return None
        (first, before), (last, done) = self.samples[0], self.samples[-1]
        return (done - before) / (last - first) if last > first else None

    def left(self, done: int, total: int) -> float | None:
        """Estimate of the remaining seconds; None while it is unknown and when nothing remains."""
        return (total - done) / self.rate if self.rate and done < total else None


def line(progress: Progress, metrics: Mapping[str, float], pace: Pace, saved: int | None) -> str:
    """One line of a log: how much is done, the metrics, rate and remaining time, and the newest checkpoint's step."""
    done, total = (amount(number, progress.unit) for number in (progress.done, progress.total))
    percent = 100 * progress.done // progress.total if progress.total else 100
    rate, left = pace.rate, pace.left(progress.done, progress.total)
    words = [
        f"{progress.label} {done}/{total}",
        f"{percent} %",
        details(progress, metrics),
        spell_rate(rate, progress.unit) if rate and progress.done < progress.total else "",
        f"eta {spell_time(left)}" if left is not None else "",
        f"saved {saved}" if saved is not None else "",
    ]
    return "  ".join(filter(None, words))


def details(progress: Progress, metrics: Mapping[str, float]) -> str:
    """The newest metrics of the work, which are those of its curves, and the note of its newest step.

    A loss in the note is that of one batch, so it is left out where the metrics have the mean.
    """
    words = [
        f"{word} {_number(metrics[name], form)}"
        for name, word, form in _WORDS.get(progress.label, ())
        if name in metrics and not (progress.label == "rl" and progress.note.startswith(f"{word} "))
    ]
    if progress.note and not (progress.note.startswith("loss ") and "train/loss" in metrics):
        words.append(progress.note)
    return "  ".join(words)


def amount(number: float, unit: str) -> str:
    """A number of items, or of bytes if `unit` is ``B``."""
    return decimal(int(number)) if unit == "B" else f"{number:.0f}"


def spell_rate(rate: float, unit: str) -> str:
    """``8.1 it/s``; of slow work the time of one item: ``12.3 s/it``, ``4.0 min/it``."""
    if unit == "B":
        return f"{decimal(int(rate))}/s"
    word = unit or "it"
    if rate >= 1:
        return f"{rate:.1f} {word}/s" if rate < 100 else f"{rate:.0f} {word}/s"
    return f"{1 / rate:.1f} s/{word}" if rate > 1 / 90 else f"{1 / rate / 60:.1f} min/{word}"


def spell_time(seconds: float) -> str:
    """``0:42``, ``12:05``, ``3:04:05`` or ``2 d 03:04``."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24:02d}:{minutes:02d}"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _number(value: float, form: str) -> str:
    if form != "lr":
        return format(value, form)
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}"
