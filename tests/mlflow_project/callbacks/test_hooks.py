"""What the hooks promise the trainers: an object that has lerobot's interface, and no trace in what lerobot saves. The
real trainers are in test_lerobot.py, test_openpi.py and test_rlinf.py beside this file."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from mlflow_project.callbacks import lerobot, openpi, rlinf
from mlflow_project.tracking.journal import read_header, read_operations
from mlflow_project.tracking.operations import EndRun, LogMetrics, SetTags
from rlinf_isaac.ground.errors import InvalidJob


class WandBLogger:
    made: list = []  # noqa: RUF012

    def __init__(self, cfg):
        self.said = []
        self.made.append(self)

    def log_dict(self, d, step=None, mode="train", custom_step_key=None):
        self.said.append(("log_dict", d, step, mode))

    def log_policy(self, checkpoint_dir):
        self.said.append(("log_policy", checkpoint_dir))

    def log_video(self, video_path, step, mode="train"):
        self.said.append(("log_video", video_path, step))


class TrainPipelineConfig(SimpleNamespace):
    def validate(self):
        pass

    def to_dict(self):
        return {"steps": self.steps}


@pytest.fixture
def trainer(monkeypatch, tmp_path):
    """A module with the order of calls of ``lerobot_train.train``; what it saves of its config."""
    script, configs = ModuleType("lerobot.scripts.lerobot_train"), ModuleType("lerobot.configs.train")
    script.saved, script.__file__ = [], "/venv/site-packages/lerobot/scripts/lerobot_train.py"

    def train(config):
        config.validate()
        wandb = script.WandBLogger(config) if config.wandb.enable and config.wandb.project else None
        for step in range(1, config.steps + 1):
            if wandb:
                wandb.log_dict({"loss": 1.0 / step, "note": "text"}, step)
        script.saved.append(config.wandb.enable)
        if wandb:
            wandb.log_policy(Path("checkpoints/000002"))
        if config.fails:
            raise RuntimeError("no memory")

    script.train, script.WandBLogger, configs.TrainPipelineConfig = train, WandBLogger, TrainPipelineConfig
    monkeypatch.setattr(TrainPipelineConfig, "validate", TrainPipelineConfig.validate)  # put back in the end
    for name in ("lerobot", "lerobot.scripts", "lerobot.configs"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for module in (script, configs):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(lerobot, "_tracked", None)
    monkeypatch.setattr(lerobot, "read_options", lambda **options: _nobody_uploads(**options))
    monkeypatch.setattr(WandBLogger, "made", [])
    return script


def _nobody_uploads(**options):
    from mlflow_project.callbacks.options import Options, read_options

    return Options(read_options(**options).labels, None)


def config(output: Path, *, wandb: bool, fails: bool = False) -> TrainPipelineConfig:
    data = SimpleNamespace(repo_id="toys/two", root=output / "nothing", revision=None)
    return TrainPipelineConfig(
        steps=2,
        fails=fails,
        resume=False,
        output_dir=output,
        job_name="toy",
        dataset=data,
        policy=SimpleNamespace(type="act", pretrained_path=None),
        wandb=SimpleNamespace(enable=wandb, project="lerobot"),
    )


def operations(output: Path) -> list:
    (journal,) = (output / "journal").glob("*.jsonl")
    return [operation for operation, _ in read_operations(journal, read_header(journal)[1])[0]]


@pytest.mark.parametrize("wandb", [False, True])
def test_lerobots_logger_is_passed_on_to_and_its_config_left_alone(trainer, tmp_path, wandb):
    lerobot.track()
    with pytest.raises(RuntimeError, match="no memory"):
        trainer.train(config(tmp_path / "out", wandb=wandb, fails=True))
    assert trainer.saved == [wandb]
    told = operations(tmp_path / "out")
    metrics = [(each.step, each.values) for each in told if isinstance(each, LogMetrics)]
    assert next(step for step, values in metrics if values == {"train/loss": 0.5}) == 2
    assert next(each.status for each in told[::-1] if isinstance(each, EndRun)) == "FAILED"
    tags = {key: value for each in told if isinstance(each, SetTags) for key, value in each.tags.items()}
    assert {"failure.reason", "lineage.norm_stats.sha256"} & tags.keys() == {"failure.reason"}
    assert len(WandBLogger.made) == wandb
    for theirs in WandBLogger.made:
        assert [name for name, *_ in theirs.said] == ["log_dict", "log_dict", "log_policy"]


def test_other_processes_record_nothing(trainer, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    lerobot.track()
    trainer.train(config(tmp_path / "out", wandb=False))
    assert trainer.saved == [False]
    assert not (tmp_path / "out").exists()


def test_a_version_without_the_hooks_is_refused(trainer, monkeypatch):
    monkeypatch.delattr(WandBLogger, "log_policy")
    with pytest.raises(InvalidJob, match=r"trainer-not-known.*WandBLogger\.log_policy"):
        lerobot.track()


@pytest.mark.parametrize("callback", [openpi, rlinf])
def test_a_trainer_that_is_not_there_is_refused(callback, monkeypatch):
    for name in ("openpi", "rlinf"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InvalidJob, match="no-trainer"):
        callback.track()
