"""How a checkpoint bundle appears in MLflow: a LoggedModel without bytes, tags, and artifacts of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mlflow_project.lineage.provenance import digest_tags
from mlflow_project.tracking.recorder import Recorder
from mlflow_project.vocabulary import ASSUMED_TAG, MODEL_TAG, NOT_KNOWN_TAG, URI_TAG
from rlinf_isaac.checkpoint import facts
from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.facts import spell
from rlinf_isaac.checkpoint.manifest import MANIFEST_FILE

UploadWeights = Literal["auto", "all", "none"]
SMALL_BYTES = 64 << 20
"""Weights up to this size are logged by ``auto``."""


def model_name(preset: str, *, pi05: bool) -> str:
    """``pi0-tiny``, ``pi05-...``: architecture and preset, or the preset alone where it is named after the former."""
    family = "pi05" if pi05 else "pi0"
    preset = Path(preset).stem
    return preset if preset.startswith(family) else f"{family}-{preset}"


def fine_tuning_words(trainable: str, base: str | None) -> str:
    """What tells a fine-tuning apart in the names of its runs: `` (lora from models/pi0_base)``, or nothing.

    Args:
        trainable: ``sft.trainable``.
        base: name of the base, None for random weights.
    """
    words = [trainable] * (trainable != "all") + ([] if base is None else [f"from {base}"])
    return f" ({' '.join(words)})" if words else ""


def bundle_tags(bundle: Bundle) -> dict[str, str]:
    """Lineage of a bundle: what it is and what it came from."""
    lineage = digest_tags(bundle.lineage) | digest_tags({"weights": bundle.weights_digest})
    return lineage | {MODEL_TAG: bundle.digest, URI_TAG: str(bundle.path.absolute())}


def training_tags(assumed: Mapping[str, Any], unsaid: Sequence[str]) -> dict[str, str]:
    """``assumed.<fact>`` for what a person says of a training, ``not_known`` for what nobody does (see `facts`)."""
    tags = {f"{ASSUMED_TAG}{fact}": spell(value) for fact, value in assumed.items()}
    return tags | ({NOT_KNOWN_TAG: ", ".join(unsaid)} if unsaid else {})


def log_model(recorder: Recorder, bundle: Bundle, name: str, role: Literal["input", "output"]) -> None:
    """Log the bundle as LoggedModel ``<name>-step-<step>``, output of a training run or input of an evaluation."""
    params = {"step": bundle.step, "parameters": bundle.manifest.parameters, "dtypes": dict(bundle.manifest.dtypes)}
    tags = bundle_tags(bundle) | training_tags(facts.assumed(bundle), facts.unsaid(bundle))
    recorder.model(bundle.digest, f"{name}-step-{bundle.step}", role, bundle.step, params=params, tags=tags)


def uploads_weights(size: int, upload_weights: UploadWeights) -> bool:
    """Whether weights of so many bytes become artifacts."""
    return upload_weights == "all" or (upload_weights == "auto" and size <= SMALL_BYTES)


def log_bundle_files(recorder: Recorder, bundle: Bundle, target: str, upload_weights: UploadWeights) -> None:
    """Log the bundle's files below `target`: always manifest, config and norm stats, weights by `upload_weights`."""
    files = bundle.manifest.files
    weights = {name for name in files if name.endswith(".safetensors")}
    with_weights = uploads_weights(sum(files[name].size for name in weights), upload_weights)
    for name in (MANIFEST_FILE, *sorted(files)):
        if with_weights or name not in weights:
            recorder.artifact(bundle.path / name, f"{target}/{name}")
