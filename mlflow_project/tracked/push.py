"""Publishing a checkpoint on the Hugging Face Hub, as a tracked run."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mlflow_project.lineage.provenance import provenance_tags
from mlflow_project.publishing.card import model_card
from mlflow_project.publishing.evidence import Evidence, find_evidence
from mlflow_project.publishing.upload import CARD, TRAINING_STATE, Target, check_target, files_of, upload
from mlflow_project.recorders.logged_checkpoints import bundle_tags
from mlflow_project.tracked import PROJECT
from mlflow_project.tracking.progress import ProgressView
from mlflow_project.tracking.runs import tracked_run
from mlflow_project.vocabulary import HUB_TAG
from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.ground.errors import InvalidJob, Problem
from rlinf_isaac.ground.events import Progress
from rlinf_isaac.ground.hub import SCHEME, Location, parse
from rlinf_isaac.ground.reading import read_json
from rlinf_isaac.jobs import Say, options
from rlinf_isaac.preflight.findings import Findings

_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_STATE_BYTES = 10_000


@dataclass(frozen=True)
class PushJob:
    """A push that can begin.

    Attributes:
        evidence: the checkpoint, and what is known of it.
        card: the text of ``README.md``.
        location: repository, and branch as its revision.
        target: what the Hub says of it; None in a dry run.
        private: whether a repository that is created is private.
        states: directory of the optimiser's state that goes along, or None.
    """

    evidence: Evidence
    card: str
    location: Location
    target: Target | None
    private: bool
    states: Path | None

    @property
    def files(self) -> dict[str, Path]:
        """Name in the repository -> file, without the card."""
        return files_of(self.evidence.bundle, self.states)


def check(
    findings: Findings,
    *,
    subject: str,
    repo: str,
    revision: str = options.AUTO,
    private: bool = False,
    license: str = options.NONE,
    without_evidence: bool = False,
    optimiser_state: bool = False,
    dry_run: bool = False,
) -> PushJob | None:
    """Check these options, the checkpoint, its evidence and, unless it is a dry run, what the Hub lets this account do.
    None where `findings` has errors."""
    location, evidence, target, states = None, None, None, None
    with findings.collect():
        location = _location(repo, revision)
    if license != options.NONE and not _LICENCE.fullmatch(license):
        cause = f"--license {license} is not one of the Hub's identifiers, which are in small letters"
        findings.add([Problem("bad-licence", cause, "write e.g. apache-2.0, mit, gemma or other")])
    with findings.collect():
        evidence = find_evidence(subject)
        if evidence.evaluation is None and not without_evidence:
            findings.add([_no_evidence(evidence)])
        states = _states(evidence.bundle) if optimiser_state else None
    if location is not None and not dry_run:
        with findings.collect():
            target = check_target(location)
    if location is None or evidence is None or findings.errors:
        return None
    told = None if license == options.NONE else license
    with findings.collect():
        card = model_card(evidence, location.repo, told, location.revision)
        return PushJob(evidence, card, location, target, private, states)
    return None


def run(job: PushJob, output: Path, say: Say) -> str:
    """Upload as one tracked run, which has the card as an artifact and the URI as a tag; returns the URI with the
    commit."""
    assert job.target is not None
    bundle = job.evidence.bundle
    name = f"push {job.location.repo} step {bundle.step}"
    with tracked_run("push", output=output, name=name, tags=provenance_tags(PROJECT)) as tracked:
        tracked.recorder.tags(bundle_tags(bundle))
        tracked.recorder.params({"repo": job.location.repo, "branch": job.target.branch, "private": job.private})
        tracked.recorder.text(CARD, job.card)
        say(f"uploading    {len(job.files)} files as {job.target.user} to {SCHEME}{job.location.repo}")
        with ExitStack() as shown:
            lines = None if sys.stderr.isatty() else shown.enter_context(ProgressView())
            progress = None if lines is None else _shown(lines.show)
            commit = upload(bundle, job.card, job.target, private=job.private, states=job.states, progress=progress)
        uri = job.location._replace(revision=None).at(commit)
        tracked.recorder.tags({HUB_TAG: uri})
    return uri


def _shown(show: Callable[[Progress], None]) -> Callable[[int, int], None]:
    return lambda done, total: show(Progress("upload", done, total, unit="B"))


def _location(repo: str, revision: str) -> Location:
    location = parse(repo if repo.lower().startswith("hf:") else f"{SCHEME}{repo}")
    if location.folder:
        cause = f"{repo} names a folder, and a checkpoint is a repository of its own"
        raise InvalidJob.of("hub-uri", cause, f"write {SCHEME}{location.repo}")
    if revision == options.AUTO:
        return location
    if location.revision not in (None, revision):
        cause = f"{repo} names the branch {location.revision}, and --revision {revision}"
        raise InvalidJob.of("hub-uri", cause, "leave one of them out")
    return location._replace(revision=revision)


def _no_evidence(evidence: Evidence) -> Problem:
    path = evidence.bundle.path
    cause = f"no finished evaluation of {path} is in this store, so the card could not say how good it is"
    if evidence.mismatched:
        cause = f"{path} was only evaluated in spite of a mismatch ({evidence.mismatched} times), which is no evidence"
    cure = f"rlinf-isaac eval --ckpt-root {path.parent} --ckpt-steps {evidence.bundle.step}; or --without-evidence"
    return Problem("no-evidence", cause, cure)


def _states(bundle: Bundle) -> Path:
    """The directory with the optimiser's state of this step.

    Raises:
        InvalidJob: there is none, or it is that of another step.
    """
    directory = bundle.path.resolve().parent.parent / TRAINING_STATE
    step, tensors = None, (directory / "optimizer.safetensors").is_file()
    if (directory / "state.json").is_file():
        step = read_json(directory / "state.json", _STATE_BYTES).get("step")
    if not tensors or step != bundle.step:
        held = "which does not exist" if step is None else f"which is that of step {step}"
        cause = f"--optimiser-state: the state of step {bundle.step} would be in {directory}, {held}"
        raise InvalidJob.of("no-optimiser-state", cause, "push the step that training would resume from")
    return directory
