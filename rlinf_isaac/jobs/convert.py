"""Checks the options of the job that converts a checkpoint and, if asked for, makes a bundle from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlinf_isaac.config.reads import check_overrides
from rlinf_isaac.ground.errors import NormStatsError, Problem
from rlinf_isaac.jobs import Say, options, silent
from rlinf_isaac.jobs.bundle_source import remarks

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.convert import ConversionJob, Options
    from rlinf_isaac.checkpoint.foreign.bundle_content import BundleContent
    from rlinf_isaac.checkpoint.foreign.make import Conversion
    from rlinf_isaac.preflight.findings import Findings


@dataclass(frozen=True)
class BundleJob:
    """A bundle to make from the converted checkpoint.

    Attributes:
        conversion: the plan of how the weights fill the model.
        content: everything that the bundle holds besides its weights.
    """

    conversion: Conversion
    content: BundleContent


@dataclass(frozen=True)
class ConvertJob:
    """A conversion, and the bundle to make from it if one is asked for."""

    conversion: ConversionJob
    bundle: BundleJob | None

    @property
    def may_be_finished(self) -> bool:
        """Whether the output may be the result of this very job, which an earlier command has finished."""
        from rlinf_isaac.checkpoint.convert import may_be_finished
        from rlinf_isaac.checkpoint.foreign.make_plan import may_be_made

        if self.bundle is None:
            return may_be_finished(self.conversion)
        content = self.bundle.content
        return may_be_made(self.conversion.output, content.config, content.norm_stats)


def check(findings: Findings, *, say: Say = silent, **settings: Any) -> ConvertJob | None:
    """The job of these options, or None if `findings` has errors."""
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
            bundle = _check_bundle(findings, chosen, say, **settings)
    if conversion is None or (wants_bundle and bundle is None):
        return None
    job = ConvertJob(conversion, bundle)
    if conversion.there and not job.may_be_finished:
        findings.add([output_exists(conversion.output)])
    return None if findings.errors else job


def _check_bundle(findings: Findings, chosen: Options, say: Say, **settings: Any) -> BundleJob | None:
    from rlinf_isaac.checkpoint.foreign.bundle_content import BundleContent
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
        cause = f"neither {settings['output']} nor the checkpoint's directory has an optimiser step in its name"
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
        say(f"said         {line}")
    stats = source.norm_stats
    content = BundleContent(
        config=config,
        step=step,
        asset_id=config.policy.asset_id,
        norm_stats=data,
        norm_stats_record={"mode": "none", "source": stats.path.name, "source_sha256": stats.sha256},
        stated=configured.stated,
        assumed=configured.assumed,
    )
    return BundleJob(plan_conversion(source, config.model, chosen), content)
