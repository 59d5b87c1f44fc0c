import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlinf_isaac.config import PRESETS, build_config, flatten, known_keys, load_config, preset_names, split_overrides
from rlinf_isaac.errors import InvalidJob


def codes(error: InvalidJob) -> list[str]:
    return [problem.code for problem in error.problems]


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_is_complete(preset):
    config = load_config(preset)
    assert config.preset == preset
    assert config.policy.action_chunk <= config.model.action_horizon
    assert config.model.vision.image_size % config.model.vision.patch_size == 0


def test_overrides_win_and_keep_their_types():
    config = load_config("tiny", ["sft.lr=3e-4", "eval.episodes=7", "policy.tokenizer=x.model"])
    assert (config.sft.lr, config.eval.episodes, config.policy.tokenizer) == (3e-4, 7, "x.model")


def test_all_problems_are_reported_at_once():
    with pytest.raises(InvalidJob) as caught:
        load_config("tiny", ["sft.larning_rate=1", "foo", "sft.steps=abc", "evil.episodes=3"])
    assert sorted(codes(caught.value)) == ["bad-override", "bad-value", "unknown-key", "unknown-key"]
    assert "sft.lr" in str(caught.value), "the message lists what the section does know"


def test_a_near_miss_names_the_key_meant():
    with pytest.raises(InvalidJob, match=r"did you mean sft\.batch_size"):
        load_config("tiny", ["sft.batchsize=3"])


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(InvalidJob, match=r"pi0, .*pi05, .*small, tiny"):
        load_config("tinny")


def test_a_preset_may_be_a_file_and_its_gaps_are_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("preset: mine\nsft: {steps: 5}\n")
    with pytest.raises(InvalidJob) as caught:
        load_config(str(path))
    assert "sft.save_interval" in str(caught.value)
    assert set(codes(caught.value)) == {"missing-value"}


def test_a_preset_may_stand_on_another(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: tiny\npreset: mine\nsft: {steps: 5}\neval:\n")
    assert load_config(str(path)) == load_config("tiny", ["preset=mine", "sft.steps=5"])
    path.write_text("base: tinny\n")
    with pytest.raises(InvalidJob, match="no preset 'tinny'"):
        load_config(str(path))


def test_a_config_survives_the_way_into_a_checkpoint_and_back():
    config = load_config("pi05", ["sft.lr=1e-4"])
    nested: dict = {}
    for key, value in flatten(config).items():
        *path, leaf = key.split(".")
        node = nested
        for name in path:
            node = node.setdefault(name, {})
        node[leaf] = value
    assert build_config(nested, "a checkpoint") == config


def test_a_section_is_no_value_and_may_be_empty(tmp_path):
    with pytest.raises(InvalidJob, match="sft is a section"):
        load_config("tiny", ["sft=5"])
    preset = tmp_path / "mine.yaml"
    preset.write_text((PRESETS / "tiny.yaml").read_text() + "\neval:\n")
    assert load_config(str(preset)) == load_config("tiny")


def test_environment_variables_never_reach_a_config(monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    with pytest.raises(InvalidJob) as error:
        load_config("tiny", ["policy.asset_id=${oc.env:SECRET}"])
    assert error.value.problems[0].code == "interpolation"
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("text", ["sft.lr=[1,", "sft.lr={a: }}"])
def test_an_override_that_yaml_cannot_read(text):
    with pytest.raises(InvalidJob) as error:
        load_config("tiny", [text])
    assert error.value.problems[0].code == "bad-override"


def test_flatten_covers_exactly_the_known_keys():
    assert sorted(flatten(load_config("tiny"))) == sorted(known_keys())


@pytest.mark.parametrize("text", ["none", "auto", "", "  "])
def test_no_overrides(text):
    assert split_overrides(text) == []


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[a-z]+(\.[a-z_]+)?", fullmatch=True),
            st.from_regex(r"[\w.+-]+|\[\d(,\d)*\]", fullmatch=True),
        ),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([",", " ", ", ", "\n"]),
)
def test_split_overrides_round_trip(pairs, separator):
    items = [f"{key}={value}" for key, value in pairs]
    assert split_overrides(separator.join(items)) == items


def test_quotes_keep_their_commas():
    items = split_overrides("policy.delta_actions='6,-1',sft.steps=3")
    assert items == ["policy.delta_actions='6,-1'", "sft.steps=3"]
    assert load_config("tiny", items).policy.delta_actions == "6,-1"
