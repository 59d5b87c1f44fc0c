"""Infers the config, step, asset id, norm stats and name of a checkpoint that becomes a bundle."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.ground.errors import InvalidJob, NormStatsError, Problem
from rlinf_isaac.jobs import Say, options

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.foreign.configured import Configured
    from rlinf_isaac.checkpoint.foreign.sources import Source

# Names of directories between that of an experiment and those of its steps. They do not name the experiment.
_NAMELESS = ("checkpoints", "actor", "model", "pretrained_model", "last", "")
_SHOWN = 20


def find_config(
    source: Source,
    preset: str,
    exclude: tuple[str, ...],
    overrides: list[str],
    assumptions: Mapping[str, Any],
    known: Collection[str],
    say: Say,
) -> Configured:
    """The job that trained the checkpoint, as far as it is known.

    A bundle records its job. For other checkpoints the shapes decide the architecture, and their files state some of
    the other settings.
    """
    from rlinf_isaac.checkpoint.bundle import read_bundle
    from rlinf_isaac.checkpoint.foreign.configured import configure

    if preset == options.AUTO and source.kind == "bundle":
        return configure(read_bundle(source.path, verify=False).job, source.said, overrides, assumptions, known)
    chosen = _fitting_preset(source, exclude) if preset == options.AUTO else preset
    say(f"preset       {chosen}")
    configured = configure(chosen, source.said, overrides, assumptions, known)
    for title, lines in (("said", configured.lines), ("assumed", _spelled(configured.assumed))):
        for line in lines:
            say(f"{title:<13}{line}")
    return configured


def _spelled(values: Mapping[str, Any]) -> list[str]:
    from rlinf_isaac.checkpoint.facts import spell

    return [f"{name} {spell(value)}" for name, value in values.items()]


def with_asset_id(config: JobConfig, asset_id: str, source: Source, say: Say) -> JobConfig:
    """The config with this asset id. ``auto`` means that of the norm stats or, if they have none, of the config."""
    from rlinf_isaac.checkpoint.write_bundle import check_asset_id

    if asset_id == options.AUTO:
        asset_id = source.asset_id or config.policy.asset_id
    say(f"asset id     {asset_id}")
    check_asset_id(asset_id)
    return replace(config, policy=replace(config.policy, asset_id=asset_id))


def remarks(source: Source) -> list[Problem]:
    """Warnings with the remarks about the checkpoint's own files. The bundle records them, too."""
    cure = "nothing needs to be done if this is intended; the bundle records it (config.json: source.said.remarks)"
    return [Problem("checkpoint-remark", remark, cure, level="warning") for remark in source.said.remarks]


def _fitting_preset(source: Source, exclude: tuple[str, ...]) -> str:
    from rlinf_isaac.checkpoint.foreign.make import AS_STORED, fitting_presets

    fitting = fitting_presets(source, replace(AS_STORED, exclude=exclude))
    if len(fitting) != 1:
        cause = f"the shapes in {source.path} fit {' and '.join(fitting) or 'none of the presets'}"
        cure = "name the closest preset with --preset to see which tensors differ, then use --overrides or --exclude"
        raise InvalidJob.of("unknown-architecture", cause, cure)
    return fitting[0]


def read_norm_stats(source: Source, mode: str) -> tuple[bytes, dict[str, Any]]:
    """The bytes of the norm stats with canonical keys, and the JSON-ready record of their origin."""
    from rlinf_isaac.checkpoint.find_weights import name_within
    from rlinf_isaac.data.norm_stats import from_json
    from rlinf_isaac.data.norm_stats.keys import CHOICE, canonicalise

    file = source.norm_stats.path
    data = source.norm_stats.read()
    origin = {"source": name_within(source.path, file), "source_sha256": source.norm_stats.sha256}
    origin |= source.norm_stats.record
    if mode != "none":
        result = canonicalise(data, mode, str(file))  # type: ignore[arg-type]  # click has checked the choice
        return result.data, result.record | origin
    try:
        from_json(data, str(file))
    except NormStatsError as error:
        mended = [replace(each, cure=CHOICE) if each.code == "norm-stats-keys" else each for each in error.problems]
        raise NormStatsError(mended) from error
    return data, {"mode": mode, **origin}


def sliced_dims(data: bytes, config: JobConfig) -> dict[str, Any]:
    """A record of the keys that have more dims than the policy, which uses the first ones; empty if there are none."""
    from rlinf_isaac.data.norm_stats import from_json
    from rlinf_isaac.preflight.norm_stats import policy_of

    try:
        stats = from_json(data)
    except NormStatsError:  # the check of the file reports this error
        return {}
    used = {key: len(names) for key, names in policy_of(config)["names"].items()}
    stored = {key: getattr(stats, key).dim for key in used}
    longer = {key: {"stored": stored[key], "used": used[key]} for key in used if stored[key] > used[key]}
    return {"dims": longer} if longer else {}


def find_step(text: str, source: Source, say: Say) -> int:
    """The optimiser step that ``--step`` names. ``auto`` means the step in the checkpoint's name.

    Raises:
        InvalidJob: the option is not a step, or the name has none.
    """
    if text == options.AUTO:
        if source.step is None:
            cause = f"the name of {source.path} has no optimiser step"
            cure = (
                "pass the step at which it was saved, --step N; 0 for a published model or base whose step is unknown"
            )
            raise InvalidJob.of("no-step", cause, cure)
        number = source.step
    elif text.isascii() and text.isdecimal():
        number = int(text)
    else:
        raise InvalidJob.of("bad-step", f"--step {text} is not a non-negative integer", "pass one, such as 30000")
    say(f"step         {number}")
    return number


def run_name(name: str, path: Path) -> str:
    """The name of the bundle's directory: `name`, or for ``auto`` that of the checkpoint's experiment.

    The experiment is the nearest directory whose name is neither a step nor in `_NAMELESS`.
    """
    from rlinf_isaac.checkpoint.steps import step_of

    if name != options.AUTO:
        if Path(name).name != name:
            raise InvalidJob.of("bad-name", f"--name {name} is not the name of a directory", "leave out its path")
        return name
    names = [folder.name for folder in (path, *path.parents)]
    return next((name for name in names if name not in _NAMELESS and step_of(name) is None), "checkpoint")


def local_source(source: Path, say: Say) -> tuple[Path, Path, str]:
    """The checkpoint's local directory, the path that gives its name, and its URI with commit if it is on the hub."""
    from rlinf_isaac.checkpoint.foreign import hub

    if not hub.is_hub(source):
        return source, source, ""
    location = hub.parse(source)
    fetched = hub.fetch(source)
    say(f"fetched      {fetched.uri}")
    return fetched.path, Path(location.repo, location.folder), fetched.uri


def path_or_none(text: str) -> Path | None:
    """The path that an option names; None for ``auto``."""
    return None if text == options.AUTO else Path(text)


def say_source(source: Source, say: Say) -> None:
    """Tell the user which files were found. Digests of weights take long, and follow when the bundle is made."""
    lines = [f"checkpoint   {source.path} ({source.kind})"]
    weights = source.weights
    if weights.format == "jax":
        lines.append(f"weights      {weights.directory} ({len(weights.files)} files of {weights.size} bytes)")
    else:
        lines += [f"weights      {file} ({file.stat().st_size} bytes)" for file in weights.files]
    lines += [f"norm stats   {place} sha256 {source.norm_stats.sha256}" for place in source.norm_stats.places]
    for line in [*lines, *(f"             {note}" for note in source.notes)]:
        say(line)


def say_read(digests: Mapping[str, str | None], say: Say) -> None:
    """Tell the user the sha256 of the files that were read and hashed, for at most the first `_SHOWN` of them."""
    hashed = [(name, digest) for name, digest in digests.items() if digest]
    for name, digest in hashed[:_SHOWN]:
        say(f"read         {name} sha256 {digest}")
    if len(hashed) > _SHOWN:
        say(f"read         and {len(hashed) - _SHOWN} more files")
