"""OpenPI's own training scripts at a size that fits into a test, recorded; run under an interpreter that has OpenPI:

    python tests/openpi_toy.py CHECKOUT/scripts/train.py toy --exp-name=first [--resume]

The scripts are those of a checkout, unchanged, and so are their loops, loaders and checkpoints. Smaller are the vision
tower and the Gemmas, and the data are OpenPI's fake ones, with norm stats in ``./assets/toy/arm``. With FAIL_AT, the
training fails at its report of that step.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openpi.training.config as configs
import openpi.transforms as transforms
import pytest
import wandb
from openpi.models import model as models
from openpi.models import pi0_config

SCRIPT = sys.argv[1] if len(sys.argv) > 1 else ""


class Pixels:
    """Makes bytes of the fake images, as cameras give them: only those does the PyTorch script turn round."""

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        images = {name: np.asarray(127.5 * (1 + np.asarray(each)), np.uint8) for name, each in data["image"].items()}
        return {**data, "image": images}


@dataclasses.dataclass(frozen=True)
class ToyData(configs.FakeDataConfig):
    """Fake frames that have an asset id."""

    def create(self, assets_dirs: Path, model_config: Any) -> Any:
        pixels = transforms.Group(inputs=[Pixels()])
        stats = self._load_norm_stats(configs.epath.Path(str(assets_dirs)), "arm")
        return dataclasses.replace(
            super().create(assets_dirs, model_config), asset_id="arm", norm_stats=stats, data_transforms=pixels
        )


def write_norm_stats() -> None:
    """Where OpenPI's ``compute_norm_stats.py`` writes them."""
    numbers = {"mean": [0.0] * 32, "std": [1.0] * 32, "q01": [-1.0] * 32, "q99": [1.0] * 32}
    file = Path("assets/toy/arm/norm_stats.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"norm_stats": {"state": numbers, "actions": numbers}}))


def small(patch: pytest.MonkeyPatch) -> None:
    """Give the models of both scripts a vision tower and Gemmas of a few layers."""
    if SCRIPT.endswith("pytorch.py"):
        from first_loss import writer_config, writer_overrides
        from openpi_jax_models import MU
        from openpi_models import size_openpi

        size_openpi(patch, writer_config(writer_overrides(False, *MU)).model)
        return
    from openpi.models import pi0

    tower = pi0._siglip.Module
    patch.setattr(pi0._siglip, "Module", lambda **given: tower(**{**given, "variant": "mu/14"}))


def main() -> None:
    write_norm_stats()
    patch = pytest.MonkeyPatch()
    small(patch)
    model = pi0_config.Pi0Config(
        paligemma_variant="dummy", action_expert_variant="dummy", action_horizon=4, max_token_len=8, dtype="float32"
    )
    toy = configs.TrainConfig(
        name="toy",
        exp_name="toy",
        model=model,
        data=ToyData(),
        batch_size=1,
        num_workers=0,
        num_train_steps=5,
        log_interval=1,
        save_interval=2,
        keep_period=2,
        ema_decay=None,
        pytorch_training_precision="float32",
    )
    configs._CONFIGS_DICT["toy"] = toy
    if at := os.environ.get("FAIL_AT"):
        log = wandb.sdk.lib.noop_run.NoopRun.log

        def failing(self: Any, data: Any, step: int | None = None, *args: Any, **kwargs: Any) -> Any:
            if step == int(at):
                raise RuntimeError("CUDA out of memory")
            return log(self, data, step, *args, **kwargs)

        wandb.sdk.lib.noop_run.NoopRun.log = failing
    assert models.IMAGE_RESOLUTION == (224, 224)
    from mlflow_project.callbacks import openpi
    from mlflow_project.callbacks._launch import run_script

    openpi.track(tags={"team": "grasping"})
    run_script("openpi")


if __name__ == "__main__":
    main()
