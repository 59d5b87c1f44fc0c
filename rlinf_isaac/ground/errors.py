"""The exceptions of this project. Every message names the wrong file or key, and a cure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self


class RlinfIsaacError(Exception):
    """Base class of all errors that this project raises on purpose. Exit code 1: the work failed."""

    exit_code = 1


@dataclass(frozen=True)
class Problem:
    """One problem that keeps a job from starting, or about which a person should be warned before it starts.

    Attributes:
        code: stable name in kebab-case, for tests and searching (``unknown-preset``). A released code is never reused.
        cause: what is wrong, with the name of the file, key or value.
        cure: what the user can do about it.
        level: with an ``error`` the job is refused; a ``warning`` is shown and the job continues.
    """

    code: str
    cause: str
    cure: str
    level: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        return f"[{self.code}] {self.cause}\n    -> {self.cure}"


class InvalidJob(RlinfIsaacError):
    """The job cannot start. The exception has all problems, not only the first. Exit code 2."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[Self], tuple[Sequence[Problem]]]:
        return type(self), (self.problems,)  # makes it picklable, to be raised in another process

    @classmethod
    def of(cls, code: str, cause: str, cure: str) -> Self:
        """An error of this class with a single problem."""
        return cls([Problem(code, cause, cure)])


class DatasetError(InvalidJob):
    """A LeRobot dataset is missing, damaged, or not of the expected form."""


class NormStatsError(InvalidJob):
    """Normalisation statistics are missing, have wrong keys or the wrong size, or belong to another run."""


class BundleError(InvalidJob):
    """A checkpoint bundle is incomplete, or its files differ from its manifest."""


class WeightsError(BundleError):
    """Checkpoint tensors and model parameters do not match one to one."""


class TokenizerError(InvalidJob):
    """The tokenizer is missing, or is not the one with which the checkpoint was trained."""


class ObservationError(InvalidJob):
    """An observation in a request does not have the form on which the policy was trained. Only this request fails."""


class SimulatorError(InvalidJob):
    """A simulator or its renderer cannot be built with the job's settings."""


class SimulatorDied(RlinfIsaacError):
    """A simulator's process died or hung, or its observation is stale. Episodes that ended earlier are kept."""


class VideoError(RlinfIsaacError):
    """A video could not be encoded or decoded, or the encoded file does not have the recorded frames."""


class ConversionFailed(RlinfIsaacError):
    """A converted checkpoint could not be written completely, or differs from its source. Its output was removed."""


class TrainingDiverged(RlinfIsaacError):
    """A loss or gradient became NaN or infinite. The last good checkpoint is kept."""


class TrainingOutOfMemory(RlinfIsaacError):
    """The device has too little memory for a training step. The last checkpoint is kept."""


class EngineFailed(RlinfIsaacError):
    """RLinf, Ray or one of their workers failed, died or hung. Announced results are kept, and all processes ended."""


class PromotionRefused(RlinfIsaacError):
    """A checkpoint may not become champion, or there is nothing to roll back to. Aliases are unchanged.

    Exit code 3: no error occurred, but the request was refused.
    """

    exit_code = 3
