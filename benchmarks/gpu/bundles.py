"""A full-size checkpoint bundle: written from the GPU, verified, loaded back to it; against `cp` of its weights."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from measure import full_model, seconds
from stages import Row

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.description import foreign_config
from rlinf_isaac.checkpoint.weights import load_weights
from rlinf_isaac.checkpoint.write_bundle import write_bundle
from rlinf_isaac.config import load_config
from rlinf_isaac.engines.policies import empty_model
from rlinf_isaac.ground.digest import bytes_digest


def rows() -> Iterator[Row]:
    """Seconds and GB/s. The file stays in the page cache; what is written is on disk when the clock stops."""
    config = load_config("pi0", ["policy.tokenizer=byte", "model.action_horizon=50"])
    model = full_model("pi0")
    stats = {"mean": [0.0] * 8, "std": [1.0] * 8, "q01": [-1.0] * 8, "q99": [1.0] * 8}
    norm_stats = json.dumps({"norm_stats": {"state": stats, "actions": stats}}).encode()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bundle"
        write = lambda: write_bundle(  # noqa: E731
            path,
            state_dict=model.state_dict(),
            config=foreign_config(config),
            norm_stats=norm_stats,
            asset_id="stack_cube",
            step=1,
            lineage={"config": None, "dataset": None, "norm_stats": bytes_digest(norm_stats), "parent": None},
        )
        spent = seconds(write)
        weights = path / "model.safetensors"
        size = weights.stat().st_size
        yield _speed("bundle, written from the GPU, hashed and synced", spent, size)
        yield _speed("bundle, verified", seconds(lambda: read_bundle(path)), size)
        bundle = read_bundle(path)
        loaded = empty_model(config)
        yield _speed("bundle, loaded to the GPU (verified before)", seconds(lambda: load_weights(bundle, loaded)), size)
        same = all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
        yield Row("bundle, every parameter as it was", float(same), "yes")
        copy = f"cp {weights} {directory}/copy && sync {directory}/copy"
        yield _speed("cp of the weights and sync", seconds(lambda: _shell(copy)), size)


def _speed(what: str, spent: float, size: int) -> Row:
    return Row(what, spent, "s", f"{size / spent / 1e9:.2f} GB/s, {size / 1e9:.1f} GB")


def _shell(command: str) -> None:
    subprocess.run(command, shell=True, check=True)
