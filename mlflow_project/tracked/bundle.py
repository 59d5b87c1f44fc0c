"""Making a checkpoint bundle, as a tracked run."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from mlflow_project.lineage.provenance import lerobot_dataset, provenance_tags
from mlflow_project.recorders.logged_checkpoints import bundle_tags, log_bundle_files, log_model, model_name
from mlflow_project.tracked import PROJECT
from mlflow_project.tracking.runs import tracked_run
from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.foreign.make import AS_STORED, find_made, make_bundle, plan_conversion
from rlinf_isaac.ground.errors import BundleError
from rlinf_isaac.jobs import Say, silent
from rlinf_isaac.jobs.bundle import MakeJob, already_there


def run(job: MakeJob, output: Path, say: Say = silent) -> Bundle:
    """Make the bundle as one tracked run, with manifest, config and norm stats as artifacts.

    One that the same command has made, and was killed before all of it was recorded, is recorded as it is.

    Raises:
        BundleError: another bundle is there.
    """
    # Before there is a run: weights that do not fit are a job that cannot start, not one that failed.
    conversion = plan_conversion(job.source, job.content.config.model, replace(AS_STORED, exclude=job.exclude))
    for line in (conversion.plan.summary, *conversion.stored.notes):
        if line:
            say(f"weights      {line}")
    content = job.content
    made = None
    if job.path.exists() and not job.force:
        made = find_made(conversion, content, job.path)
        if made is None:
            raise BundleError([already_there(job.path)])
        say(f"there        {job.path}, whole: this command has made it before")
    name = f"bundle {job.path.parent.name} {content.step}"
    with tracked_run("bundle", output=output, name=name, tags=provenance_tags(PROJECT)) as tracked:
        bundle = made or make_bundle(conversion, content, job.path, overwrite=job.force)
        values = asdict(content.config)
        tracked.recorder.params({section: values[section] for section in ("preset", "model", "policy")})
        origin = {"kind": job.source.kind, "format": job.source.weights.format}
        tracked.recorder.params(origin | ({"hub": job.source.hub} if job.source.hub else {}), prefix="source")
        tracked.recorder.tags(bundle_tags(bundle))
        if content.dataset is not None:
            tracked.recorder.dataset(lerobot_dataset(content.dataset.root, content.dataset.digest))
        family = model_name(content.config.preset, pi05=content.config.model.pi05)
        log_model(tracked.recorder, bundle, family, "output")
        log_bundle_files(tracked.recorder, bundle, f"checkpoints/{content.step}", "none")
    return bundle
