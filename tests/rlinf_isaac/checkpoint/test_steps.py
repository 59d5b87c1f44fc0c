from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_isaac.checkpoint.steps import find_bundles, parse_steps, select_bundles
from rlinf_isaac.ground.errors import InvalidJob


def codes(error: pytest.ExceptionInfo[InvalidJob]) -> list[str]:
    return [problem.code for problem in error.value.problems]


class TestParseSteps:
    @pytest.mark.parametrize(
        "text", ["25000,30000", "25000 30000", "25000, 30000", " 30000,,25000 ", "30000\t25000\n", "025000,30000"]
    )
    def test_commas_and_spaces(self, text):
        assert parse_steps(text) == [25000, 30000]

    @pytest.mark.parametrize("text", ["auto", " auto "])
    def test_auto_means_all(self, text):
        assert parse_steps(text) is None

    @pytest.mark.parametrize(
        "word", ["-1", "1.5", "1e3", "+4", "0x10", "1_000", "٣", "latest", "auto", "9" * 30, "1;ls"]
    )
    def test_words_that_are_no_step(self, word):
        with pytest.raises(InvalidJob, match="not a non-negative integer") as error:
            parse_steps(f"100 {word}")
        assert codes(error) == ["bad-step"]

    @pytest.mark.parametrize("text", ["", " ", ",", " , "])
    def test_nothing(self, text):
        with pytest.raises(InvalidJob) as error:
            parse_steps(text)
        assert codes(error) == ["no-steps"]

    def test_every_problem_is_told_at_once(self):
        with pytest.raises(InvalidJob) as error:
            parse_steps("1,x,1,y,2,0001")
        assert codes(error) == ["bad-step", "duplicate-step", "bad-step", "duplicate-step"]

    @settings(deadline=None)
    @given(st.lists(st.integers(0, 10**9), min_size=1, unique=True), st.sampled_from([",", " ", ", "]))
    def test_any_list_of_steps(self, steps, separator):
        assert parse_steps(separator.join(map(str, steps))) == sorted(steps)

    @settings(deadline=None)
    @given(st.text(max_size=20))
    def test_any_text_is_parsed_or_refused_in_one_way(self, text):
        try:
            steps = parse_steps(text)
        except InvalidJob:
            return
        assert steps is None or (steps == sorted(set(steps)) and steps)


class TestFindAndSelect:
    @pytest.fixture
    def root(self, tmp_path, make_bundle):
        for step, name in [(400, "400"), (800, "step_800"), (1600, "global_step_1600")]:
            make_bundle(tmp_path / name, step=step)
        (tmp_path / "1200").mkdir()  # killed before it was sealed
        (tmp_path / "notes").mkdir()
        (tmp_path / "2000").touch()
        return tmp_path

    def test_find(self, root):
        assert find_bundles(root) == {
            400: root / "400",
            800: root / "step_800",
            1600: root / "global_step_1600",
        }

    def test_find_in_nothing(self, tmp_path):
        assert find_bundles(tmp_path / "missing") == {}

    def test_select(self, root):
        assert select_bundles(root, [1600, 400]) == [root / "400", root / "global_step_1600"]
        assert select_bundles(root, None) == [root / "400", root / "step_800", root / "global_step_1600"]

    def test_every_missing_step_is_named_with_the_nearest_ones(self, root):
        with pytest.raises(InvalidJob) as error:
            select_bundles(root, [400, 1200, 99999])
        assert codes(error) == ["missing-step", "missing-step"]
        first, second = error.value.problems
        assert "step 1200" in first.cause
        assert first.cure == "nearest: 800, 1600; all: 400, 800, 1600"
        assert "step 99999" in second.cause

    def test_many_steps_are_abridged(self, tmp_path, make_bundle):
        for step in range(10):
            make_bundle(tmp_path / str(step))
        with pytest.raises(InvalidJob, match=r"nearest: 8, 9; all: 0, 1, 2, \.\.\., 7, 8, 9 \(10 in all\)"):
            select_bundles(tmp_path, [77])

    @pytest.mark.parametrize("steps", [None, [400, 1200]])
    def test_a_checkpoint_without_a_manifest_is_not_passed_over(self, root, steps):
        (root / "1200" / "model.safetensors").touch()
        with pytest.raises(InvalidJob, match="bundle make") as error:
            select_bundles(root, steps)
        assert codes(error) == ["not-a-bundle"]
        assert select_bundles(root, [400]) == [root / "400"]

    def test_a_missing_root(self, tmp_path):
        with pytest.raises(InvalidJob) as error:
            select_bundles(tmp_path / "missing", None)
        assert codes(error) == ["missing-ckpt-root"]

    def test_the_directory_of_a_training_and_a_single_checkpoint(self, tmp_path, make_bundle):
        training, checkpoints = tmp_path, tmp_path / "checkpoints"
        make_bundle(checkpoints / "400", step=400)
        assert select_bundles(training, None) == select_bundles(checkpoints, None)
        assert select_bundles(training, [400]) == [checkpoints / "400"]
        assert select_bundles(checkpoints / "400", None) == [checkpoints / "400"]
        with pytest.raises(InvalidJob, match="nearest: 400; all: 400") as error:
            select_bundles(checkpoints / "400", [800])
        assert codes(error) == ["missing-step"]

    def test_an_empty_root(self, tmp_path):
        with pytest.raises(InvalidJob) as error:
            select_bundles(tmp_path, None)
        assert codes(error) == ["empty-ckpt-root"]

    def test_two_directories_of_one_step(self, root, make_bundle):
        make_bundle(root / "global_step_400", step=400)
        with pytest.raises(InvalidJob) as error:
            select_bundles(root, [800])
        assert codes(error) == ["ambiguous-step"]

    def test_a_bundle_under_the_name_of_another_step(self, root):
        (root / "step_800").rename(root / "900")
        with pytest.raises(InvalidJob, match="is the checkpoint of step 800") as error:
            select_bundles(root, None)
        assert codes(error) == ["wrong-step"]
        assert select_bundles(root, [400]) == [root / "400"]
