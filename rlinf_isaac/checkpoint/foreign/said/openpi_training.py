"""``metadata.pt`` of OpenPI's train_pytorch.py: {global_step, config (the TrainConfig as nested dicts), timestamp}.

It is a pickle, and may name any class of OpenPI. Here every name stands for an inert record, and nothing is imported.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from rlinf_isaac.checkpoint.convert import unpickle
from rlinf_isaac.checkpoint.convert.archive import Window, read_records
from rlinf_isaac.checkpoint.convert.torch_file import record_content
from rlinf_isaac.checkpoint.foreign.said.entries import MAX_BYTES, Entries
from rlinf_isaac.checkpoint.foreign.said.openpi import read_variants
from rlinf_isaac.checkpoint.foreign.said.statements import Statements
from rlinf_isaac.ground.errors import Problem

METADATA = "metadata.pt"


def read_openpi_training(file: Path, found: Statements) -> None:
    """Enter what the config of a training says of its model. A file without one, of another program, says nothing."""
    try:
        content = _content(file)
    except (OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        cause = f"{file} is no whole file of torch.save: {error}"
        cure = "copy it again from where the checkpoint was made, or move it away: then nothing is taken from it"
        found.problems.append(Problem("checkpoint-config-damaged", cause, cure))
        return
    config = content.get("config") if isinstance(content, dict) else None
    model = config.get("model") if isinstance(config, dict) else None
    if not isinstance(model, dict) or "action_horizon" not in model:
        return
    place = f"{METADATA}: config.model"
    entries = Entries(place, model)
    for key in ("action_dim", "action_horizon", "max_token_len"):
        found.say(f"model.{key}", entries.count(key), f"{place}.{key}")
    for key in ("pi05", "discrete_state_input"):
        found.say(f"model.{key}", entries.flag(key), f"{place}.{key}")
    read_variants(entries, found)
    found.problems += entries.problems


def _content(file: Path) -> Any:
    """What is pickled, with inert records in place of everything but containers, numbers and texts."""
    with Window(file) as window:
        record = read_records(file, window)["data.pkl"]
        if record.size > MAX_BYTES:
            raise ValueError(f"its pickle has {record.size} bytes, more than any config")
        return unpickle.loads(record_content(window, record), inert=True)
