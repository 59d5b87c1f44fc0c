"""Reads what a foreign checkpoint's own files say about its training. Nothing is executed, and torch is not needed.

    OpenPI    config.json of its converter, metadata.pt of its training; its code decides the normalisation and the
              tokenizer
    lerobot   config.json of a policy, policy_preprocessor.json
    RLinf     tensorboard/config.yaml of the run around the checkpoint; config.json of its own models' converter
    ours      config.json of a bundle

No defaults are filled in for settings that are not in these files. Dtypes (``precision``, ``dtype``) are not read from
them, because the tensors have their dtypes, and a job chooses its own precision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from rlinf_isaac.checkpoint.foreign.said.entries import read_object
from rlinf_isaac.checkpoint.foreign.said.lerobot import PREPROCESSOR, is_lerobot, read_lerobot
from rlinf_isaac.checkpoint.foreign.said.openpi import is_openpi, read_openpi, say_rules
from rlinf_isaac.checkpoint.foreign.said.openpi_rlinf import is_openpi_rlinf_config, read_openpi_rlinf
from rlinf_isaac.checkpoint.foreign.said.openpi_training import METADATA, read_openpi_training
from rlinf_isaac.checkpoint.foreign.said.ours import is_ours, read_ours
from rlinf_isaac.checkpoint.foreign.said.rlinf import load_run_config, read_rlinf, run_config_of
from rlinf_isaac.checkpoint.foreign.said.statements import Said, Statements
from rlinf_isaac.checkpoint.header import TensorInfo
from rlinf_isaac.ground.errors import BundleError, Problem

__all__ = ["Said", "contradictions", "read_said"]

CONFIG_FILE = "config.json"
_SHOWN = 6
_EXPERT = "paligemma_with_expert.gemma_expert.model."
_VLM = "paligemma_with_expert.paligemma.model.language_model."


def read_said(root: Path, *, openpi: bool = False) -> Said:
    """Read what the files in and around the checkpoint at `root` say about its training.

    Args:
        root: directory of the checkpoint.
        openpi: whether OpenPI or RLinf wrote it, so that OpenPI's rules apply unless a file says otherwise.

    Raises:
        BundleError: with all problems: a file is damaged, needs something that the policy here does not have, or
            contradicts another file.
    """
    statements = Statements()
    values = read_object(root / CONFIG_FILE)
    if values is None:
        pass
    elif is_ours(values):
        read_ours(values, CONFIG_FILE, statements)
        openpi = False
    elif is_lerobot(values):
        read_lerobot(values, read_object(root / PREPROCESSOR), CONFIG_FILE, statements)
        statements.writer, openpi = "lerobot", False
    elif is_openpi_rlinf_config(values):
        read_openpi_rlinf(values, CONFIG_FILE, statements)
        openpi = True
    elif is_openpi(values):
        read_openpi(values, CONFIG_FILE, statements)
        statements.writer, openpi = "openpi", True
    else:
        shown = ", ".join(ascii(key)[1:-1] for key in list(values)[:_SHOWN])
        statements.remarks.append(f"{root / CONFIG_FILE} (with {shown or 'nothing'}) is not a config of a known kind")
    if (root / METADATA).is_file() and not (values and is_ours(values)):
        read_openpi_training(root / METADATA, statements)
    if (run := run_config_of(root)) is not None:
        openpi |= read_rlinf(load_run_config(run), run, statements)
    if openpi:
        say_rules(statements)
    if statements.problems:
        raise BundleError(statements.problems)
    return statements.result()


def contradictions(said: Said, stored: Mapping[str, TensorInfo], source: str) -> list[Problem]:
    """Compare the shapes of stored tensors with what the files say. There is at most one problem per place in a file.

    Args:
        said: what the files say.
        stored: name without wrappers -> dtype and shape.
        source: name of the weights in messages.
    """
    problems: dict[str, Problem] = {}
    for key, tensor, shown in _evidence(stored):
        if key in said.values and said.values[key] != shown:
            place = said.places[key]
            value = _spell(said.values[key])
            cause = f"{place} says {key}={value}, but by {tensor} in {source} it is {_spell(shown)}"
            cure = (
                f"name the weights that {place.partition(':')[0]} belongs to: --weights FILE; or, if it belongs to"
                " other weights, move it away: then nothing is taken from it"
            )
            problems.setdefault(place, Problem("checkpoint-config-contradiction", cause, cure))
    return list(problems.values())


def _evidence(stored: Mapping[str, TensorInfo]) -> Iterator[tuple[str, str, object]]:
    """Yields (config key, name of the tensor whose shape or presence shows its value, the value)."""
    for name, pi05 in (("time_mlp_in.weight", True), ("state_proj.weight", False)):
        if name in stored:
            yield "model.pi05", name, pi05
    for key, name, axis in (
        ("model.action_dim", "action_in_proj.weight", 1),
        ("model.action_dim", "state_proj.weight", 1),
        ("model.expert.width", "action_in_proj.weight", 0),
        ("model.vlm.width", f"{_VLM}norm.weight", 0),
        ("model.vlm.mlp_dim", f"{_VLM}layers.0.mlp.gate_proj.weight", 0),
        ("model.expert.mlp_dim", f"{_EXPERT}layers.0.mlp.gate_proj.weight", 0),
    ):
        if name in stored and len(stored[name].shape) > axis:
            yield key, name, stored[name].shape[axis]
    for key, prefix in (("model.vlm.depth", _VLM), ("model.expert.depth", _EXPERT)):
        layers = {
            name.removeprefix(f"{prefix}layers.").partition(".")[0]
            for name in stored
            if name.startswith(f"{prefix}layers.")
        }
        if layers:
            yield key, f"{prefix}layers", len(layers)


def _spell(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
