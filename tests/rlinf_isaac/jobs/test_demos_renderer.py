"""Demonstrations that rays have drawn, because EGL did not work, do not lie where those of EGL do."""

from __future__ import annotations

from rlinf_isaac.config import load_config
from rlinf_isaac.jobs.demos import dataset_root, with_renderer


def test_what_auto_means_decides_the_directory(monkeypatch, tmp_path):
    config = load_config("tiny")
    monkeypatch.setenv("MUJOCO_GL", "disable")
    drawn_by_rays = with_renderer(config)
    assert dataset_root(drawn_by_rays, tmp_path) == dataset_root(load_config("tiny", ["env.renderer=rays"]), tmp_path)
    assert dataset_root(drawn_by_rays, tmp_path) != dataset_root(config, tmp_path)
    chosen = load_config("tiny", ["env.renderer=egl"])
    assert with_renderer(chosen) == chosen
