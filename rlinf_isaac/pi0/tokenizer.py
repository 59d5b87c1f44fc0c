"""Prompt tokenizers. A checkpoint records the fingerprint of its tokenizer, so that no other one is used with it.

`ByteTokenizer` needs no file and suits models trained from scratch. `SentencePieceTokenizer` is OpenPI's
``PaligemmaTokenizer`` with a local model file. Source of the prompt formats: ``openpi/models/tokenizer.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rlinf_isaac.config.schema import ModelConfig, PolicyConfig
from rlinf_isaac.ground.digest import bytes_digest, json_digest
from rlinf_isaac.ground.errors import TokenizerError
from rlinf_isaac.ground.reading import TooLarge, read_bytes

TOKENIZER_URL = "https://storage.googleapis.com/big_vision/paligemma_tokenizer.model"
"""Where OpenPI gets PaliGemma's SentencePiece model from (4 MB)."""
TOKENIZER_CURE = (
    f"curl -O {TOKENIZER_URL} gets PaliGemma's SentencePiece model; "
    "set policy.tokenizer to its path, unless it is in the working directory"
)

MAX_BYTES = 64_000_000
"""Largest SentencePiece model that is read. PaliGemma's has 4 MB."""

STATE_BIN_EDGES = np.linspace(-1, 1, 256 + 1)[:-1]
"""Left edges of the 256 bins of a normalised state in pi0.5's prompt. A value below the first edge is in bin -1."""


class Tokenizer(Protocol):
    """Turns a prompt, and for pi0.5 with discrete state the normalised state (D,), into token ids."""

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        ...

    @property
    def fingerprint(self) -> dict[str, Any]:
        """JSON values that identify the tokenizer: ``kind``, ``vocab_size``, ``sha256``."""
        ...

    def encode(self, prompt: str, state: np.ndarray | None = None) -> list[int]:
        """Token ids, the beginning-of-sequence token first, without padding."""
        ...


class ByteTokenizer:
    """One token per UTF-8 byte: 0 is padding, 1 is the beginning of the sequence, byte b is token b + 2."""

    BOS = 1
    OFFSET = 2
    vocab_size = 256 + OFFSET

    @property
    def fingerprint(self) -> dict[str, Any]:
        """See `Tokenizer.fingerprint`. The digest is of the byte layout."""
        definition = {"bos": self.BOS, "offset": self.OFFSET}
        return {"kind": "byte", "vocab_size": self.vocab_size, "sha256": json_digest(definition)}

    def encode(self, prompt: str, state: np.ndarray | None = None) -> list[int]:
        text = clean_prompt(prompt) + "\n" if state is None else discrete_state_prompt(prompt, state)
        return [self.BOS, *(byte + self.OFFSET for byte in text.encode())]


class SentencePieceTokenizer:
    """A SentencePiece model, used as OpenPI uses PaliGemma's. Needs the optional package ``sentencepiece``.

    Raises TokenizerError when the package or the file is missing, or the file is not a SentencePiece model.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            import sentencepiece
        except ImportError:
            raise TokenizerError.of(
                "no-sentencepiece",
                f"policy.tokenizer {str(path)!r} needs the package sentencepiece",
                "pip install 'rlinf-isaac[tokenizer]'",
            ) from None
        try:
            proto = read_bytes(path, MAX_BYTES)
        except OSError as error:
            cause = f"the tokenizer {path} cannot be read: {error.strerror}"
            raise TokenizerError.of("no-tokenizer", cause, TOKENIZER_CURE) from error
        except TooLarge as error:
            raise TokenizerError.of("bad-tokenizer", f"the tokenizer {path}: {error}", TOKENIZER_CURE) from error
        self._sha256 = bytes_digest(proto)
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
        except RuntimeError:
            raise TokenizerError.of("bad-tokenizer", f"{path} is not a SentencePiece model", TOKENIZER_CURE) from None

    @property
    def vocab_size(self) -> int:
        """Number of pieces in the model file."""
        return self._processor.vocab_size()

    @property
    def fingerprint(self) -> dict[str, Any]:
        """See `Tokenizer.fingerprint`. The digest is of the model file."""
        return {"kind": "sentencepiece", "vocab_size": self.vocab_size, "sha256": self._sha256}

    def encode(self, prompt: str, state: np.ndarray | None = None) -> list[int]:
        if state is not None:
            return self._processor.encode(discrete_state_prompt(prompt, state), add_bos=True)
        # The newline is the "start of answer" token. Encoded together with the prompt, it could be merged into a piece
        # of the prompt.
        return self._processor.encode(clean_prompt(prompt), add_bos=True) + self._processor.encode("\n")


def clean_prompt(prompt: str) -> str:
    """The prompt stripped and on one line, with blanks for underscores."""
    return prompt.strip().replace("_", " ").replace("\n", " ")


def discrete_state_prompt(prompt: str, state: np.ndarray) -> str:
    """pi0.5's prompt with the normalised state (D,) as bin numbers."""
    bins = np.digitize(state, bins=STATE_BIN_EDGES) - 1
    return f"Task: {clean_prompt(prompt)}, State: {' '.join(map(str, bins))};\nAction: "


def load_tokenizer(policy: PolicyConfig, model: ModelConfig) -> Tokenizer:
    """Loads the tokenizer that `policy.tokenizer` names: ``byte``, or the path of a SentencePiece model.

    Raises:
        TokenizerError: the tokenizer cannot be loaded, or has more tokens than the model has embeddings.
    """
    tokenizer = ByteTokenizer() if policy.tokenizer == "byte" else SentencePieceTokenizer(policy.tokenizer)
    if tokenizer.vocab_size > model.vocab_size:
        sizes = f"has {tokenizer.vocab_size} tokens, model.vocab_size is {model.vocab_size}"
        cause = f"policy.tokenizer {policy.tokenizer} {sizes}"
        raise TokenizerError.of("tokenizer-vocab", cause, "use the tokenizer the model was trained with")
    return tokenizer


def pad_tokens(encoded: list[list[int]], max_len: int, length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Token lists as arrays: tokens (N, L) int64 padded with 0, and mask (N, L) bool.

    L is `length`, or else the length of the longest list. Padding is masked everywhere, so its amount changes nothing.

    Raises:
        TokenizerError: a list is longer than `max_len`. OpenPI truncates such prompts, which can change the task.
    """
    longest = max(map(len, encoded))
    if longest > max_len:
        raise TokenizerError.of(
            "prompt-length",
            f"a prompt has {longest} tokens, model.max_token_len is {max_len}",
            "shorten the prompt, or raise model.max_token_len",
        )
    tokens = np.zeros((len(encoded), length or longest), dtype=np.int64)
    mask = np.zeros(tokens.shape, dtype=bool)
    for row, ids in enumerate(encoded):
        tokens[row, : len(ids)] = ids
        mask[row, : len(ids)] = True
    return tokens, mask
