"""All attacks on the command line, some seven hundred. `test_hostile_cli.py` puts them through it."""

from __future__ import annotations

from faults.attack import Attack
from faults.hostile_checkpoints import CHECKPOINTS
from faults.hostile_configs import CONFIGS
from faults.hostile_datasets import DATASETS
from faults.hostile_json import DOCUMENTS, PLACES
from faults.hostile_options import OPTIONS

ATTACKS: tuple[Attack, ...] = (*DOCUMENTS, *PLACES, *DATASETS, *CHECKPOINTS, *CONFIGS, *OPTIONS)
