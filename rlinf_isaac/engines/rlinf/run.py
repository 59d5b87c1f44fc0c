"""Creates the directory of a run on RLinf."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

CONFIG_FILE = "config.yaml"


def new_run(output: Path) -> Path:
    """A new, unique path below ``<output>/rlinf``, with the time in its name."""
    return output / "rlinf" / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def freeze(config: DictConfig, directory: Path) -> Path:
    """Create the run's directory and write the resolved config, RLinf's only input; returns the file."""
    directory.mkdir(parents=True)
    OmegaConf.save(config, directory / CONFIG_FILE)
    return directory / CONFIG_FILE
