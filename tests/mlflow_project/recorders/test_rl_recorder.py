from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from support import small_config

from mlflow_project.lineage.provenance import evaluation_dataset
from mlflow_project.recorders.rl_recorder import Improved, RlRecorder, gains_markdown
from mlflow_project.tracking.runs import tracked_run
from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.engines.base import RlJob
from rlinf_isaac.ground.events import CheckpointSaved, EpisodeDone, FileSaved, Metrics, ResultChosen, RolledBack
from rlinf_isaac.stats.rates import PairedGain

DATASET = evaluation_dataset({"task": "stack2", "episodes": 5, "first_seed": 5000, "policy_seed": 0})


@pytest.fixture
def job(bundles, tmp_path) -> RlJob:
    """From the first of the bundles; the second stands for its result."""
    return RlJob(small_config(["rl.reward=shaped", "rl.algorithm=grpo"]), read_bundle(bundles[0]), tmp_path / "rl")


@pytest.fixture
def training_events(bundles):
    result = read_bundle(bundles[1])
    return [
        Metrics(0, {"heldout/success_once": 0.5}, time=1000.0),
        Metrics(400, {"rollout/success_once": 0.25, "train/approx_kl": 0.01}, time=1001.0),
        Metrics(800, {"rollout/success_once": 0.5, "train/approx_kl": 0.02}, time=1002.0),
        CheckpointSaved(800, result.path, result.digest),
    ]


def record(job, training, evaluation, **options):
    values = asdict(job.config)
    params = {section: values[section] for section in ("preset", "rl", "eval")}
    with tracked_run("rl", output=Path("out"), name="rl") as tracked:
        recorder = RlRecorder(tracked.recorder, job, params=params, model_name="pi0-tiny", dataset=DATASET, **options)
        for event in training:
            recorder.train(event)
        for event in evaluation:
            recorder.evaluate(event)
    assert tracked.outcome.refused == ()
    return recorder


def test_a_training_is_a_nested_run_between_two_checkpoints(
    store, content, job, bundles, training_events, evaluation_events
):
    record(job, training_events, evaluation_events)
    runs = content(store).runs
    run = runs["from-step-400"]
    assert (run["parent"], run["status"]) == ("rl", "FINISHED")
    assert run["model inputs"] == ["pi0-tiny-step-400"]
    assert run["model outputs"] == [("pi0-tiny-step-400-rl-800", 800)]
    assert run["params"]["checkpoint/step"] == "400"
    assert run["params"]["cfg/rl/reward"] == "shaped"
    assert [(step, value) for step, _, value in run["metrics"]["rollout/success_once"]] == [(400, 0.25), (800, 0.5)]
    tags = run["tags"]
    assert (tags["rl.reward"], tags["rl.algorithm"]) == ("shaped", "grpo")
    start = read_bundle(bundles[0])
    assert tags["checkpoint.sha256"] == tags["lineage.parent.sha256"] == start.digest
    assert tags["lineage.config.sha256"] == job.lineage["config"] != start.lineage["config"]
    assert "lineage.weights.sha256" not in tags, "those of the start are not what the run made"
    assert {name for name, run in runs.items() if run["parent"] == "from-step-400"} == {"step-400", "step-400-rl-800"}
    # Before and after lie on one axis: iterations since the start, whatever its optimiser step is.
    assert [(step, value) for step, _, value in run["metrics"]["sweep/success_once"]] == [(0, 0.2), (800, 0.4)]
    assert runs["step-400-rl-800"]["tags"]["about.checkpoint"] == "step-400-rl-800"


def test_before_and_after_are_compared_seed_by_seed(store, content, job, training_events, evaluation_events):
    """The start solves the first of five seeds, the result the first two."""
    recorder = record(job, training_events, evaluation_events)
    assert recorder.improved.gain == PairedGain(before=1, after=2, n=5, gained=1, lost=0, p_value=0.5)
    found = content(store)
    metrics = found.runs["from-step-400"]["metrics"]
    expected = {
        "before/success_once": 0.2,
        "eval/success_once": 0.4,
        "gain/success_once": 0.2,
        "gain/gained": 1,
        "gain/lost": 0,
        "gain/p_value": 0.5,
    }
    for key, value in expected.items():
        step, _, last = metrics[key][-1]
        assert (step, last) == (800, pytest.approx(value)), key
    result = next(model for model in found.models if model["name"] == "pi0-tiny-step-400-rl-800")
    assert ("gain/gained", 800, 1.0, None) in result["metrics"]


def test_a_training_that_went_back_says_so_and_its_result_is_what_it_names(
    store, content, job, bundles, training_events, evaluation_events
):
    """The engine names the earlier of its checkpoints; a later one was saved as well."""
    result, later = read_bundle(bundles[1]), read_bundle(bundles[0])
    forecast = {"forecast/iterations_to_80": 12.3, "forecast/episodes_to_80": 1574.0}
    bounds = {"forecast/iterations_to_80_low": 7.6, "forecast/iterations_to_80_high": 31.0}
    events = [
        *training_events,
        Metrics(900, forecast | bounds, time=1003.0),
        RolledBack(900, 800, "it fell", (850, 900), 5e-5),
        Metrics(1000, {"rollout/success_once": 0.5}, time=1004.0),
        CheckpointSaved(1000, later.path, later.digest),
        RolledBack(1100, 0, "it fell again", (1000, 1100), 2.5e-5),
        ResultChosen(800, result.path, result.digest, "collapsed", "It ended so. The result is checkpoint 800."),
    ]
    recorder = record(job, events, evaluation_events)
    assert recorder.result().digest == recorder.improved.digest == result.digest
    assert recorder.improved.ending == "It ended so. The result is checkpoint 800."
    assert "(1 vs 0 seeds won, one-sided p = 0.5). It ended so." in gains_markdown([recorder.improved])
    run = content(store).runs["from-step-400"]
    assert run["status"] == "FINISHED"
    tags = {name: value for name, value in run["tags"].items() if name.startswith("rl.r") or name.startswith("rl.e")}
    assert tags == {
        "rl.reward": "shaped",
        "rl.rollbacks": "2",
        "rl.rollback.900": "back to checkpoint 800, with learning rate 5e-05: it fell",
        "rl.rollback.1100": "back to the start checkpoint, with learning rate 2.5e-05: it fell again",
        "rl.ended": "collapsed",
        "rl.result": "It ended so. The result is checkpoint 800.",
    }
    assert run["tags"]["rl.forecast"] == "80 % in 12 iterations (8 to 31), 1574 episodes, as of iteration 900"
    assert [step for step, _, value in run["metrics"]["rl/abandoned"]] == [850, 900, 1000, 1100]


def test_what_an_engine_says_of_the_evaluation_does_not_mix_with_the_training(
    store, content, job, training_events, evaluation_events, tmp_path
):
    """RLinf has the same names for both, and counts an evaluation by the step of its checkpoint."""
    files = {name: tmp_path / f"{name}.yaml" for name in ("training", "evaluation")}
    for name, path in files.items():
        path.write_text(name * (2 if name == "training" else 1))
    training = [FileSaved(files["training"], "rlinf/config.yaml"), Metrics(800, {"eval/return": 1.0}), *training_events]
    said = [FileSaved(files["evaluation"], "rlinf/config.yaml"), Metrics(5000, {"eval/success_once": 0.9})]
    record(job, training, [*said, *evaluation_events])
    run = content(store).runs["from-step-400"]
    assert [(step, value) for step, _, value in run["metrics"]["eval/success_once"]] == [(800, pytest.approx(0.4))]
    assert [(step, value) for step, _, value in run["metrics"]["eval/return"]] == [(800, 1.0)]
    sizes = dict(run["artifacts"])
    assert sizes["rlinf/config.yaml"] == files["training"].stat().st_size
    assert sizes["evaluation/rlinf/config.yaml"] == files["evaluation"].stat().st_size


def test_weights_are_left_out_on_request(store, content, job, training_events, evaluation_events):
    record(job, training_events, evaluation_events, upload_weights="none")
    names = [name for run in content(store).runs.values() for name, _ in run["artifacts"]]
    assert "checkpoints/800/bundle.json" in names
    assert not [name for name in names if name.endswith(".safetensors")]


def test_what_fails_before_the_comparison_gains_nothing(store, content, job, training_events, evaluation_events):
    def cut_short():
        """In the middle of the first evaluation."""
        for event in evaluation_events:
            yield event
            if isinstance(event, EpisodeDone):
                raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        record(job, training_events, cut_short())
    runs = content(store).runs
    assert {name: run["status"] for name, run in runs.items()} == dict.fromkeys(
        ("rl", "from-step-400", "step-400"), "FAILED"
    )
    assert "boom" in runs["from-step-400"]["tags"]["failure.reason"]
    assert "gain/success_once" not in runs["from-step-400"]["metrics"]


def test_two_starts_are_lines_of_one_table():
    gain = PairedGain(before=50, after=65, n=100, gained=20, lost=5, p_value=0.00204)
    lines = gains_markdown([Improved(step, Path("x"), "d" * 64, gain) for step in (25000, 30000)]).splitlines()
    assert lines[0] == (
        "Reinforcement learning improved step-25000: success rose from 50 % to 65 %"
        " (20 vs 5 seeds won, one-sided p = 0.002)."
    )
    assert lines[2].startswith("Reinforcement learning improved step-30000: ")
    assert len(lines[4:]) == 4
    assert lines[6] == "| step-25000 | 50.0 % | 65.0 % | 20 | 5 | 100 | 0.002 |"
    assert lines[7].startswith("| step-30000 | ")


def test_a_gain_that_chance_explains_is_no_improvement():
    gain = PairedGain(before=45, after=46, n=50, gained=2, lost=1, p_value=0.5)
    assert Improved(1200, Path("x"), "d" * 64, gain).verdict == (
        "No clear gain from step-1200: success was 90 % before and is 92 % after (2 vs 1 seeds won, one-sided p = 0.5)."
    )
