"""RLinf's workers for a sweep: they can load another checkpoint and another list of episodes without a restart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlinf.envs.utils import get_env_attr
from rlinf.workers.env.env_worker import EnvWorker
from rlinf.workers.rollout.hf.huggingface_worker import MultiStepRolloutWorker

from rlinf_isaac.engines.rlinf.worker.cpu import OnAnyDevice
from rlinf_isaac.pi0.precision import to_precision


class Simulators(OnAnyDevice, EnvWorker):
    """RLinf's env worker for `RlinfStackCube`."""

    def describe(self) -> dict[str, Any]:
        """``identity`` of the environments, and the number of ``slots``."""
        found = [get_env_attr(env, "describe")() for env in self.eval_env_list or self.env_list]
        return {"identity": found[0]["identity"], "slots": sum(each["slots"] for each in found)}

    def begin(self, play: Mapping[str, Any]) -> int:
        """Assign the episodes of the next evaluation to the slots; returns the number of rounds that they take."""
        return max(get_env_attr(env, "begin")(play) for env in self.eval_env_list)

    def set_rounds(self, rounds: int) -> None:
        """Set the number of rollout epochs of the next evaluation."""
        self.eval_rollout_epoch = rounds


class Policies(OnAnyDevice, MultiStepRolloutWorker):
    """RLinf's rollout worker for `RlinfPi0`."""

    loaded: tuple[str, str | None] | None = None

    def predict(self, env_obs: dict[str, Any], mode: str = "train") -> Any:
        """Set the model's mode before the prediction, because RLinf passes the mode only to its own models."""
        self.hf_model.mode = mode
        return super().predict(env_obs, mode)

    def begin(self, play: Mapping[str, Any], rounds: int) -> None:
        """Load the checkpoint of the next evaluation in place, and set its number of rollout epochs."""
        self.eval_rollout_epoch = rounds
        wanted = (play["bundle"], play["norm_stats"])
        if wanted != self.loaded:
            stats = None if play["norm_stats"] is None else Path(play["norm_stats"])
            self.hf_model.load_bundle(Path(play["bundle"]), stats)
            to_precision(self.hf_model, self.hf_model.job.compute.dtype)
            self.loaded = wanted
