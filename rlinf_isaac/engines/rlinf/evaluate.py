"""The parent's side of an evaluation on RLinf. Rows, settings and resuming are those of `engines.evaluation`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.engines.base import EvaluationJob
from rlinf_isaac.engines.evaluation import evaluate as evaluate_with
from rlinf_isaac.engines.rlinf.config import evaluation_config
from rlinf_isaac.engines.rlinf.driver_process import DriverProcess
from rlinf_isaac.engines.rlinf.run import freeze, job_environment, new_run
from rlinf_isaac.engines.rlinf.runtime import Runtime
from rlinf_isaac.engines.rlinf.session import RlinfSession
from rlinf_isaac.ground.events import EpisodeRow, Event, FileSaved, Metrics
from rlinf_isaac.media.video import verify_video


def evaluate(job: EvaluationJob, runtime: Runtime) -> Iterator[Event]:
    """Evaluate every bundle of the job on the same seeds, in ``runtime.parallel`` simulators.

    Raises:
        InvalidJob: as for every engine; or RLinf's config has a problem.
        EngineFailed: RLinf failed. With several lanes: all lanes failed, or two lanes failed with the same checkpoint.
    """
    directory = new_run(job.output)
    count = min(runtime.parallel, len(job.bundles))
    lanes: dict[str, int | None] = {f"lane-{lane}": lane for lane in range(count)} if count > 1 else {"": None}
    frozen = {
        name: freeze(evaluation_config(job, directory / name, runtime.overrides, lane=lane), directory / name)
        for name, lane in lanes.items()
    }
    environment = job_environment(job)
    with ExitStack() as stack:
        # A thread per lane (even for a single one), so that RLinf does not wait for a slow consumer of the events. The
        # session is entered after the pool, so the drivers have ended when the pool waits for its threads.
        pool = stack.enter_context(ThreadPoolExecutor(len(lanes)))
        session = stack.enter_context(RlinfSession(directory, runtime, environment))
        drivers = {name: session.drive(directory / name) for name in lanes}  # they start in parallel
        players = []
        for name, driver in drivers.items():
            ready = yield from driver.start(f"start RLinf {name}".rstrip())
            yield FileSaved(frozen[name], (PurePosixPath("rlinf") / name / frozen[name].name).as_posix())
            yield Metrics(0, {f"time/start/{part}": seconds for part, seconds in ready["seconds"].items()})
            players.append(RlinfPlayer(job, driver, ready))
        yield from evaluate_with(job, players, pool)


class RlinfPlayer:
    """A `rlinf_isaac.engines.base.Player` that sends its orders to a driver."""

    settings: Mapping[str, Any] = {"engine": "rlinf"}

    def __init__(self, job: EvaluationJob, driver: DriverProcess, ready: Mapping[str, Any]) -> None:
        self.identity, self.slots = ready["identity"], ready["slots"]
        self._job, self._driver = job, driver
        self._recorded: Counter[int] = Counter()  # step -> videos of RLinf's recorder: episodes may be played twice

    def play(
        self,
        bundle: Bundle,
        seeds: Sequence[int],
        finished: Collection[int],
        films: Mapping[int, Path],
        again: bool = False,
    ) -> Iterator[EpisodeRow | Event]:
        """See `Player.play`.

        Raises:
            EngineFailed: RLinf failed.
            VideoError: a video of RLinf's recorder is missing or incomplete.
        """
        stats, recorded = self._job.norm_stats, []
        for line in self._driver.order(
            "play",
            bundle=str(bundle.path),
            step=bundle.step,
            norm_stats=None if stats is None else str(stats.path.absolute()),
            seeds=list(seeds),
            finished=sorted(finished),
            films={str(seed): str(path) for seed, path in films.items()},
            measured=not again,
        ):
            if line["kind"] == "episode":
                known = {"checkpoint_step": bundle.step, "checkpoint": bundle.digest}
                known["policy_seed"] = self._job.config.eval.policy_seed
                yield EpisodeRow.from_dict(line["row"] | known)
            elif line["kind"] == "metrics":
                yield Metrics(line["step"], line["values"])
            elif line["kind"] == "recorded":
                recorded.append(line)
        # Check RLinf's own videos, because RLinf only logs a warning if it could not write one.
        for line in recorded:
            path = Path(line["path"])
            verify_video(path, line["frames"])
            yield FileSaved(path, f"rlinf/video/{bundle.step}/{self._recorded[bundle.step]}.mp4")
            self._recorded[bundle.step] += 1
