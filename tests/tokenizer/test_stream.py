"""A stream's pieces, joined, are what decoding all ids says; nothing broken comes out on the way."""

from __future__ import annotations

import random
from typing import Any

import pytest
from conftest import byte_level_metadata
from strings import STRINGS
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from lamina.tokenizer import StreamDecoder, Tokenizer


@pytest.fixture(scope="module", params=["bytes", "pieces_prefix", "pieces_bare"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    if request.param == "bytes":
        return Tokenizer.from_gguf(byte_level_metadata(request.getfixturevalue("trained_bytes"), "smollm"))
    return Tokenizer.from_gguf(request.getfixturevalue(request.param)[1])


def _run(tokenizer: Tokenizer, ids: list[int], skip: bool = True) -> list[str]:
    stream = tokenizer.stream(skip_special=skip)
    return [*(stream.push(i) for i in ids), stream.finish()]


@pytest.mark.parametrize("skip", [True, False])
def test_texts(tokenizer: Tokenizer, skip: bool) -> None:
    for text in STRINGS:
        ids = tokenizer.encode(text)
        pieces = _run(tokenizer, ids, skip)
        assert "".join(pieces) == tokenizer.backend.decode(ids, skip_special_tokens=skip)
        if "\ufffd" not in text:
            assert not any("\ufffd" in piece for piece in pieces), text


@pytest.mark.parametrize("skip", [True, False])
def test_random_ids(tokenizer: Tokenizer, skip: bool) -> None:
    """Mostly invalid UTF-8, special tokens and ids outside the vocabulary among it."""
    rng = random.Random(7)
    short = [i for i in range(tokenizer.vocab_size) if len(tokenizer.token(i)) == 1 or tokenizer.token(i)[:3] == "<0x"]
    for trial in range(200):
        source = short if trial % 2 else range(tokenizer.vocab_size + 3)
        ids = [rng.choice(source) for _ in range(rng.randrange(1, 80))]
        assert "".join(_run(tokenizer, ids, skip)) == tokenizer.backend.decode(ids, skip_special_tokens=skip)


def test_what_was_pushed_is_a_prefix_and_comes_in_time(tokenizer: Tokenizer) -> None:
    text = "Hello, wörld! 你好 🙂 and then some plain words after it"
    stream, shown = tokenizer.stream(), ""
    ids = tokenizer.encode(text, special=False)
    for count, token_id in enumerate(ids, 1):
        shown += stream.push(token_id)
        sofar = tokenizer.decode(ids[:count])
        assert sofar.startswith(shown)
        if sofar.isascii():
            assert shown == sofar
    assert shown + stream.finish() == text


def test_the_first_space_is_dropped_once(trained_pieces: Any) -> None:
    tokenizer = Tokenizer.from_gguf(trained_pieces[1])
    space = tokenizer.backend.token_to_id("▁")
    bos, a = tokenizer.bos_id, tokenizer.backend.token_to_id("a")
    for ids in (
        [space] * 40,
        [bos, space, space, a],
        [space, bos, a, space],
        [bos] * 20 + [space, a, space, a],
    ):
        assert "".join(_run(tokenizer, ids)) == tokenizer.backend.decode(ids)


class _Counting:
    """A backend that counts the ids it is asked to decode."""

    def __init__(self, backend: Backend):
        self._backend, self.decoded = backend, 0

    def decode(self, ids: list[int], **options: Any) -> str:
        self.decoded += len(ids)
        return self._backend.decode(ids, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


@pytest.mark.parametrize("kind", ["text", "invalid"])
def test_the_work_is_linear(tokenizer: Tokenizer, kind: str) -> None:
    invalid = tokenizer.backend.token_to_id(
        "ÿ" if isinstance(tokenizer.backend.decoder, decoders.ByteLevel) else "<0xFF>"
    )
    ids = tokenizer.encode("plain words 你好 🙂 " * 300) if kind == "text" else [invalid] * 3000
    counting = _Counting(tokenizer.backend)
    stream = StreamDecoder(counting)  # type: ignore[arg-type]
    text = "".join([*(stream.push(i) for i in ids), stream.finish()])
    assert text == tokenizer.decode(ids)
    assert counting.decoded < 30 * len(ids)


def test_a_word_piece_decoder_gets_its_spaces() -> None:
    vocab = {"[UNK]": 0, "run": 1, "##ning": 2, "fast": 3, ",": 4}
    backend = Backend(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece(cleanup=False)
    tokenizer, ids = Tokenizer(backend), [1, 2, 3, 4, 1, 2] * 10
    assert "".join(_run(tokenizer, ids)) == backend.decode(ids)
