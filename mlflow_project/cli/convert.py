"""`convert`: torch and safetensors checkpoints into verified safetensors, or a complete bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._bundle_source import remarks, show_read
from mlflow_project.cli._session import PROJECT, preflight, stdout, verb_session
from rlinf_isaac.config.reads import check_overrides
from rlinf_isaac.ground.errors import InvalidJob, NormStatsError, Problem
from rlinf_isaac.preflight.findings import Findings

if TYPE_CHECKING:
    from mlflow_project.tracking.runs import TrackedRun
    from rlinf_isaac.checkpoint.bundle import Bundle
    from rlinf_isaac.checkpoint.convert import ConversionJob, Options
    from rlinf_isaac.checkpoint.foreign.make import Conversion
    from rlinf_isaac.checkpoint.foreign.sources import Source
    from rlinf_isaac.config.schema import JobConfig
    from rlinf_isaac.ground.events import Progress

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
@options.option("--output", "Directory to write; it must not exist yet, unless this same command made it.", None)
@options.option("--max-shard-size", "Bytes per file, e.g. 5GB or 512MiB; none: one model.safetensors.", "none")
@click.option(
    "--dtype",
    type=click.Choice(["keep", "bf16", "fp16", "fp32"]),
    default="keep",
    show_default=True,
    help="Cast floating-point tensors of 16 to 64 bits; smaller ones mean nothing without their scales and stay.",
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
    """Convert a checkpoint to safetensors, checked and in little memory.

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
        stated: facts that the checkpoint's files say.
        assumed: facts that the person says, with their values.
    """

    source: Source
    config: JobConfig
    step: int
    conversion: Conversion
    stated: frozenset[str]
    assumed: Mapping[str, Any]

    @property
    def parts(self) -> dict[str, Any]:
        """What `make_bundle` and `find_made` want to know, beside weights, config and place."""
        stats = self.source.norm_stats
        record = {"mode": "none", "source": stats.path.name, "source_sha256": stats.sha256}
        told = {"stated": self.stated, "assumed": self.assumed}
        own = {"asset_id": self.config.policy.asset_id, "step": self.step}
        return {**own, **told, "norm_stats": stats.read(), "norm_stats_record": record}


@dataclass(frozen=True)
class ConvertJob:
    """What to convert, and the bundle to make of it, if one is asked for."""

    conversion: ConversionJob
    bundle: BundleJob | None

    @property
    def may_be_finished(self) -> bool:
        """Whether the output looks like one that this very job made, and was killed after."""
        from rlinf_isaac.checkpoint.convert import may_be_finished
        from rlinf_isaac.checkpoint.foreign.make_plan import may_be_made

        if self.bundle is None:
            return may_be_finished(self.conversion)
        return may_be_made(self.conversion.output, self.bundle.config, self.bundle.source.norm_stats.read())


def check(findings: Findings, **settings: Any) -> ConvertJob | None:
    """Check these options, all of them; the job, unless `findings` has errors."""
    from rlinf_isaac.checkpoint.convert import Options, expansion, output_exists, parse_size, prepare

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
    if not wants_bundle:
        findings.add(check_overrides("convert", options.to_overrides({}, {}, settings["overrides"])))
    conversion = bundle = None
    with findings.collect():
        record = "bundle.json" if wants_bundle else None
        place = {"overwrite": settings["force"], "record": record, "resume": True}
        conversion = prepare(settings["input"], settings["output"], chosen, **place)
        findings.add(filter(None, [expansion(conversion.plan)]))
    if wants_bundle:
        with findings.collect():
            bundle = _check_bundle(findings, chosen, **settings)
    if conversion is None or (wants_bundle and bundle is None):
        return None
    job = ConvertJob(conversion, bundle)
    if conversion.there and not job.may_be_finished:
        findings.add([output_exists(conversion.output)])
    return None if findings.errors else job


def _check_bundle(findings: Findings, chosen: Options, **settings: Any) -> BundleJob | None:
    from rlinf_isaac.checkpoint.foreign.configured import configure
    from rlinf_isaac.checkpoint.foreign.said import Said
    from rlinf_isaac.checkpoint.foreign.sources import find_source
    from rlinf_isaac.checkpoint.steps import step_of
    from rlinf_isaac.data.norm_stats import from_json
    from rlinf_isaac.data.norm_stats.keys import CHOICE
    from rlinf_isaac.preflight import check_config, check_norm_stats

    if "none" in (settings["norm_stats"], settings["preset"]):
        cause = "--norm-stats and --preset make a bundle together, and only one of them is given"
        findings.add([Problem("bundle-options", cause, "pass both, or neither for plain safetensors")])
        return None
    source, configured = None, None
    with findings.collect():
        source = find_source(settings["input"], norm_stats=Path(settings["norm_stats"]))
    with findings.collect():
        overrides = options.to_overrides({}, {}, settings["overrides"])
        findings.add(check_overrides("convert --preset", overrides))
        configured = configure(settings["preset"], Said() if source is None else source.said, overrides)
        findings.add(check_config(configured.config, "convert --preset", overrides))
    step = step_of(Path(settings["output"]).name)
    step = source.step if step is None and source is not None else step
    if step is None:
        cause = f"neither {settings['output']} nor the checkpoint's directory says an optimiser step"
        findings.add([Problem("no-step", cause, f"name the output after it: --output {settings['output']}/30000")])
    if source is None or configured is None or step is None:
        return None
    config = configured.config
    findings.add(remarks(source))
    data = source.norm_stats.read()
    try:
        from_json(data, str(source.norm_stats.path))
    except NormStatsError as error:
        cure = f"use `rlinf-isaac bundle make`, and {CHOICE}"
        raise NormStatsError([Problem(each.code, each.cause, cure) for each in error.problems]) from error
    findings.add(check_norm_stats(data, source.norm_stats.path, config))
    from rlinf_isaac.checkpoint.foreign.make import plan_conversion

    for line in configured.lines:
        stdout.print(f"said         {line}")
    conversion = plan_conversion(source, config.model, chosen)
    return BundleJob(source, config, step, conversion, configured.stated, configured.assumed)


def show_plan(job: ConvertJob) -> None:
    """Print what will be written, from what."""
    from mlflow_project.cli._plan_view import show

    show(job.conversion)
    if job.bundle is not None:
        weights = job.bundle.conversion
        for text in (weights.plan.summary, ", ".join(weights.excluded) and f"excluded {', '.join(weights.excluded)}"):
            if text:
                stdout.print(f"bundle       {text}")


def run(job: ConvertJob, *, verify: bool, hash_source: bool) -> None:
    """Convert as one tracked run, with the plan and the manifest as artifacts.

    What the same command has written, and was killed before all of it was recorded, is recorded as it is.

    Raises:
        InvalidJob: the output is of another source, or of other options.
    """
    from mlflow_project.lineage.provenance import provenance_tags
    from mlflow_project.tracking.progress import ProgressView
    from mlflow_project.tracking.runs import tracked_run

    conversion = job.conversion
    name = f"convert {conversion.output.name}"
    with ProgressView() as view:
        there = _find_there(job, verify, hash_source, view.show) if conversion.there else None
    with tracked_run("convert", output=JOURNAL, name=name, tags=provenance_tags(PROJECT)) as tracked:
        with ProgressView() as view:
            if job.bundle is None:
                _convert(tracked, conversion, there, verify, hash_source, view.show)
            else:
                _make_bundle(tracked, job.bundle, conversion, there)
        tracked.recorder.params({"format": conversion.stored.weights.format}, prefix="source")
        tracked.recorder.params({**asdict(conversion.options)}, prefix="options")
        tracked.recorder.metrics(
            {"convert/bytes": conversion.plan.total_size, "convert/tensors": len(conversion.plan.tensors)}
        )


def _find_there(job: ConvertJob, verify: bool, hash_source: bool, show: Callable[[Progress], None]) -> Any:
    """The bundle, or the record of the conversion, that is at the output already, whole and of this very job."""
    from rlinf_isaac.checkpoint.convert import find_finished, output_exists

    output = job.conversion.output
    if job.bundle is None:
        there: Any = find_finished(job.conversion, verify=verify, hash_source=hash_source, progress=show)
    else:
        from rlinf_isaac.checkpoint.foreign.make import find_made

        there = find_made(job.bundle.conversion, job.bundle.config, output, **job.bundle.parts)
    if there is None:
        raise InvalidJob([output_exists(output)])
    stdout.print(f"there        {output.absolute()}, whole: this command has made it before")
    return there


def _convert(
    tracked: TrackedRun,
    conversion: ConversionJob,
    there: dict[str, Any] | None,
    verify: bool,
    hash_source: bool,
    show: Callable[[Progress], None],
) -> None:
    from rlinf_isaac.checkpoint.convert import run as convert

    record = there or convert(conversion, verify=verify, hash_source=hash_source, progress=show)
    tracked.recorder.artifact(conversion.output / "conversion.json", "conversion.json")
    stdout.print(f"\nconverted    {conversion.output.absolute()}")
    for file, digest in record["output"].items():
        stdout.print(f"             {file} sha256 {digest}")
    show_read({file: entry["sha256"] for file, entry in record["source"]["files"].items()})
    stdout.print(f"verified     {'every tensor is that of the source' if record['verified'] else 'not asked for'}")


def _make_bundle(tracked: TrackedRun, bundle: BundleJob, conversion: ConversionJob, there: Bundle | None) -> None:
    from mlflow_project.recorders.logged_checkpoints import bundle_tags, log_bundle_files, log_model, model_name
    from rlinf_isaac.checkpoint.foreign.make import make_bundle

    made = there or make_bundle(
        bundle.conversion, bundle.config, conversion.output, **bundle.parts, overwrite=conversion.overwrite
    )
    tracked.recorder.tags(bundle_tags(made))
    log_model(tracked.recorder, made, model_name(bundle.config.preset, pi05=bundle.config.model.pi05), "output")
    log_bundle_files(tracked.recorder, made, f"checkpoints/{made.step}", "none")
    stdout.print(f"\nbundle       {made.path.absolute()} sha256 {made.digest}")
