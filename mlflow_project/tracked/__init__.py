"""Jobs as tracked runs: each module runs the jobs of one kind, and records them in MLflow.

The verbs call these modules, and `main` calls most of them, one after the other. What a person should read while a job
runs goes line by line to `say`; what is to be shown at the end is returned.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

PROJECT = Path(__file__).resolve().parents[2]
"""The directory of this project, whose commit the runs record."""

UploadWeights = Literal["auto", "all", "none"]
