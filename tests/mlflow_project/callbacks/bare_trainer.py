"""A trainer in an interpreter without any package (``python -S``): what the callbacks import is all that they need.

    python -S bare_trainer.py PROJECT OUTPUT

prints ``ready`` after its fifth step and its checkpoint, and goes on until it is killed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

project, output = map(Path, sys.argv[1:])
sys.path.insert(0, str(project))

from mlflow_project.callbacks import lerobot, openpi, rlinf  # noqa: E402, F401  (all of them can be imported)
from mlflow_project.callbacks.found import bundle_command  # noqa: E402
from mlflow_project.callbacks.job import Job  # noqa: E402
from mlflow_project.callbacks.options import read_options  # noqa: E402
from mlflow_project.callbacks.training import Training  # noqa: E402

config = {"lr": 1e-4, "wandb": {"api_key": "not-to-be-seen"}, "tokenizer_name": "paligemma"}
training = Training(Job("lerobot", output, "bare", config, total=10), read_options(name="bare metal"))
checkpoint = output / "checkpoints/000005/pretrained_model"
for step in range(1, 6):
    training.metrics({"train/loss": 1 / step}, step)
checkpoint.mkdir(parents=True)
(checkpoint / "model.safetensors").write_bytes(b"weights")
training.checkpoint(checkpoint.parent, 5, lambda path, stats: bundle_command(path, with_stats=stats))
while "lineage.weights.sha256" not in training.recorder.journal.path.read_text():
    time.sleep(0.01)
print("ready", flush=True)
while True:
    time.sleep(1)
