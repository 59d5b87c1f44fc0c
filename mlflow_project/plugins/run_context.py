"""An MLflow run context: adds hardware and version tags to runs that code inside a verb creates with MLflow's own API.

MLflow calls it for each new run of every script if this package is installed. It adds tags only in the process of a
running verb and in the processes that the verb started. The verb's own runs have these tags and more
(`lineage.provenance_tags`).
"""

from __future__ import annotations

import os
from functools import cache

from mlflow.tracking.context.abstract_context import RunContextProvider

from mlflow_project.lineage.provenance import gpu_tags
from mlflow_project.tracking.mlflow_environment import VERB
from mlflow_project.vocabulary import VERSION_TAG
from rlinf_isaac.ground.probe import installed_version

VERSIONS_OF = ("rlinf", "rlinf-openpi", "openpi", "isaaclab", "torch")


class PostTrainingContext(RunContextProvider):
    """Adds the GPU and driver, and the versions of RLinf, OpenPI, IsaacLab and torch."""

    def in_context(self) -> bool:
        """Whether this process is part of a running verb."""
        return VERB in os.environ

    def tags(self) -> dict[str, str]:
        """``gpu``, ``gpu.driver`` and ``version.<package>``; missing GPUs and packages are left out."""
        return dict(_tags())


@cache
def _tags() -> dict[str, str]:
    versions = {f"{VERSION_TAG}{name}": version for name in VERSIONS_OF if (version := installed_version(name))}
    return versions | gpu_tags()
