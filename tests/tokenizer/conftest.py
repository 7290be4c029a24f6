"""Small tokenizers trained here by the libraries' own trainers, and the same as GGUF metadata."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

sys.path.insert(0, str(Path(__file__).parent))

from strings import STRINGS

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<｜User｜>"]
WHOLE = ["<think>", "</think>", "\n\n"]
RUNS = ["▁▁", "▁▁▁", "▁▁▁▁", "\n", "\n\n", "\t"]


def train_byte_level(pre_tokenizer: Any, nfc: bool = False) -> tokenizers.Tokenizer:
    """A byte-level BPE of 1,500 tokens trained on the comparison strings, with special and whole tokens."""
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizer
    trained.decoder = decoders.ByteLevel()
    if nfc:
        trained.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(STRINGS * 3, trainer)
    trained.add_tokens([AddedToken(token, normalized=False) for token in WHOLE])
    return trained


def byte_level_metadata(trained: tokenizers.Tokenizer, pre: str, **extra: Any) -> dict[str, Any]:
    """What a GGUF file would hold of a byte-level tokenizer."""
    vocab = trained.get_vocab(with_added_tokens=True)
    tokens = sorted(vocab, key=vocab.__getitem__)
    kinds = dict.fromkeys(SPECIAL, 3) | dict.fromkeys(WHOLE, 4)
    merges = json.loads(trained.to_str())["model"]["merges"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [kinds.get(token, 1) for token in tokens],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in merges],
        "tokenizer.ggml.eos_token_id": vocab["<|im_end|>"],
        "tokenizer.ggml.bos_token_id": vocab["<|endoftext|>"],
        "tokenizer.ggml.add_bos_token": False,
        **extra,
    }


def train_sentencepiece(prefix: bool) -> sentencepiece.SentencePieceProcessor:
    """A SentencePiece BPE of 1,200 pieces with byte fallback; like Llama's with a prefix, else like Gemma's.

    Gemma has runs of spaces as whole symbols. Together with a prefix they are cut in another way by each of
    SentencePiece, llama.cpp and `tokenizers`; no published model has both.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([s for s in STRINGS if s and "\x00" not in s] * 3),
        model_writer=model,
        model_type="bpe",
        vocab_size=1200,
        byte_fallback=True,
        character_coverage=0.98,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=prefix,
        user_defined_symbols=[] if prefix else [*RUNS, "<think>"],
        control_symbols=["<start_of_turn>", "<end_of_turn>"],
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def sentencepiece_metadata(trained: sentencepiece.SentencePieceProcessor, prefix: bool) -> dict[str, Any]:
    """What a GGUF file would hold of it (llama.cpp writes the spaces of whole symbols as spaces)."""
    tokens, scores, kinds = [], [], []
    for i in range(trained.get_piece_size()):
        piece, score = trained.id_to_piece(i), trained.get_score(i)
        kind = 2 if trained.is_unknown(i) else 3 if trained.is_control(i) else 6 if trained.is_byte(i) else 1
        if not prefix and piece in (*RUNS, "<think>"):
            kind, piece, score = 4, piece.replace("▁", " "), -1000.0
        tokens.append(piece)
        scores.append(score)
        kinds.append(kind)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": trained.bos_id(),
        "tokenizer.ggml.eos_token_id": trained.eos_id(),
        "tokenizer.ggml.unknown_token_id": trained.unk_id(),
        "tokenizer.ggml.add_space_prefix": prefix,
    }


@pytest.fixture(scope="session")
def trained_bytes() -> tokenizers.Tokenizer:
    return train_byte_level(
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)])
    )


@pytest.fixture(scope="session")
def pieces_prefix() -> tuple[sentencepiece.SentencePieceProcessor, dict[str, Any]]:
    trained = train_sentencepiece(prefix=True)
    return trained, sentencepiece_metadata(trained, prefix=True)


@pytest.fixture(scope="session")
def pieces_bare() -> tuple[sentencepiece.SentencePieceProcessor, dict[str, Any]]:
    trained = train_sentencepiece(prefix=False)
    return trained, sentencepiece_metadata(trained, prefix=False)


@pytest.fixture(params=["pieces_prefix", "pieces_bare"])
def trained_pieces(
    request: pytest.FixtureRequest,
) -> tuple[sentencepiece.SentencePieceProcessor, dict[str, Any]]:
    return request.getfixturevalue(request.param)
