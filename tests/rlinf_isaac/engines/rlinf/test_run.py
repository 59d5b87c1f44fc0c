from __future__ import annotations

from support import small_config

from rlinf_isaac.engines.base import SftJob
from rlinf_isaac.engines.rlinf.run import job_environment


def test_processes_have_the_interpreter_that_the_job_names(tmp_path):
    config = small_config(["compute.threads=3"])
    job = SftJob(config, tmp_path, "0" * 64, b"{}", tmp_path, env_python="/lab/bin/python")
    assert job_environment(job) == {"RLINF_ISAAC_THREADS": "3", "ISAACLAB_PYTHON": "/lab/bin/python"}


def test_without_one_their_environment_keeps_its_own(tmp_path):
    job = SftJob(small_config(), tmp_path, "0" * 64, b"{}", tmp_path)
    assert "ISAACLAB_PYTHON" not in job_environment(job)
