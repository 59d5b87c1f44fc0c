"""A run context: every run that is created where this package is installed says on what it ran.

MLflow asks it for each new run, of whatever script; the verbs of this project record the same and more by themselves.
"""

from __future__ import annotations

from functools import cache

from mlflow.tracking.context.abstract_context import RunContextProvider

from mlflow_project.lineage.provenance import gpu_tags
from mlflow_project.vocabulary import VERSION_TAG
from rlinf_isaac.ground.probe import installed_version

VERSIONS_OF = ("rlinf", "rlinf-openpi", "openpi", "isaaclab", "torch")


class PostTrainingContext(RunContextProvider):
    """GPU and driver, and the versions of RLinf, OpenPI, IsaacLab and torch."""

    def in_context(self) -> bool:
        """Always."""
        return True

    def tags(self) -> dict[str, str]:
        """``gpu``, ``gpu.driver`` and ``version.<package>``; what is not there is left out."""
        return dict(_tags())


@cache
def _tags() -> dict[str, str]:
    versions = {f"{VERSION_TAG}{name}": version for name in VERSIONS_OF if (version := installed_version(name))}
    return versions | gpu_tags()
