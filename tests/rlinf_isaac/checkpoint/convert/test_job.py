"""What a conversion refuses before it writes, and what it leaves when it fails."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlinf_isaac.checkpoint.convert import Options, prepare, read_record, run
from rlinf_isaac.checkpoint.convert import job as jobs
from rlinf_isaac.ground.atomic import claimed
from rlinf_isaac.ground.errors import ConversionFailed, InvalidJob, WeightsError

STATE = {"w": torch.arange(100_000.0)}


def codes(source, output, options=Options(), **settings) -> list[str]:  # noqa: B008
    with pytest.raises(InvalidJob) as error:
        prepare(source, output, options, **settings)
    return [problem.code for problem in error.value.problems]


class TestPlace:
    def test_what_is_there_is_not_replaced_unasked(self, save, tmp_path):
        path = save(STATE)
        run(prepare(path, tmp_path / "out"))
        assert codes(path, tmp_path / "out") == ["output-exists"]
        run(prepare(path, tmp_path / "out", Options(dtype="bf16"), overwrite=True))
        assert load_file(tmp_path / "out" / "model.safetensors")["w"].dtype == torch.bfloat16

    def test_what_is_not_ours_is_not_replaced_at_all(self, save, tmp_path):
        path = save(STATE)
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.tex").touch()
        (tmp_path / "file").touch()
        (tmp_path / "link").symlink_to("mine")
        (tmp_path / "dangling").symlink_to("nowhere")
        for name, code in {
            "mine": "output-not-ours",
            "file": "output-is-a-file",
            "link": "output-symlink",
            "dangling": "output-symlink",
            "file/below": "output-place",
        }.items():
            assert codes(path, tmp_path / name, overwrite=True) == [code]
        assert not (tmp_path / "nowhere").exists()

    def test_the_input_is_not_replaced(self, save, tmp_path):
        run(prepare(save(STATE), tmp_path / "out"))
        assert codes(tmp_path / "out", tmp_path / "out", Options(dtype="fp16"), overwrite=True) == ["output-is-input"]

    def test_no_room(self, save, tmp_path, monkeypatch):
        path = save({"w": torch.zeros(1).expand(2**50)})
        assert codes(path, tmp_path / "out") == ["disk-space"]

    def test_all_problems_at_once(self, save, tmp_path):
        (tmp_path / "file").touch()
        assert codes(save(STATE), tmp_path / "file", Options(include=("x",), exclude=("y",))) == [
            "output-is-a-file",
            "include-matches-nothing",
            "exclude-matches-nothing",
            "empty-weights",
        ]

    def test_missing_input(self, tmp_path):
        assert codes(tmp_path / "nowhere.pt", tmp_path / "out") == ["missing-checkpoint"]


class TestFailure:
    @pytest.fixture(autouse=True)
    def _nothing_left(self, tmp_path):
        yield
        assert [entry.name for entry in tmp_path.iterdir() if "out" in entry.name] == []

    def test_a_file_may_not_grow_any_more(self, save, tmp_path):
        job = prepare(save(STATE), tmp_path / "out")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        try:
            with pytest.raises(ConversionFailed, match=r"File too large; nothing was left"):
                run(job, verify=False)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    def test_a_full_disk(self, save, tmp_path):
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("mounting a small disk takes privileges")
        try:
            path = save(STATE)
            assert codes(path, disk / "out") == ["disk-space"]
            job = replace(prepare(path, tmp_path / "out"), output=disk / "out")
            with pytest.raises(ConversionFailed, match="No space left on device"):
                run(job, verify=False)
            assert list(disk.iterdir()) == []
        finally:
            subprocess.run(["umount", str(disk)], check=True)

    def test_another_process_has_the_output_or_has_just_made_it(self, save, tmp_path):
        job = replace(prepare(save(STATE), tmp_path / "theirs"), output=tmp_path / "theirs")
        with claimed(job.output), pytest.raises(InvalidJob, match="output-busy"):
            run(job, verify=False)
        run(job, verify=False)
        with pytest.raises(InvalidJob, match=r"output-exists.* was made by another process meanwhile"):
            run(job, verify=False)
        assert (job.output / "conversion.json").is_file()

    def test_a_source_that_changes(self, save, tmp_path):
        path = save(STATE)
        job = prepare(path, tmp_path / "out")
        with pytest.raises(WeightsError) as error:
            run(job, progress=lambda _: os.utime(path, (1, 1)), verify=False)
        assert error.value.problems[0].code == "source-changed"

    def test_a_source_that_was_cut_off(self, save, tmp_path):
        path = save(STATE)
        job = prepare(path, tmp_path / "out")
        os.truncate(path, 200_000)
        with pytest.raises(WeightsError) as error:
            run(job, verify=False)
        assert error.value.problems[0].code == "damaged-torch-file"

    def test_a_fault_in_writing_is_noticed_by_reading_again(self, save, tmp_path, monkeypatch):
        job = prepare(save({"a": torch.ones(4), "b": torch.zeros(4)}), tmp_path / "out")
        first, second = job.plan.files[0].tensors
        swapped = replace(job.plan.files[0], tensors=(replace(first, source=second.source), replace(second)))
        monkeypatch.setattr(jobs, "write_files", lambda files, *args, **named: WRITE((swapped,), *args, **named))
        with pytest.raises(ConversionFailed, match="a was written wrongly"):
            run(job)
        monkeypatch.undo()


WRITE = jobs.write_files


def test_records(save, tmp_path):
    out = tmp_path / "out"
    assert run(prepare(save(STATE), out)) == read_record(out)
    (out / "conversion.json").write_text("{}")
    with pytest.raises(WeightsError) as error:
        read_record(out)
    assert error.value.problems[0].code == "conversion-record"


def test_several_safetensors_files_without_an_index(tmp_path):
    """One model where they share no name; otherwise nobody can say which is meant."""
    for name in "ab":
        save_file({name: torch.ones(1)}, tmp_path / f"{name}.safetensors")
    run(prepare(tmp_path, tmp_path / "out"))
    assert load_file(tmp_path / "out" / "model.safetensors").keys() == {"a", "b"}
    save_file({"a": torch.zeros(1)}, tmp_path / "c.safetensors")
    assert codes(tmp_path, tmp_path / "again") == ["ambiguous-weights"]


def test_nothing_of_it_needs_torch():
    code = "import sys, rlinf_isaac.checkpoint.convert; print({'torch', 'numpy', 'mlflow'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
