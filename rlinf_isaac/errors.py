"""One tree of exceptions. Every message names the file or key at fault, and the cure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class RlinfIsaacError(Exception):
    """Base of all errors this project raises on purpose. Exit code 1: the work itself failed."""

    exit_code = 1


@dataclass(frozen=True)
class Problem:
    """One thing that keeps a job from starting.

    Attributes:
        code: stable, kebab-case, for tests and searching (``unknown-preset``).
        cause: what is wrong, naming the file, key or value.
        cure: what the user can do about it.
    """

    code: str
    cause: str
    cure: str

    def __str__(self) -> str:
        return f"[{self.code}] {self.cause}\n    -> {self.cure}"


class InvalidJob(RlinfIsaacError):
    """The job cannot start. Carries every problem found, not only the first. Exit code 2."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    @classmethod
    def of(cls, code: str, cause: str, cure: str) -> InvalidJob:
        """An `InvalidJob` with a single problem."""
        return cls([Problem(code, cause, cure)])


class DatasetError(RlinfIsaacError):
    """A LeRobot dataset is missing, damaged, or not of the expected form."""

    exit_code = 2


class NormStatsError(RlinfIsaacError):
    """Normalisation statistics are missing, mis-keyed, of the wrong size, or of another run."""

    exit_code = 2


class BundleError(RlinfIsaacError):
    """A checkpoint bundle is incomplete, or its bytes are not the ones its manifest names."""

    exit_code = 2


class WeightsError(BundleError):
    """Checkpoint tensors and model parameters do not match one to one."""


class TokenizerError(RlinfIsaacError):
    """The tokenizer is missing, or is not the one the checkpoint was trained with."""

    exit_code = 2


class SimulatorError(RlinfIsaacError):
    """A simulator cannot be built or rendered the way the job asks for."""

    exit_code = 2


class VideoError(RlinfIsaacError):
    """A video could not be encoded, or the encoded file does not hold what was recorded."""


class TrainingDiverged(RlinfIsaacError):
    """A loss or gradient became NaN or infinite. The last good checkpoint is kept."""
