from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_isaac.config.schema import PolicyConfig
from rlinf_isaac.ground.errors import TokenizerError
from rlinf_isaac.pi0.tokenizer import (
    ByteTokenizer,
    SentencePieceTokenizer,
    clean_prompt,
    discrete_state_prompt,
    load_tokenizer,
    pad_tokens,
)

PROMPT = "Stack the red block on the blue block."


@pytest.fixture(scope="module")
def model_file(tmp_path_factory) -> Path:
    """A SentencePiece model of a few dozen pieces, with byte fallback as PaliGemma's."""
    sentencepiece = pytest.importorskip("sentencepiece")
    prefix = tmp_path_factory.mktemp("tokenizer") / "tiny"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([PROMPT, "Task: stack, State: 0 12 345 6789; Action:"] * 10),
        model_prefix=str(prefix),
        vocab_size=300,
        hard_vocab_limit=False,
        byte_fallback=True,
        minloglevel=2,
    )
    return prefix.with_suffix(".model")


def test_byte_tokens() -> None:
    assert ByteTokenizer().encode("ab") == [1, 99, 100, 12]  # BOS, a, b, newline


@settings(deadline=None)
@given(prompt=st.text(max_size=80))
def test_byte_tokens_spell_the_prompt(prompt: str) -> None:
    bos, *ids = ByteTokenizer().encode(prompt)
    assert bos == ByteTokenizer.BOS
    assert bytes(token - ByteTokenizer.OFFSET for token in ids).decode() == clean_prompt(prompt) + "\n"
    assert max(ids) < ByteTokenizer.vocab_size <= 300


def test_clean_prompt() -> None:
    assert clean_prompt("  pick_up\nthe cube \n") == "pick up the cube"


def test_discrete_state_format() -> None:
    state = np.array([-1.5, -1.0, 0.0, 0.999, 7.0])
    expected = "Task: stack it, State: -1 0 128 255 255;\nAction: "
    assert discrete_state_prompt(" stack_it", state) == expected
    assert ByteTokenizer().encode("stack_it", state)[1:] == [byte + 2 for byte in expected.encode()]


def test_sentencepiece_follows_openpi(model_file: Path) -> None:
    import sentencepiece

    raw = sentencepiece.SentencePieceProcessor(model_file=str(model_file))
    tokenizer = SentencePieceTokenizer(model_file)
    assert tokenizer.encode(f" {PROMPT}\n") == [raw.bos_id(), *raw.encode(PROMPT), *raw.encode("\n")]
    state = np.linspace(-1, 1, 8)
    expected = [raw.bos_id(), *raw.encode(discrete_state_prompt(PROMPT, state))]
    assert tokenizer.encode(PROMPT, state) == expected


def test_fingerprints_tell_tokenizers_apart(model_file: Path, tmp_path: Path) -> None:
    byte, piece = ByteTokenizer().fingerprint, SentencePieceTokenizer(model_file).fingerprint
    assert json.loads(json.dumps(byte)) == ByteTokenizer().fingerprint != piece
    copy = tmp_path / "other_name.model"
    copy.write_bytes(model_file.read_bytes())
    assert SentencePieceTokenizer(copy).fingerprint == piece == json.loads(json.dumps(piece))


def test_load_tokenizer(model_file: Path, tmp_path: Path, make_config) -> None:
    assert isinstance(load_tokenizer(PolicyConfig(), make_config(False)), ByteTokenizer)
    model = make_config(False, vocab_size=1000)
    assert isinstance(load_tokenizer(PolicyConfig(tokenizer=str(model_file)), model), SentencePieceTokenizer)
    with pytest.raises(TokenizerError, match=r"258 tokens, model\.vocab_size is 100"):
        load_tokenizer(PolicyConfig(), make_config(False, vocab_size=100))
    with pytest.raises(TokenizerError, match=r"missing\.model cannot be read"):
        load_tokenizer(PolicyConfig(tokenizer=str(tmp_path / "missing.model")), model)
    damaged = tmp_path / "damaged.model"
    damaged.write_bytes(b"not a model")
    with pytest.raises(TokenizerError, match="not a SentencePiece model"):
        load_tokenizer(PolicyConfig(tokenizer=str(damaged)), model)


def test_missing_package_names_the_extra(model_file: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(TokenizerError, match=r"rlinf-isaac\[tokenizer\]"):
        SentencePieceTokenizer(model_file)


def test_pad_tokens() -> None:
    tokens, mask = pad_tokens([[1, 2, 3], [4]], max_len=8)
    assert tokens.tolist() == [[1, 2, 3], [4, 0, 0]]
    assert mask.tolist() == [[True] * 3, [True, False, False]]
    assert tokens.dtype == np.int64
    assert pad_tokens([[1, 2, 3], [4]], max_len=8, length=8)[0].shape == (2, 8)
    with pytest.raises(TokenizerError, match=r"3 tokens, model\.max_token_len is 2"):
        pad_tokens([[1, 2, 3], [4]], max_len=2)
