"""`bundle`: make a checkpoint bundle of OpenPI's, RLinf's or loose weights; verify or show one."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import PROJECT, preflight, stdout, verb_session
from rlinf_isaac.config import build_config, load_config
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.errors import InvalidJob, NormStatsError, Problem
from rlinf_isaac.preflight.findings import Findings

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.bundle import Bundle
    from rlinf_isaac.checkpoint.sources import Source

EXAMPLE = """\b
Example:
  rlinf-isaac bundle make /results/exp/checkpoints/global_step_30000 --preset pi05 --norm-stats base/norm_stats.json
  rlinf-isaac bundle make /checkpoints/pi05_stack/30000 --norm-stats-mode identity
  rlinf-isaac bundle verify result/isaaclab_openpi/bundles/exp/30000
  rlinf-isaac bundle show result/isaaclab_openpi/bundles/exp/30000
  mlflow run . -e bundle -P action=make -P source=/results/exp/checkpoints/global_step_30000"""

# Directories between an experiment and its steps that say nothing about which experiment it is.
_NAMELESS = ("checkpoints", "actor", "model", "")


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
@options.option("--asset-id", "make: where OpenPI and RLinf look for the norm stats; auto: where they were found.")
@options.option("--exclude", "make: patterns of tensors to leave out, e.g. 'value_head.*' of an RL checkpoint.", "none")
@options.option("--name", "make: directory under OUTPUT/bundles, one per training run; auto: the experiment's.")
@options.flag("--force", "make: replace an existing bundle.")
@options.output
@options.overrides
def command(action: str, source: Path, output: Path, **settings: Any) -> None:
    """Make, verify or show a checkpoint bundle, the directory that eval, RLinf and OpenPI all read.

    make: SOURCE is a checkpoint of OpenPI (PyTorch), RLinf (global_step_N, with or without full_weights.pt), loose
    safetensors or a state dict. Weights, norm stats, step and asset id are inferred and printed; where two candidates
    disagree, it says so and stops. Names and shapes must be those of the architecture, every one of them.

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
    exclude: str,
    name: str,
    force: bool,
    output: Path,
    overrides: str,
) -> MakeJob | None:
    """Check these options, and print what was inferred; the job, unless `findings` has errors."""
    from rlinf_isaac.checkpoint.sources import find_source
    from rlinf_isaac.preflight import check_config, check_dataset, check_free_space, check_norm_stats

    patterns = options.words(exclude)
    with findings.collect():
        found = find_source(source, norm_stats=_path(norm_stats), weights=_path(weights))
        _print_source(found)
        number = _step(step, found)
        config = _config(found, preset, asset_id, patterns, options.to_overrides({}, {}, overrides))
        findings.add(check_config(config))
        findings.raise_errors()
        data, record = _norm_stats(found, norm_stats_mode)
        findings.add(check_norm_stats(data, found.norm_stats.path, config))
        root = None
        if dataset != "none":
            root = options.find_dataset(dataset)
            findings.add(check_dataset(config, root))
        path = output.absolute() / "bundles" / _run_name(name, found.path) / str(number)
        if path.exists() and not force:
            findings.add([Problem("bundle-exists", f"{path} exists already", "pass --force, or another --name")])
        findings.add(check_free_space(path, found.weights.size))
        arguments = (found, config, data, record, number, config.policy.asset_id, root, patterns, path, force)
        return None if findings.errors else MakeJob(*arguments)
    return None


def run(job: MakeJob, output: Path) -> Bundle:
    """Make the bundle as one tracked run, with manifest, config and norm stats as artifacts."""
    from mlflow_project.checkpoints import bundle_tags, log_bundle_files, log_model, model_name
    from mlflow_project.lineage import lerobot_dataset, provenance_tags
    from mlflow_project.runs import tracked_run
    from rlinf_isaac.checkpoint.make import AS_STORED, make_bundle, plan_conversion
    from rlinf_isaac.data.lerobot_reader import LeRobotDataset

    # Before there is a run: weights that do not fit are a job that cannot start, not one that failed.
    conversion = plan_conversion(job.source, job.config.model, replace(AS_STORED, exclude=job.exclude))
    name = f"bundle {job.path.parent.name} {job.step}"
    with tracked_run("bundle", output=output, name=name, tags=provenance_tags(PROJECT)) as tracked:
        dataset = None if job.dataset is None else LeRobotDataset(job.dataset)
        bundle = make_bundle(
            conversion,
            job.config,
            job.path,
            asset_id=job.asset_id,
            step=job.step,
            norm_stats=job.norm_stats,
            norm_stats_record=job.norm_stats_record,
            dataset=dataset,
            overwrite=job.force,
        )
        values = asdict(job.config)
        tracked.recorder.params({section: values[section] for section in ("preset", "model", "policy")})
        tracked.recorder.params({"kind": job.source.kind, "format": job.source.weights.format}, prefix="source")
        tracked.recorder.tags(bundle_tags(bundle))
        if dataset is not None:
            tracked.recorder.dataset(lerobot_dataset(dataset.root, dataset.digest))
        family = model_name(job.config.preset, pi05=job.config.model.pi05)
        log_model(tracked.recorder, bundle, family, "output")
        log_bundle_files(tracked.recorder, bundle, f"checkpoints/{job.step}", "none")
    return bundle


def _config(source: Source, preset: str, asset_id: str, exclude: tuple[str, ...], overrides: list[str]) -> JobConfig:
    """The job that trained the checkpoint: a bundle says so itself, of others only the architecture is known."""
    from rlinf_isaac.checkpoint.bundle import check_asset_id, read_bundle

    if preset == options.AUTO and source.kind == "bundle":
        bundle = read_bundle(source.path, verify=False)
        config = build_config(bundle.config.get("job"), f"{bundle.path}/config.json", overrides)
    else:
        chosen = _fitting_preset(source, exclude) if preset == options.AUTO else preset
        stdout.print(f"preset       {chosen}")
        config = load_config(chosen, overrides)
    if asset_id == options.AUTO:
        asset_id = source.asset_id or config.policy.asset_id
    stdout.print(f"asset id     {asset_id}", markup=False)
    check_asset_id(asset_id)
    return replace(config, policy=replace(config.policy, asset_id=asset_id))


def _fitting_preset(source: Source, exclude: tuple[str, ...]) -> str:
    from rlinf_isaac.checkpoint.make import AS_STORED, fitting_presets

    fitting = fitting_presets(source, replace(AS_STORED, exclude=exclude))
    if len(fitting) != 1:
        cause = f"the shapes in {source.path} are those of {' and '.join(fitting) or 'none of the presets'}"
        cure = "name the nearest with --preset, and it says which tensors differ; then use --overrides or --exclude"
        raise InvalidJob.of("unknown-architecture", cause, cure)
    return fitting[0]


def _norm_stats(source: Source, mode: str) -> tuple[bytes, dict[str, Any]]:
    """Bytes with canonical keys, and the record of where they came from."""
    from rlinf_isaac.checkpoint.sources import name_within
    from rlinf_isaac.data.norm_stats import from_json
    from rlinf_isaac.data.norm_stats.keys import CHOICE, canonicalise

    file = source.norm_stats.path
    data = file.read_bytes()
    origin = {"source": name_within(source.path, file), "source_sha256": source.norm_stats.sha256}
    if mode != "none":
        result = canonicalise(data, mode, str(file))  # type: ignore[arg-type]  # click has checked the choice
        return result.data, result.record | origin
    try:
        from_json(data, str(file))
    except NormStatsError as error:
        mended = [replace(each, cure=CHOICE) if each.code == "norm-stats-keys" else each for each in error.problems]
        raise NormStatsError(mended) from error
    return data, {"mode": mode, **origin}


def _step(text: str, source: Source) -> int:
    if text == options.AUTO:
        if source.step is None:
            cause = f"the name of {source.path} says no optimiser step"
            raise InvalidJob.of("no-step", cause, "pass --step N")
        number = source.step
    elif text.isascii() and text.isdecimal():
        number = int(text)
    else:
        raise InvalidJob.of("bad-step", f"--step {text} is not a non-negative integer", "pass one, such as 30000")
    stdout.print(f"step         {number}")
    return number


def _run_name(name: str, path: Path) -> str:
    """`name`, or the checkpoint's experiment: the nearest directory whose name is neither a step nor a filler."""
    from rlinf_isaac.checkpoint.steps import step_of

    if name != options.AUTO:
        if Path(name).name != name:
            raise InvalidJob.of("bad-name", f"--name {name} is not the name of a directory", "leave out its path")
        return name
    names = [folder.name for folder in (path, *path.parents)]
    return next((name for name in names if name not in _NAMELESS and step_of(name) is None), "checkpoint")


def _path(text: str) -> Path | None:
    return None if text == options.AUTO else Path(text)


def _print_source(source: Source) -> None:
    """What was found, with digests; the weights' own take a while and come with the bundle."""
    lines = [f"checkpoint   {source.path} ({source.kind})"]
    lines += [f"weights      {file} ({file.stat().st_size} bytes)" for file in source.weights.files]
    lines += [f"norm stats   {place} sha256 {source.norm_stats.sha256}" for place in source.norm_stats.places]
    for line in [*lines, *(f"             {note}" for note in source.notes)]:
        stdout.print(line, markup=False)


def _show_result(bundle: Bundle) -> None:
    origin = bundle.config["source"]
    for name, digest in origin["files"].items():
        stdout.print(f"read         {name} sha256 {digest}", markup=False)
    for title in ("stripped", "excluded"):
        if origin[title]:
            stdout.print(f"{title}     {', '.join(origin[title])}", markup=False)
    stdout.print(f"bundle       {bundle.path} sha256 {bundle.digest}", markup=False)
    words = ["rlinf-isaac", "eval", "--ckpt-root", str(bundle.path.parent), "--ckpt-steps", str(bundle.step)]
    stdout.print(f"evaluate     {shlex.join(words)}", markup=False)
