"""The directory of one run on RLinf."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

CONFIG_FILE = "config.yaml"


def new_run(output: Path) -> Path:
    """A name below ``<output>/rlinf`` that nothing has yet, with the time in it."""
    return output / "rlinf" / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def freeze(config: DictConfig, directory: Path) -> Path:
    """Create the run's directory with its resolved config, which is all that RLinf is told; returns the file."""
    directory.mkdir(parents=True)
    OmegaConf.save(config, directory / CONFIG_FILE)
    return directory / CONFIG_FILE
