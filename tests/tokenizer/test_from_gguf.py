"""GGUF metadata against the tokenizers it was made from, trained by `tokenizers` and `sentencepiece`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import byte_level_metadata, train_byte_level
from strings import STRINGS
from tokenizers import Regex, pre_tokenizers
from transformers.integrations.gguf.gguf_tokenizer_mapping import (
    GGUF_PRE_TOKENIZER_SPLITS,
    GGUF_TOKENIZER_MAPPING,
    convert_gguf_tokenizer,
)
from transformers.tokenization_utils_base import generate_merges

from lamina.errors import LaminaError
from lamina.tokenizer import Tokenizer
from lamina.tokenizer.splits import SPLITS

# As published in the tokenizer.json of deepseek-ai/DeepSeek-V3
DEEPSEEK_V3 = [
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
]


def _split(*patterns: str) -> Any:
    parts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    return pre_tokenizers.Sequence([*parts, pre_tokenizers.ByteLevel(False, use_regex=False)])


def _digits() -> Any:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)])


def _original(pre: str) -> Any:
    if pre in ("smollm", "refact", "command-r"):
        return _digits()
    if pre in ("default", "gpt-2", "olmo"):
        return pre_tokenizers.ByteLevel(False)
    return _split(*DEEPSEEK_V3) if pre == "deepseek-v3" else _split(GGUF_PRE_TOKENIZER_SPLITS[pre])


NFC = ("qwen2", "qwen35", "command-r", "olmo")
PRES = [
    *("default", "gpt-2", "smollm", "refact", "llama-bpe", "dbrx", "tekken", "gpt-4o", "deepseek-v3"),
    *("deepseek-r1-qwen", *NFC),
]


@pytest.mark.parametrize("pre", PRES)
def test_byte_level_ids_are_those_of_the_original(pre: str) -> None:
    original = train_byte_level(_original(pre), nfc=pre in NFC)
    tokenizer = Tokenizer.from_gguf(byte_level_metadata(original, pre))
    for text in STRINGS:
        assert tokenizer.encode(text) == original.encode(text).ids, text
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids, skip_special=False) == original.decode(ids, skip_special_tokens=False)


def test_every_named_split_compiles_and_loses_no_text() -> None:
    for name, split in SPLITS.items():
        sequence = _split(*split.patterns)
        for text in STRINGS:
            spans = [span for _, span in sequence.pre_tokenize_str(text)]
            assert "".join(text[a:b] for a, b in spans) == text, name


def test_sentencepiece_ids_are_those_of_sentencepiece(trained_pieces: Any) -> None:
    original, metadata = trained_pieces
    tokenizer = Tokenizer.from_gguf(metadata)
    control = ["<s>", "</s>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    compared = [text for text in STRINGS if not any(token in text for token in control)]
    assert len(compared) >= 200
    for text in compared:
        assert tokenizer.encode(text, special=False) == original.encode(text), text
    assert tokenizer.encode("hi") == [original.bos_id(), *original.encode("hi")]


def test_sentencepiece_decodes_as_sentencepiece(trained_pieces: Any) -> None:
    original, metadata = trained_pieces
    tokenizer = Tokenizer.from_gguf(metadata)
    for text in STRINGS:
        ids = original.encode(text)
        assert tokenizer.decode(ids, skip_special=False) == original.decode(ids), text


def test_gemma4_ids_are_those_of_transformers(pieces_bare: Any) -> None:
    """The same pieces, with the merges in the file."""
    metadata = pieces_bare[1] | {"tokenizer.ggml.model": "gemma4", "tokenizer.ggml.add_bos_token": True}
    tokens, scores = metadata["tokenizer.ggml.tokens"], metadata.pop("tokenizer.ggml.scores")
    pairs = generate_merges({t: i for i, t in enumerate(tokens)}, dict(zip(tokens, scores, strict=True)))
    metadata["tokenizer.ggml.merges"] = [" ".join(pair) for pair in pairs if " " not in "".join(pair)]
    names = GGUF_TOKENIZER_MAPPING["tokenizer"].items()
    fields = {name: metadata[f"tokenizer.{key}"] for key, name in names if f"tokenizer.{key}" in metadata}
    reference, _ = convert_gguf_tokenizer("gemma4", fields)
    tokenizer = Tokenizer.from_gguf(metadata)
    apart = (
        "  ",
        "▁",
        "<bos>",
        "<eos>",
        "<pad>",
        "<mask>",
    )  # it adds its own names, and merges runs of spaces
    compared = [text for text in STRINGS if not any(token in text for token in apart)]
    assert len(compared) >= 200
    for text in compared:
        assert tokenizer.encode(text) == reference.encode(text, add_special_tokens=False).ids, text


def test_runs_longer_than_any_whole_token_cut_as_sentencepiece_cuts(trained_pieces: Any) -> None:
    original, metadata = trained_pieces
    tokenizer = Tokenizer.from_gguf(metadata)
    for count in range(1, 40):
        for text in ("\n" * count, "\t" * count, "x" + " " * count + "y", " " * count, "▁" * count):
            assert tokenizer.encode(text, special=False) == original.encode(text)


def test_special_and_whole_tokens_are_found_in_text(trained_pieces: Any) -> None:
    original, metadata = trained_pieces
    tokenizer = Tokenizer.from_gguf(metadata)
    turn, think = original.piece_to_id("<start_of_turn>"), original.piece_to_id("<think>")
    assert tokenizer.encode("<start_of_turn>a", special=False) == [turn, *original.encode("a")]
    if not metadata["tokenizer.ggml.add_space_prefix"]:
        ids = tokenizer.encode("a<think>", special=False)
        assert ids == [*original.encode("a"), think]
        assert tokenizer.decode(ids) == "a<think>"
    assert tokenizer.eos_ids == (original.eos_id(), original.piece_to_id("<end_of_turn>"))
    assert (tokenizer.bos_id, tokenizer.unk_id) == (original.bos_id(), original.unk_id())
    assert tokenizer.vocab_size == original.get_piece_size()


def test_numpy_metadata_and_flags(trained_bytes: Any) -> None:
    extra = {"tokenizer.ggml.add_bos_token": np.bool_(True), "tokenizer.ggml.add_eos_token": True}
    metadata = byte_level_metadata(trained_bytes, "smollm", **extra)
    metadata["tokenizer.ggml.tokens"] = np.array(metadata["tokenizer.ggml.tokens"], dtype=object)
    metadata["tokenizer.ggml.token_type"] = np.array(metadata["tokenizer.ggml.token_type"], dtype=np.int32)
    metadata["tokenizer.ggml.eos_token_id"] = np.uint32(metadata["tokenizer.ggml.eos_token_id"])
    tokenizer = Tokenizer.from_gguf(metadata)
    bare = trained_bytes.encode("hi there").ids
    assert tokenizer.encode("hi there") == [tokenizer.bos_id, *bare, tokenizer.eos_ids[0]]
    assert tokenizer.encode("hi there", special=False) == bare


def test_llama3_names_imply_a_bos(trained_bytes: Any) -> None:
    metadata = byte_level_metadata(trained_bytes, "llama-bpe")
    del metadata["tokenizer.ggml.add_bos_token"]
    assert Tokenizer.from_gguf(metadata).encode("")[0] == metadata["tokenizer.ggml.bos_token_id"]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("tokenizer.ggml.model", "rwkv", "expected one of gpt2, llama, gemma4"),
        ("tokenizer.ggml.pre", "qwen-2", "did you mean 'qwen2'"),
        ("tokenizer.ggml.tokens", None, "tokenizer.ggml.tokens is missing"),
        ("tokenizer.ggml.tokens", ["a", "b", "a"], "has 'a' twice"),
        ("tokenizer.ggml.merges", ["ab"], "expected two tokens with a space"),
        ("tokenizer.ggml.merges", ["☃ ☃"], "does not fit"),
        ("tokenizer.ggml.token_type", [1, 2], "has shape"),
        ("tokenizer.ggml.token_type", "xy", "not a list of numbers"),
        ("tokenizer.ggml.eos_token_id", 10**6, "eos_token_id is 1000000: expected an id below"),
        ("tokenizer.ggml.add_bos_token", "yes", "expected true or false"),
        ("tokenizer.chat_template", 3, "must be a string"),
    ],
)
def test_bad_metadata_is_named(trained_bytes: Any, key: str, value: Any, said: str) -> None:
    metadata = byte_level_metadata(trained_bytes, "smollm")
    if key == "tokenizer.ggml.tokens" and value:
        metadata = {k: v for k, v in metadata.items() if not k.endswith("token_type")}
    with pytest.raises(LaminaError, match=said):
        Tokenizer.from_gguf(metadata | {key: value})


def test_bos_that_is_asked_for_but_not_there(trained_bytes: Any) -> None:
    metadata = byte_level_metadata(trained_bytes, "smollm", **{"tokenizer.ggml.add_bos_token": True})
    del metadata["tokenizer.ggml.bos_token_id"]
    with pytest.raises(LaminaError, match=r"add_bos_token .*bos_token_id is missing"):
        Tokenizer.from_gguf(metadata)


@pytest.mark.parametrize("scores", [None, [float("nan")] * 3, "long"])
def test_scores_that_cannot_be_used(trained_pieces: Any, scores: Any) -> None:
    metadata = dict(trained_pieces[1])
    count = len(metadata["tokenizer.ggml.tokens"])
    if scores is None:
        del metadata["tokenizer.ggml.scores"]
    else:
        metadata["tokenizer.ggml.scores"] = [0.0] * (count + 1) if scores == "long" else [float("nan")] * count
    with pytest.raises(LaminaError, match=r"tokenizer\.ggml\.scores"):
        Tokenizer.from_gguf(metadata)


def test_a_hostile_token_does_not_take_forever(trained_pieces: Any) -> None:
    metadata = dict(trained_pieces[1])
    metadata["tokenizer.ggml.tokens"] = [*metadata["tokenizer.ggml.tokens"][:-1], "a" * 10**6]
    with pytest.raises(LaminaError, match="at most 1024"):
        Tokenizer.from_gguf(metadata)
