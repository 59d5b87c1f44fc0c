"""One tree of exceptions. Every message names the file or key at fault, and the cure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self


class RlinfIsaacError(Exception):
    """Base of all errors this project raises on purpose. Exit code 1: the work itself failed."""

    exit_code = 1


@dataclass(frozen=True)
class Problem:
    """One thing that keeps a job from starting, or that a person should know before it does.

    Attributes:
        code: stable, kebab-case, for tests and searching (``unknown-preset``). Once released it is never reused.
        cause: what is wrong, naming the file, key or value.
        cure: what the user can do about it.
        level: an ``error`` refuses the job, a ``warning`` is shown and the job goes on.
    """

    code: str
    cause: str
    cure: str
    level: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        return f"[{self.code}] {self.cause}\n    -> {self.cure}"


class InvalidJob(RlinfIsaacError):
    """The job cannot start. Carries every problem found, not only the first. Exit code 2."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[Self], tuple[Sequence[Problem]]]:
        return type(self), (self.problems,)  # from one process to another

    @classmethod
    def of(cls, code: str, cause: str, cure: str) -> Self:
        """An error of this class with a single problem."""
        return cls([Problem(code, cause, cure)])


class DatasetError(InvalidJob):
    """A LeRobot dataset is missing, damaged, or not of the expected form."""


class NormStatsError(InvalidJob):
    """Normalisation statistics are missing, mis-keyed, of the wrong size, or of another run."""


class BundleError(InvalidJob):
    """A checkpoint bundle is incomplete, or its bytes are not the ones its manifest names."""


class WeightsError(BundleError):
    """Checkpoint tensors and model parameters do not match one to one."""


class TokenizerError(InvalidJob):
    """The tokenizer is missing, or is not the one the checkpoint was trained with."""


class ObservationError(InvalidJob):
    """What a policy was asked about is not an observation it was trained on. Only that request is refused."""


class SimulatorError(InvalidJob):
    """A simulator cannot be built or rendered the way the job asks for."""


class SimulatorDied(RlinfIsaacError):
    """A simulator's process died, hung, or shows a state that it is not in. Episodes that ended before are kept."""


class VideoError(RlinfIsaacError):
    """A video could not be encoded, or the encoded file does not hold what was recorded."""


class ConversionFailed(RlinfIsaacError):
    """A checkpoint could not be written whole, or what was written is not what was read. Nothing of it is left."""


class TrainingDiverged(RlinfIsaacError):
    """A loss or gradient became NaN or infinite. The last good checkpoint is kept."""


class TrainingOutOfMemory(RlinfIsaacError):
    """The device cannot hold what a training step takes. The last checkpoint is kept."""


class EngineFailed(RlinfIsaacError):
    """RLinf, Ray or one of their workers failed, died or hung. What was announced stays; nothing is left running."""


class PromotionRefused(RlinfIsaacError):
    """A checkpoint may not become champion, or nothing can be rolled back. Aliases are as others left them. Exit code
    3: nothing failed, the answer is no."""

    exit_code = 3
