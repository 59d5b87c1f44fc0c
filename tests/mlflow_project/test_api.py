"""The Python API as its page in docs uses it, line by line, and what importing it costs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import SMALL_PRESET

import mlflow_project.api
import rlinf_isaac
from mlflow_project._api.options import settings_of
from rlinf_isaac.ground.errors import InvalidJob

PROJECT = Path(__file__).parents[2]
PAGE = PROJECT / "docs" / "python_api.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SMALLER = {
    'preset="tiny"': f'preset="{SMALL_PRESET}"',
    "episodes=12)": "episodes=2)",
    "steps=60, save_interval=30": "steps=4, save_interval=2",
    "episodes=8, videos=0": 'episodes=2, videos=0, overrides={"env.max_episode_steps": 16}',
}
"""What the page has -> with what it is run here, so that it takes seconds."""


def small(text: str) -> str:
    for written, instead in SMALLER.items():
        assert written in text, written
        text = text.replace(written, instead)
    return text


@pytest.fixture(scope="module")
def page(tmp_path_factory, empty_database):
    """The blocks of the page, run one after the other in one directory; gives their names and what they print."""
    import contextlib
    import io
    import shutil

    directory = tmp_path_factory.mktemp("page")
    shutil.copy(empty_database, directory / "mlflow.db")
    names: dict = {}
    printed = io.StringIO()
    with contextlib.chdir(directory), contextlib.redirect_stdout(printed):
        for block in BLOCK.findall(small(PAGE.read_text(encoding="utf-8"))):
            exec(compile(block, str(PAGE), "exec"), names)
    return names, printed.getvalue()


def test_the_page_runs(page):
    names, printed = page
    episodes, compared = names["episodes"], names["compared"]
    assert list(compared.frame()["episodes"]) == [2, 2]
    assert compared.frame()["success"].between(0, 1).all()
    assert set(episodes["seed"]) == {5000, 5001}
    assert compared.verdict in printed
    assert list(names["run"].metrics()["train/loss"].dropna().index)[-1] == 4
    assert names["actions"].shape == (2, 8, 7)
    assert "unknown-option sft has no option 'batchsize' -> did you mean batch_size?" in printed
    assert "missing-step -> nearest: 2, 4" in printed
    assert names["outcome"].passed is False
    assert set(names["outcome"].frame().columns) == {"rule", "passed", "because"}


def test_what_it_recorded_is_what_the_verbs_record(page):
    """The runs have the verbs' tags; an episode that the policy plays by hand is the recorded one."""
    from mlflow import MlflowClient

    from rlinf_isaac.api import load_policy, make_env

    names, _ = page
    run, episodes = names["run"], names["episodes"]
    client = MlflowClient(run.tracking_uri)
    verbs = {client.get_run(each.id).data.tags["rlinf_isaac.verb"] for each in (names["data"], run)}
    assert verbs == {"demos", "sft"}
    assert client.get_run(episodes.attrs["run"].id).data.tags["rlinf_isaac.verb"] == "eval"

    policy = load_policy(str(run.path / "4"))
    env = make_env(policy, num_envs=2, overrides={"env.max_episode_steps": 16})
    observation, _ = env.reset(seed=5000)
    returns = np.zeros(2)
    for call in range(2):
        step = env.chunk_step(policy.act(observation, env, call), np.array([True, True]))
        observation, returns = step.observation, returns + step.rewards.sum(axis=1)
    env.close()
    recorded = episodes[episodes["step"] == 4].sort_values("seed")
    np.testing.assert_allclose(returns, recorded["return"])
    assert list(step.success) == list(recorded["success"])


def test_importing_it_imports_nothing_heavy():
    script = (
        "import sys, rlinf_isaac, mlflow_project.api;"
        "print(sorted({name.partition('.')[0] for name in sys.modules}"
        " & {'torch', 'mlflow', 'pandas', 'numpy', 'pyarrow', 'mujoco', 'huggingface_hub'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT)
    assert done.stdout == "[]\n", done.stderr


def test_every_name_is_there_and_the_stub_knows_it():
    """`__init__.pyi` is what editors read, `__getattr__` what runs."""
    stub = (PROJECT / "rlinf_isaac" / "__init__.pyi").read_text()
    assert set(re.findall(r"import (\w+) as \1", stub)) | {"__version__"} == set(rlinf_isaac.__all__)
    assert all(getattr(rlinf_isaac, name) is not None for name in rlinf_isaac.__all__)
    assert all(hasattr(mlflow_project.api, name) for name in mlflow_project.api.__all__)
    for name in rlinf_isaac._OF_TRACKED:
        assert name in mlflow_project.api.__all__
        with pytest.raises(AttributeError, match=r"it is in mlflow_project\.api"):
            getattr(rlinf_isaac, name)
    for name in {*mlflow_project.api.__all__} - {"BundleError", "DatasetError", "Compared", "Promoted"}:
        assert name in PAGE.read_text(), f"the page does not have {name}"


def test_keywords_are_the_options():
    settings = settings_of(
        "sft", {"dataset": Path("d"), "lr": 5e-5, "allow_mismatch": True, "overrides": {"a.b": [1, 2]}}
    )
    assert (settings["dataset"], settings["lr"], settings["allow_mismatch"]) == ("d", "5e-05", True)
    assert (settings["overrides"], settings["steps"]) == ("a.b=[1,2]", "auto")
    assert settings_of("eval", {"ckpt_root": "c", "ckpt_steps": [1, 2]})["ckpt_steps"] == "1,2"
    for given, code in (
        ({"dataset": "d", "stepz": 3}, "unknown-option"),
        ({"dataset": "d", "engine": "no"}, "bad-option"),
    ):
        with pytest.raises(InvalidJob) as error:
            settings_of("sft", given)
        assert [problem.code for problem in error.value.problems] == [code]
