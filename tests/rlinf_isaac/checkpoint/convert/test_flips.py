"""Damage anywhere in a checkpoint: it is refused, or the bytes said nothing and the output is the same to the byte."""

from __future__ import annotations

import random
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from rlinf_isaac.checkpoint.convert import prepare, read_record, run
from rlinf_isaac.ground.digest import file_digest
from rlinf_isaac.ground.errors import InvalidJob

DAMAGE = {"damaged-torch-file", "damaged-pickle", "foreign-archive", "empty-weights"}
FLIPS, CUTS = 200, 50


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    """A file with everything that torch writes: several dtypes, a tie, a slice, numbers, a storage nothing uses."""
    torch.manual_seed(0)
    fused = torch.randn(12, 16)
    embedding = torch.randn(40, 16, dtype=torch.bfloat16)
    state_dict = {
        "embed_tokens.weight": embedding,
        "lm_head.weight": embedding,
        "q_proj.weight": fused[:4],
        "v_proj.weight": fused[8:].t(),
        "scale": torch.tensor(0.5, dtype=torch.float64),
        "empty": torch.empty(0, 4),
    }
    path = tmp_path_factory.mktemp("whole") / "model.pt"
    torch.save({"state_dict": state_dict, "step": 7, "optimizer": {"exp_avg": torch.randn(30)}}, path)
    return path.read_bytes()


class Converter:
    """Converts bytes as if they were a file; gives the bytes of the output, or the code of the refusal."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self, data: bytes, name: str = "model.pt") -> bytes | str:
        source, output = self.directory / name, self.directory / "out"
        source.write_bytes(data)
        try:
            run(prepare(source, output), verify=False, hash_source=False, hash_output=False)
        except InvalidJob as error:
            assert [path.name for path in self.directory.iterdir()] == [name]
            (problem,) = error.problems
            return problem.code
        written = (output / "model.safetensors").read_bytes()
        shutil.rmtree(output)
        return written


@pytest.fixture
def convert(tmp_path) -> Converter:
    return Converter(tmp_path)


def flipped(data: bytes, position: int, bit: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]


def test_the_whole_file_is_converted(whole, convert):
    assert isinstance(convert(whole), bytes)


def test_two_hundred_flips_anywhere_are_found(whole, convert):
    rng = random.Random(4)
    flips = [(rng.randrange(len(whole)), rng.randrange(8)) for _ in range(FLIPS)]
    accepted = [flip for flip in flips if convert(flipped(whole, *flip)) not in DAMAGE]
    assert accepted == []


def test_a_flip_in_every_byte_around_the_data_is_found(whole, convert):
    """All headers, the padding, the directory and the end of the archive: what no checksum covers."""
    rng = random.Random(5)
    covered: set[int] = set()
    path = convert.directory / "model.pt"
    path.write_bytes(whole)
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            header = whole[record.header_offset :][:30]
            lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
            begin = record.header_offset + 30 + lengths
            covered |= set(range(begin, begin + record.file_size))
    uncovered = [position for position in range(len(whole)) if position not in covered]
    assert len(uncovered) > 1000
    results = {position: convert(flipped(whole, position, rng.randrange(8))) for position in uncovered}
    assert {position: result for position, result in results.items() if result not in DAMAGE} == {}


def test_fifty_truncations_are_found(whole, convert):
    rng = random.Random(6)
    accepted = [size for size in rng.sample(range(len(whole)), CUTS) if convert(whole[:size]) not in DAMAGE]
    assert accepted == []


@pytest.mark.parametrize("added", [b"\0", b"PK\5\6" + bytes(18), bytes(4096)])
def test_what_was_appended_is_found(whole, convert, added):
    assert convert(whole + added) in DAMAGE


def test_blocks_that_a_copy_lost_or_swapped_are_found(whole, convert):
    """What a broken copy or a failing disk makes: a block of zeros, a block written twice."""
    rng = random.Random(7)
    accepted = []
    for _ in range(50):
        size = rng.choice([64, 512, 1024])
        first, second = (rng.randrange(0, len(whole) - size) for _ in range(2))
        for block in (bytes(size), whole[second : second + size]):
            damaged = whole[:first] + block + whole[first + size :]
            if damaged != whole and convert(damaged) not in DAMAGE:
                accepted.append((first, second, size))
    assert accepted == []


def test_safetensors_are_told_by_the_record_of_their_conversion(whole, convert, tmp_path):
    """safetensors files have no checksums: damage of the header shows by itself, that of values only by the sha256."""
    source, output = tmp_path / "model.pt", tmp_path / "converted"
    source.write_bytes(whole)
    run(prepare(source, output), verify=False)
    expected = read_record(output)["output"]["model.safetensors"]
    file = output / "model.safetensors"
    data = file.read_bytes()
    rng = random.Random(8)
    assert file_digest(file) == expected
    for _ in range(FLIPS):
        file.write_bytes(flipped(data, rng.randrange(len(data)), rng.randrange(8)))
        assert file_digest(file) != expected


def test_truncated_safetensors_are_found(whole, tmp_path):
    """The header says how long the file is."""
    (tmp_path / "in").mkdir()
    source = tmp_path / "in" / "model.pt"
    source.write_bytes(whole)
    run(prepare(source, tmp_path / "converted"), verify=False)
    data = (tmp_path / "converted" / "model.safetensors").read_bytes()
    (tmp_path / "cut").mkdir()
    convert = Converter(tmp_path / "cut")
    rng = random.Random(9)
    cuts = rng.sample(range(len(data)), CUTS)
    assert [size for size in cuts if convert(data[:size], "model.safetensors") != "damaged-safetensors"] == []
    assert convert(data + b"\0", "model.safetensors") == "damaged-safetensors"
