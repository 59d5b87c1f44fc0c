"""Conversion of a checkpoint, as a tracked run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlflow_project.lineage.provenance import provenance_tags
from mlflow_project.recorders.logged_checkpoints import bundle_tags, log_bundle_files, log_model, model_name
from mlflow_project.tracked import PROJECT
from mlflow_project.tracking.progress import ProgressView
from mlflow_project.tracking.runs import TrackedRun, tracked_run
from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.convert import ConversionJob, find_finished, output_exists
from rlinf_isaac.checkpoint.convert import run as convert
from rlinf_isaac.checkpoint.foreign.make import find_made, make_bundle
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.ground.events import Progress
from rlinf_isaac.jobs import Say, silent
from rlinf_isaac.jobs.bundle_source import say_read
from rlinf_isaac.jobs.convert import BundleJob, ConvertJob

JOURNAL = Path("result/isaaclab_openpi")


def run(job: ConvertJob, *, verify: bool, hash_source: bool, say: Say = silent) -> None:
    """Convert as one tracked run, with the plan and the manifest as artifacts.

    What the same command has written, and was killed before all of it was recorded, is recorded as it is.

    Raises:
        InvalidJob: the output is of another source, or of other options.
    """
    conversion = job.conversion
    name = f"convert {conversion.output.name}"
    with ProgressView() as view:
        there = _find_there(job, verify, hash_source, view.show, say) if conversion.there else None
    with tracked_run("convert", output=JOURNAL, name=name, tags=provenance_tags(PROJECT)) as tracked:
        with ProgressView() as view:
            if job.bundle is None:
                _convert(tracked, conversion, there, verify, hash_source, view.show, say)
            else:
                _make_bundle(tracked, job.bundle, conversion, there, say)
        tracked.recorder.params({"format": conversion.stored.weights.format}, prefix="source")
        tracked.recorder.params({**asdict(conversion.options)}, prefix="options")
        tracked.recorder.metrics(
            {"convert/bytes": conversion.plan.total_size, "convert/tensors": len(conversion.plan.tensors)}
        )


def _find_there(job: ConvertJob, verify: bool, hash_source: bool, show: Callable[[Progress], None], say: Say) -> Any:
    """The bundle, or the record of the conversion, that is at the output already, whole and of this very job."""

    output = job.conversion.output
    if job.bundle is None:
        there: Any = find_finished(job.conversion, verify=verify, hash_source=hash_source, progress=show)
    else:
        there = find_made(job.bundle.conversion, job.bundle.content, output)
    if there is None:
        raise InvalidJob([output_exists(output)])
    say(f"there        {output.absolute()}, whole: this command has made it before")
    return there


def _convert(
    tracked: TrackedRun,
    conversion: ConversionJob,
    there: dict[str, Any] | None,
    verify: bool,
    hash_source: bool,
    show: Callable[[Progress], None],
    say: Say,
) -> None:

    record = there or convert(conversion, verify=verify, hash_source=hash_source, progress=show)
    tracked.recorder.artifact(conversion.output / "conversion.json", "conversion.json")
    say(f"\nconverted    {conversion.output.absolute()}")
    for file, digest in record["output"].items():
        say(f"             {file} sha256 {digest}")
    say_read({file: entry["sha256"] for file, entry in record["source"]["files"].items()}, say)
    say(f"verified     {'every tensor is that of the source' if record['verified'] else 'not asked for'}")


def _make_bundle(
    tracked: TrackedRun, bundle: BundleJob, conversion: ConversionJob, there: Bundle | None, say: Say
) -> None:

    made = there or make_bundle(bundle.conversion, bundle.content, conversion.output, overwrite=conversion.overwrite)
    config = bundle.content.config
    tracked.recorder.tags(bundle_tags(made))
    log_model(tracked.recorder, made, model_name(config.preset, pi05=config.model.pi05), "output")
    log_bundle_files(tracked.recorder, made, f"checkpoints/{made.step}", "none")
    say(f"\nbundle       {made.path.absolute()} sha256 {made.digest}")
