"""`convert`: torch and safetensors checkpoints into verified safetensors, or a complete bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import PROJECT, preflight, stdout, verb_session
from rlinf_isaac.errors import NormStatsError, Problem
from rlinf_isaac.preflight.findings import Findings

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.convert import ConversionJob, Options
    from rlinf_isaac.checkpoint.make import Conversion
    from rlinf_isaac.checkpoint.sources import Source
    from rlinf_isaac.config.schema import JobConfig
    from rlinf_isaac.events import Progress

EXAMPLE = """\b
Example:
  rlinf-isaac convert --input full_weights.pt --output converted --dry-run
  rlinf-isaac convert --input /results/exp/checkpoints/global_step_30000 --output converted --dtype bf16
  rlinf-isaac convert --input full_weights.pt --output bundles/30000 --preset pi05 --norm-stats norm_stats.json
  mlflow run . -e convert -P input=full_weights.pt -P output=bundle"""

JOURNAL = Path("result/isaaclab_openpi")


def switch(name: str, help: str) -> Callable[[options.Command], options.Command]:
    """A switch that is on: ``--name false`` turns it off."""
    return click.option(name, type=bool, default="true", show_default=True, help=help)


@click.command("convert", epilog=EXAMPLE)
@options.option("--input", "A .pt or .pth file, RLinf's global_step_N, a DCP directory, or safetensors.", None)
@options.option("--output", "Directory to write; it must not exist yet.", None)
@options.option("--max-shard-size", "Bytes per file, e.g. 5GB or 512MiB; none: one model.safetensors.", "none")
@click.option(
    "--dtype",
    type=click.Choice(["keep", "bf16", "fp16", "fp32"]),
    default="keep",
    show_default=True,
    help="Cast floating-point tensors.",
)
@options.option("--keep-dtype", "Patterns of tensors that are not cast, e.g. '*norm*,*.bias'.", "none")
@options.option("--include", "Patterns of the tensors to write; none: all.", "none")
@options.option("--exclude", "Patterns of tensors to leave out, e.g. 'value_head.*'.", "none")
@options.option("--strip-prefix", "Prefixes to remove from names. Wrappers (FSDP, DDP, compile) go anyway.", "none")
@options.option("--state-dict-key", "Where the state dict is, e.g. 'checkpoint.model'; '.': the whole file.")
@options.option("--norm-stats", "With --preset: write a complete bundle with these norm stats.", "none")
@options.option("--preset", "With --norm-stats: tiny, small, pi0, pi05 or a YAML file.", "none")
@options.flag("--dry-run", "Print what would be written, and stop.")
@switch("--verify", "Read the result and the source again with safetensors and torch, and compare every tensor.")
@switch("--hash-source", "Record the sha256 of the source, which takes one more reading of it.")
@options.flag("--force", "Replace an output of an earlier conversion.")
@options.overrides
def command(**settings: Any) -> None:
    """Convert a checkpoint to safetensors, in the memory of its largest tensor and about as fast as cp.

    Nothing in the checkpoint is executed: what wants to be is refused by name. Names, ties and checksums are checked,
    the state dict is found, wrappers of FSDP, DDP and torch.compile are removed from names, tied tensors are stored
    once. The output appears whole or not at all, with a record of its source (conversion.json).
    """
    with verb_session():
        with preflight() as findings:
            job = check(findings, **settings)
        assert job is not None
        show_plan(job)
        if not settings["dry_run"]:
            run(job, verify=settings["verify"], hash_source=settings["hash_source"])


@dataclass(frozen=True)
class BundleJob:
    """A bundle to make of the plan.

    Attributes:
        source: the checkpoint with the given norm stats.
        config: the job that trained it, as far as it is known.
        step: from the name of the output, or of the checkpoint.
        conversion: how its weights fill the model.
    """

    source: Source
    config: JobConfig
    step: int
    conversion: Conversion


@dataclass(frozen=True)
class Job:
    """What to convert, and the bundle to make of it, if one is asked for."""

    conversion: ConversionJob
    bundle: BundleJob | None


def check(findings: Findings, **settings: Any) -> Job | None:
    """Check these options, all of them; the job, unless `findings` has errors."""
    from rlinf_isaac.checkpoint.convert import Options, parse_size, prepare

    size = None
    with findings.collect():
        size = None if settings["max_shard_size"] == "none" else parse_size(settings["max_shard_size"])
    key = settings["state_dict_key"]
    chosen = Options(
        dtype=settings["dtype"],
        keep_dtype=options.words(settings["keep_dtype"]),
        include=options.words(settings["include"]),
        exclude=options.words(settings["exclude"]),
        strip_prefix=options.words(settings["strip_prefix"]),
        state_dict_key=None if key == options.AUTO else key,
        max_shard_size=size,
    )
    wants_bundle = settings["norm_stats"] != "none" or settings["preset"] != "none"
    conversion = bundle = None
    with findings.collect():
        record = "bundle.json" if wants_bundle else None
        conversion = prepare(settings["input"], settings["output"], chosen, overwrite=settings["force"], record=record)
    if wants_bundle:
        with findings.collect():
            bundle = _check_bundle(findings, chosen, **settings)
    return None if findings.errors or conversion is None else Job(conversion, bundle)


def _check_bundle(findings: Findings, chosen: Options, **settings: Any) -> BundleJob | None:
    from rlinf_isaac.checkpoint.sources import find_source
    from rlinf_isaac.checkpoint.steps import step_of
    from rlinf_isaac.config import load_config
    from rlinf_isaac.data.norm_stats import from_json
    from rlinf_isaac.data.norm_stats.keys import CHOICE
    from rlinf_isaac.preflight import check_config, check_norm_stats

    if "none" in (settings["norm_stats"], settings["preset"]):
        cause = "--norm-stats and --preset make a bundle together, and only one of them is given"
        findings.add([Problem("bundle-options", cause, "pass both, or neither for plain safetensors")])
        return None
    source, config = None, None
    with findings.collect():
        config = load_config(settings["preset"], options.to_overrides({}, {}, settings["overrides"]))
        findings.add(check_config(config))
    with findings.collect():
        source = find_source(settings["input"], norm_stats=Path(settings["norm_stats"]))
    step = step_of(Path(settings["output"]).name)
    step = source.step if step is None and source is not None else step
    if step is None:
        cause = f"neither {settings['output']} nor the checkpoint's directory says an optimiser step"
        findings.add([Problem("no-step", cause, f"name the output after it: --output {settings['output']}/30000")])
    if source is None or config is None or step is None:
        return None
    data = source.norm_stats.path.read_bytes()
    try:
        from_json(data, str(source.norm_stats.path))
    except NormStatsError as error:
        cure = f"use `rlinf-isaac bundle make`, and {CHOICE}"
        raise NormStatsError([Problem(each.code, each.cause, cure) for each in error.problems]) from error
    findings.add(check_norm_stats(data, source.norm_stats.path, config))
    from rlinf_isaac.checkpoint.make import plan_conversion

    return BundleJob(source, config, step, plan_conversion(source, config.model, chosen))


def show_plan(job: Job) -> None:
    """Print what will be written, from what."""
    from mlflow_project.cli._plan_view import show

    show(job.conversion)


def run(job: Job, *, verify: bool, hash_source: bool) -> None:
    """Convert as one tracked run, with the plan and the manifest as artifacts."""
    from mlflow_project.lineage import provenance_tags
    from mlflow_project.progress import ProgressView
    from mlflow_project.runs import tracked_run

    conversion = job.conversion
    name = f"convert {conversion.output.name}"
    with tracked_run("convert", output=JOURNAL, name=name, tags=provenance_tags(PROJECT)) as tracked:
        with ProgressView() as view:
            if job.bundle is None:
                _convert(tracked, conversion, verify, hash_source, view.show)
            else:
                _make_bundle(tracked, job.bundle, conversion)
        tracked.recorder.params({"format": conversion.stored.weights.format}, prefix="source")
        tracked.recorder.params({**asdict(conversion.options)}, prefix="options")
        tracked.recorder.metrics(
            {"convert/bytes": conversion.plan.total_size, "convert/tensors": len(conversion.plan.tensors)}
        )


def _convert(
    tracked: Any, conversion: ConversionJob, verify: bool, hash_source: bool, show: Callable[[Progress], None]
) -> None:
    from rlinf_isaac.checkpoint.convert import run as convert

    record = convert(conversion, verify=verify, hash_source=hash_source, progress=show)
    tracked.recorder.artifact(conversion.output / "conversion.json", "conversion.json")
    stdout.print(f"\nconverted    {conversion.output.absolute()}", markup=False)
    for file, digest in record["output"].items():
        stdout.print(f"             {file} sha256 {digest}", markup=False)
    for file, entry in record["source"]["files"].items():
        if entry["sha256"]:
            stdout.print(f"read         {file} sha256 {entry['sha256']}", markup=False)
    stdout.print(f"verified     {'every tensor is that of the source' if record['verified'] else 'not asked for'}")


def _make_bundle(tracked: Any, bundle: BundleJob, conversion: ConversionJob) -> None:
    from mlflow_project.checkpoints import bundle_tags, log_bundle_files, log_model, model_name
    from rlinf_isaac.checkpoint.make import make_bundle

    source = bundle.source
    made = make_bundle(
        bundle.conversion,
        bundle.config,
        conversion.output,
        asset_id=bundle.config.policy.asset_id,
        step=bundle.step,
        norm_stats=source.norm_stats.path.read_bytes(),
        norm_stats_record={
            "mode": "none",
            "source": source.norm_stats.path.name,
            "source_sha256": source.norm_stats.sha256,
        },
        overwrite=conversion.overwrite,
    )
    tracked.recorder.tags(bundle_tags(made))
    log_model(tracked.recorder, made, model_name(bundle.config.preset, pi05=bundle.config.model.pi05), "output")
    log_bundle_files(tracked.recorder, made, f"checkpoints/{made.step}", "none")
    stdout.print(f"\nbundle       {made.path.absolute()} sha256 {made.digest}", markup=False)
