"""`bundle`: make a checkpoint bundle of OpenPI's, RLinf's, lerobot's or loose weights; verify or show one."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._bundle_source import (
    find_config,
    find_step,
    local_source,
    path_or_none,
    read_norm_stats,
    remarks,
    run_name,
    show_read,
    show_source,
    sliced_dims,
    with_asset_id,
)
from mlflow_project.cli._session import PROJECT, preflight, stdout, verb_session
from rlinf_isaac.config.reads import check_overrides
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.ground.errors import BundleError, Problem
from rlinf_isaac.preflight.findings import Findings

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.bundle import Bundle
    from rlinf_isaac.checkpoint.foreign.sources import Source

EXAMPLE = """\b
Example:
  rlinf-isaac bundle make /results/exp/checkpoints/global_step_30000 --preset pi05 --norm-stats base/norm_stats.json
  rlinf-isaac bundle make /checkpoints/pi05_stack/30000 --norm-stats-mode identity
  rlinf-isaac bundle make outputs/train/checkpoints/030000 --assume "prompt='Stack.',control_hz=30"
  rlinf-isaac bundle verify result/isaaclab_openpi/bundles/exp/30000
  rlinf-isaac bundle show result/isaaclab_openpi/bundles/exp/30000
  mlflow run . -e bundle -P action=make -P source=/results/exp/checkpoints/global_step_30000"""


# Facts that a dataset says; how its dims are called it may leave open.
_OF_DATASET = ("prompt", "control_hz", "state", "actions")


@click.command("bundle", epilog=EXAMPLE)
@click.argument("action", type=click.Choice(["make", "verify", "show"]))
@click.argument("source", type=click.Path(path_type=Path))
@options.option("--norm-stats", "make: norm_stats.json the weights were trained with; auto: the one in SOURCE.")
@click.option(
    "--norm-stats-mode",
    type=click.Choice(["none", "canonical", "identity"]),
    default="none",
    show_default=True,
    help="make: for norm stats with other keys than 'state' and 'actions', whether training normalised with them "
    "(canonical) or passed them over (identity). none refuses such a file.",
)
@options.option("--weights", "make: the weights' file or directory, where SOURCE holds several; auto: find them.")
@options.option("--dataset", "make: LeRobot dataset the weights were trained on, for the lineage.", "none")
@options.option("--preset", "make: tiny, small, pi0, pi05 or a YAML file; auto: the one whose shapes are the weights'.")
@options.option("--step", "make: optimiser step; auto: from the directory's name.")
@options.option(
    "--asset-id",
    "make: where OpenPI and RLinf look for the norm stats, and which of several to take; auto: where they were found.",
)
@options.option(
    "--assume",
    "make: what SOURCE does not say of its training, as in \"prompt='Stack.',control_hz=20\"; recorded as assumed.",
    "none",
)
@options.option("--exclude", "make: patterns of tensors to leave out, e.g. 'value_head.*' of an RL checkpoint.", "none")
@options.option("--name", "make: directory under OUTPUT/bundles, one per training run; auto: the experiment's.")
@options.flag("--force", "make: replace an existing bundle.")
@options.output
@options.overrides
def command(action: str, source: Path, output: Path, **settings: Any) -> None:
    """Make, verify or show a checkpoint bundle, the directory that eval, RLinf and OpenPI all read.

    make: SOURCE is a checkpoint of OpenPI (PyTorch, or JAX with the extra jax), RLinf (global_step_N, with or without
    full_weights.pt; its own img.*, llm.* names), lerobot (pi0, pi05), loose safetensors or a state dict, here or on the
    Hugging Face Hub (hf://org/name[/folder][@revision]). Weights, norm stats, step and asset id are inferred and
    printed; where two candidates disagree, it says so and stops. Names and shapes must be those of the architecture.
    What its own files say of the training goes before the preset; what nobody says is recorded as not known, and eval
    asks.

    verify: hash every file of the bundle SOURCE and compare its weights with its architecture. show: print its config,
    lineage and sizes without hashing the weights.
    """
    with verb_session():
        if action == "make":
            with preflight() as findings:
                job = check(findings, source=source, output=output, **settings)
            assert job is not None
            _show_result(run(job, output))
        else:
            from mlflow_project.cli._bundle_view import show, verify

            with preflight() as findings:
                findings.add(check_overrides(f"bundle {action}", options.to_overrides({}, {}, settings["overrides"])))
            (verify if action == "verify" else show)(source)


@dataclass(frozen=True)
class MakeJob:
    """A bundle to make.

    Attributes:
        source: the checkpoint as it was found.
        config: the job that trained it, as far as it is known.
        norm_stats: bytes with canonical keys.
        norm_stats_record: where they came from.
        step, asset_id: of the bundle.
        dataset: root of the dataset it was trained on, or None.
        stated: facts that the checkpoint's files say.
        assumed: facts that the person says, with their values.
        exclude: patterns of tensors to leave out.
        path: the bundle's directory.
        force: replace an existing bundle.
    """

    source: Source
    config: JobConfig
    norm_stats: bytes
    norm_stats_record: dict[str, Any]
    step: int
    asset_id: str
    dataset: Path | None
    stated: frozenset[str]
    assumed: Mapping[str, Any]
    exclude: tuple[str, ...]
    path: Path
    force: bool


def check(
    findings: Findings,
    *,
    source: Path,
    norm_stats: str,
    norm_stats_mode: str,
    weights: str,
    dataset: str,
    preset: str,
    step: str,
    asset_id: str,
    assume: str,
    exclude: str,
    name: str,
    force: bool,
    output: Path,
    overrides: str,
) -> MakeJob | None:
    """Check these options, and print what was inferred; the job, unless `findings` has errors."""
    from rlinf_isaac.checkpoint.facts import parse_assumptions
    from rlinf_isaac.checkpoint.foreign.make_plan import may_be_made
    from rlinf_isaac.checkpoint.foreign.sources import find_source
    from rlinf_isaac.preflight import check_config, check_dataset, check_free_space, check_norm_stats

    patterns = options.words(exclude)
    with findings.collect():
        assumptions = parse_assumptions(assume)
        known = sorted(assumptions.keys() & set(_OF_DATASET[:2])) if dataset != "none" else []
        findings.add(
            Problem("needless-assumption", f"--dataset says what the {name} is", f"leave {name} out of --assume")
            for name in known
        )
        which = None if asset_id == options.AUTO else asset_id
        local, named, hub = local_source(source)
        given = {"norm_stats": path_or_none(norm_stats), "weights": path_or_none(weights)}
        found = replace(find_source(local, **given, asset_id=which), hub=hub)
        show_source(found)
        number = find_step(step, found)
        own = options.to_overrides({}, {}, overrides)
        findings.add(check_overrides("bundle make", own))
        configured = find_config(found, preset, patterns, own, assumptions, () if dataset == "none" else _OF_DATASET)
        config = with_asset_id(configured.config, asset_id, found)
        findings.add(check_config(config, "bundle make", own))
        findings.add(remarks(found))
        findings.raise_errors()
        data, record = read_norm_stats(found, norm_stats_mode)
        findings.add(check_norm_stats(data, found.norm_stats.path, config))
        record |= sliced_dims(data, config)
        root = None
        if dataset != "none":
            root = options.find_dataset(dataset)
            # Its prompts and its rate are written down, whatever they are: an evaluation compares them.
            findings.add(check_dataset(config, root, ("cameras", "state", "actions")))
        path = output.absolute() / "bundles" / run_name(name, named if hub else found.path) / str(number)
        if force or not path.exists():
            findings.add(check_free_space(path, found.weights.size))
        elif not may_be_made(path, config, data):
            findings.add([_exists(path)])
        told = (configured.stated, configured.assumed)
        arguments = (found, config, data, record, number, config.policy.asset_id, root, *told, patterns, path, force)
        return None if findings.errors else MakeJob(*arguments)
    return None


def run(job: MakeJob, output: Path) -> Bundle:
    """Make the bundle as one tracked run, with manifest, config and norm stats as artifacts.

    One that the same command has made, and was killed before all of it was recorded, is recorded as it is.

    Raises:
        BundleError: another bundle is there.
    """
    from mlflow_project.lineage.provenance import lerobot_dataset, provenance_tags
    from mlflow_project.recorders.logged_checkpoints import bundle_tags, log_bundle_files, log_model, model_name
    from mlflow_project.tracking.runs import tracked_run
    from rlinf_isaac.checkpoint.foreign.make import AS_STORED, find_made, make_bundle, plan_conversion
    from rlinf_isaac.data.lerobot.reader import LeRobotDataset

    # Before there is a run: weights that do not fit are a job that cannot start, not one that failed.
    conversion = plan_conversion(job.source, job.config.model, replace(AS_STORED, exclude=job.exclude))
    for line in (conversion.plan.summary, *conversion.stored.notes):
        if line:
            stdout.print(f"weights      {line}")
    dataset = None if job.dataset is None else LeRobotDataset(job.dataset)
    parts: dict[str, Any] = {
        "asset_id": job.asset_id,
        "step": job.step,
        "norm_stats": job.norm_stats,
        "norm_stats_record": job.norm_stats_record,
        "dataset": dataset,
        "stated": job.stated,
        "assumed": job.assumed,
    }
    made = None
    if job.path.exists() and not job.force:
        made = find_made(conversion, job.config, job.path, **parts)
        if made is None:
            raise BundleError([_exists(job.path)])
        stdout.print(f"there        {job.path}, whole: this command has made it before")
    name = f"bundle {job.path.parent.name} {job.step}"
    with tracked_run("bundle", output=output, name=name, tags=provenance_tags(PROJECT)) as tracked:
        bundle = made or make_bundle(conversion, job.config, job.path, **parts, overwrite=job.force)
        values = asdict(job.config)
        tracked.recorder.params({section: values[section] for section in ("preset", "model", "policy")})
        origin = {"kind": job.source.kind, "format": job.source.weights.format}
        tracked.recorder.params(origin | ({"hub": job.source.hub} if job.source.hub else {}), prefix="source")
        tracked.recorder.tags(bundle_tags(bundle))
        if dataset is not None:
            tracked.recorder.dataset(lerobot_dataset(dataset.root, dataset.digest))
        family = model_name(job.config.preset, pi05=job.config.model.pi05)
        log_model(tracked.recorder, bundle, family, "output")
        log_bundle_files(tracked.recorder, bundle, f"checkpoints/{job.step}", "none")
    return bundle


def _exists(path: Path) -> Problem:
    return Problem("bundle-exists", f"{path} exists already", "pass --force, or another --name")


def _show_result(bundle: Bundle) -> None:
    origin = bundle.config["source"]
    show_read(origin["files"])
    for title in ("stripped", "excluded"):
        if origin[title]:
            stdout.print(f"{title}     {', '.join(origin[title])}")
    stdout.print(f"bundle       {bundle.path} sha256 {bundle.digest}")
    words = ["rlinf-isaac", "eval", "--ckpt-root", str(bundle.path.parent), "--ckpt-steps", str(bundle.step)]
    stdout.print(f"evaluate     {shlex.join(words)}")
