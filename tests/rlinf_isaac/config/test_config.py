import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from rlinf_isaac.config import PRESETS, build_config, flatten, known_keys, load_config, preset_names, split_overrides
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.pi0.layout import state_dict_shapes


def codes(error: InvalidJob) -> list[str]:
    return [problem.code for problem in error.problems]


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_is_complete(preset):
    config = load_config(preset)
    assert config.preset == preset
    assert config.policy.action_chunk <= config.model.action_horizon
    assert config.model.vision.image_size % config.model.vision.patch_size == 0


@pytest.mark.parametrize("family", ["pi0", "pi05"])
def test_the_presets_for_a_base_are_openpis_recipe(family):
    """`Pi0Config`, `TrainConfig`, `CosineDecaySchedule` and `AdamW` of OpenPI, as they are without a word."""
    config, plain = load_config(f"{family}_base"), load_config(family)
    model, sft = config.model, config.sft
    assert (model.action_dim, model.action_horizon, model.max_token_len) == (32, 50, 48 if family == "pi0" else 200)
    assert model.pi05 == model.discrete_state_input == (family == "pi05")
    assert (model.vlm, model.expert, model.vision) == (plain.model.vlm, plain.model.expert, plain.model.vision)
    assert (sft.steps, sft.batch_size, sft.warmup_steps, sft.decay_steps) == (30_000, 32, 1_000, 30_000)
    assert (sft.lr, sft.lr * sft.final_lr_ratio) == (2.5e-5, pytest.approx(2.5e-6))
    assert (sft.beta1, sft.beta2, sft.weight_decay, sft.clip_grad_norm) == (0.9, 0.95, 1e-10, 1.0)
    assert (sft.ema_decay, sft.trainable, sft.loss_on_real_dims) == (0.99, "all", False)
    assert (config.compute.dtype, config.compute.master_weights) == ("bfloat16", True)
    assert load_config(f"{family}_base", ["sft.steps=20000"]).sft.decay_steps == 30_000


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


LOOKED_UP = {
    "policy.asset_id": "'${oc.env:SECRET}'",
    "policy.norm": "'a ${oc.env:SECRET} b'",
    "policy.tokenizer": "'${policy.asset_id}'",
    "policy.delta_actions": "'${mine:1}'",
    "rl.value_widths": "['${oc.env:SECRET}', 64]",
    "rl.lr": "[64, [1, {a: ['${oc.decode:${oc.env:SECRET}}']}]]",
}


@pytest.mark.parametrize("key", LOOKED_UP)
def test_environment_variables_never_reach_a_config(key, monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET", "12345")
    OmegaConf.register_new_resolver("mine", lambda value: "12345", replace=True)
    section, _, name = key.partition(".")
    preset = tmp_path / "mine.yaml"
    preset.write_text(f"base: tiny\n{section}: {{{name}: {LOOKED_UP[key]}}}\n")
    for load in (
        lambda: load_config("tiny", [f"{key}={LOOKED_UP[key]}"]),
        lambda: load_config("tiny", [f"{section}={{{name}: {LOOKED_UP[key]}}}"]),
        lambda: load_config(str(preset)),
        lambda: build_config({section: {name: yaml.safe_load(LOOKED_UP[key])}}, "a checkpoint"),
    ):
        with pytest.raises(InvalidJob) as error:
            load()
        assert error.value.problems[0].code == "interpolation"
        assert "12345" not in str(error.value)


def test_numbers_beyond_64_bits(tmp_path):
    for value in ("9" * 20, "9" * 400, f"-{'9' * 20}"):
        with pytest.raises(InvalidJob, match="more than 64 bits"):
            load_config("tiny", [f"sft.steps={value}"])


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


@pytest.mark.parametrize("quote", ["'", '"'])
def test_quotes_keep_their_commas(quote):
    items = split_overrides(f"policy.delta_actions={quote}6,-1{quote},sft.steps=3")
    assert items == [f"policy.delta_actions={quote}6,-1{quote}", "sft.steps=3"]
    assert load_config("tiny", items).policy.delta_actions == "6,-1"


def test_the_first_preset_of_an_architecture_is_the_plain_one():
    """It is the one that `bundle make` takes where it recognises an architecture by its weights."""
    first: dict[str, str] = {}
    for preset in preset_names():
        first.setdefault(repr(sorted(state_dict_shapes(load_config(preset).model).items())), preset)
    assert sorted(first.values()) == ["pi0", "pi05", "small", "tiny"]
