"""A tokenizer from the metadata of a GGUF file.

Three kinds of vocabulary are known, by `tokenizer.ggml.model`: `gpt2` (byte-level BPE with merges), `llama`
(SentencePiece BPE: scores instead of merges, bytes as a fallback) and `gemma4` (the same with merges, and no
BOS whatever the file says: its chat template writes it; so in transformers, while llama.cpp adds one).

Source: llama.cpp `src/llama-vocab.cpp`; SentencePiece `bpe_model.cc`
Differs: from transformers 5.23.0's reading of GGUF (`integrations/gguf/gguf_tokenizer_mapping.py`), where
    that departs from SentencePiece, llama.cpp or the model's own tokenizer:
    - user-defined tokens of SentencePiece (Gemma's runs of spaces) are matched whole, longest first; there,
      space runs are merged pair by pair, so runs of 32 and more (longer than Gemma's longest) cut differently
    - control, user-defined, byte and unknown tokens are never the result or a part of a merge
    - `add_space_prefix` is followed, as in llama.cpp: a space before each stretch of text between added
      tokens, also where it begins with one; there it is ignored (first stretch only, never a second space)
    - the pre-tokenizer follows `tokenizer.ggml.pre` for every known name, with NFC, `ignore_merges` and a BOS
      where the name implies them; there many fall back to GPT-2's (SmolLM's digits are not cut apart)
    - control tokens of byte-level vocabularies are special in any script (`<｜User｜>`); there not
    - the ends are more than one id: the file's EOS, EOT and EOM, and control tokens known to end a turn
    From SentencePiece: where neighbours make the same token in two ways ("a"+"aa", "aa"+"a"), the longer left
    part goes first, where SentencePiece takes the leftmost (tokenizer.json files have the same limit); and a
    prefix space with user-defined tokens in the text follows llama.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from lamina.errors import LaminaError, closest
from lamina.tokenizer.splits import SPLITS
from lamina.tokenizer.tokenizer import Tokenizer, add_at_ends

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4
_LONGEST_PIECE = 1024  # characters; deriving merges costs the square of it
_KEY = "tokenizer.ggml."
_NAMES = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
_SENTENCEPIECE_IDS = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}  # where the file is silent
_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")  # files often name only the end of a text


def read_gguf(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer described by GGUF keys and values (plain Python or numpy).

    Raises: LaminaError if the kind or the pre-tokenizer is unknown, or a key is missing or does not fit
    """
    kind = metadata.get(_KEY + "model")
    if kind not in ("gpt2", "llama", "gemma4"):
        raise LaminaError(f"{_KEY}model is {kind!r}: expected one of gpt2, llama, gemma4")
    tokens = [token or f"[EMPTY_{i}]" for i, token in enumerate(_strings(metadata, "tokens"))]
    types = _numbers(metadata, "token_type", len(tokens))
    types = np.full(len(tokens), _NORMAL) if types is None else types
    vocab = {token: i for i, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        twice = next(token for i, token in enumerate(tokens) if vocab[token] != i)
        raise LaminaError(f"{_KEY}tokens has {twice!r} twice: each token must be there once")
    ids = {key: _token_id(metadata, key, kind, len(tokens)) for key in _NAMES.values()}
    if kind == "gpt2":
        backend, add_bos = _byte_level(metadata, vocab)
    else:
        unknown = ids["unknown_token_id"]
        backend = _sentencepiece(metadata, vocab, types, None if unknown is None else tokens[unknown])
        add_bos = kind == "llama"
    names = {name: tokens[i] for name, key in _NAMES.items() if (i := ids[key]) is not None}
    _add_tokens(backend, tokens, types, names)
    bos = _added(metadata, "bos", names, add_bos) if kind != "gemma4" else None
    eos = _added(metadata, "eos", names, False)
    add_at_ends(backend, bos, eos)
    ends = [_token_id(metadata, key, "", len(tokens)) for key in ("eos_token_id", "eot_token_id", "eom_token_id")]
    ends += [vocab[token] for token in _TURN_ENDS if token in vocab and types[vocab[token]] == _CONTROL]
    return Tokenizer(backend, names, [i for i in ends if i is not None], _chat_templates(metadata))


def _byte_level(metadata: Mapping[str, Any], vocab: dict[str, int]) -> tuple[tokenizers.Tokenizer, bool]:
    """GPT-2's kind: text as bytes, cut by the named expressions, merged in the file's order."""
    name = metadata.get(_KEY + "pre", "default")
    if name not in SPLITS:
        raise LaminaError(f"{_KEY}pre is {name!r}, an unknown pre-tokenizer; {closest(str(name), SPLITS)}")
    split = SPLITS[name]
    model = _bpe(vocab, _merges(metadata), ignore_merges=split.ignore_merges)
    backend = tokenizers.Tokenizer(model)
    if split.nfc:
        backend.normalizer = normalizers.NFC()
    parts: list[Any] = [pre_tokenizers.Split(Regex(p), behavior="isolated") for p in split.patterns]
    parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    backend.pre_tokenizer = pre_tokenizers.Sequence(parts)
    backend.decoder = decoders.ByteLevel()
    return backend, split.add_bos


def _sentencepiece(
    metadata: Mapping[str, Any], vocab: dict[str, int], types: np.ndarray, unknown: str | None
) -> tokenizers.Tokenizer:
    """SentencePiece's BPE: spaces as ▁, no cutting, unknown characters as bytes."""
    has_bytes = all(f"<0x{byte:02X}>" in vocab for byte in range(256))
    if not has_bytes and unknown is None:
        raise LaminaError(f"{_KEY}tokens needs all byte tokens <0x00> to <0xFF>, or {_KEY}unknown_token_id")
    if _KEY + "merges" in metadata:
        merges = _merges(metadata)
    else:
        merges = _merges_from_scores(vocab, _numbers(metadata, "scores", len(vocab)), types)
    model = _bpe(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=has_bytes)
    backend = tokenizers.Tokenizer(model)
    is_gemma4 = metadata.get(_KEY + "model") == "gemma4"
    prefix = _flag(metadata, "add_space_prefix", not is_gemma4)
    escape = normalizers.Replace(" ", "▁")
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), escape]) if prefix else escape
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return backend


def _merges_from_scores(vocab: dict[str, int], scores: np.ndarray | None, types: np.ndarray) -> list[tuple[str, str]]:
    """Every way to join two normal tokens to a third, the best score first.

    SentencePiece joins the neighbours whose joined token scores best; a ranked list of pairs does the same if
    all pairs of a token stand at the place of its score.
    """
    if scores is None:
        raise LaminaError(f"{_KEY}scores is missing: a llama vocabulary needs scores, or {_KEY}merges")
    if not np.isfinite(scores).all():
        raise LaminaError(f"{_KEY}scores has values that are not finite numbers")
    tokens = list(vocab)
    normal = {token for token, kind in zip(tokens, types.tolist(), strict=True) if kind == _NORMAL}
    longest = max(map(len, normal), default=0)
    if longest > _LONGEST_PIECE:
        raise LaminaError(f"{_KEY}tokens has a token of {longest} characters; at most {_LONGEST_PIECE} are accepted")
    merges = []
    for i in np.argsort(-scores, kind="stable").tolist():
        token = tokens[i]
        if token in normal:
            for cut in range(len(token) - 1, 0, -1):
                if (left := token[:cut]) in normal and (right := token[cut:]) in normal:
                    merges.append((left, right))
    return merges


def _bpe(vocab: dict[str, int], merges: list[tuple[str, str]], **options: Any) -> models.BPE:
    try:
        return models.BPE(vocab=vocab, merges=merges, **options)
    except Exception as error:  # the library raises bare Exception
        raise LaminaError(f"{_KEY}merges does not fit {_KEY}tokens: {error}") from None


def _add_tokens(backend: tokenizers.Tokenizer, tokens: list[str], types: np.ndarray, names: dict[str, str]) -> None:
    """Control tokens as special ones, user-defined tokens as ones that are matched whole."""
    special = [tokens[i] for i in np.flatnonzero(np.isin(types, (_CONTROL, _UNKNOWN))).tolist()]
    special += [token for token in names.values() if token not in special]
    whole = [tokens[i] for i in np.flatnonzero(types == _USER_DEFINED).tolist()]
    backend.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in special])
    # Looked for in the normalized text, so that "  " also finds a written "▁▁", as in SentencePiece. Where
    # the normalizer puts a ▁ in front, it would do so to the token as well, and find nothing.
    normalized = isinstance(backend.normalizer, normalizers.Replace)
    named = set(names.values())
    backend.add_tokens([AddedToken(t, normalized=normalized, special=False) for t in whole if t not in named])


def _added(metadata: Mapping[str, Any], end: str, names: dict[str, str], default: bool) -> str | None:
    """The token that goes before or after every text, if the file or its kind asks for one."""
    if not _flag(metadata, f"add_{end}_token", default):
        return None
    if f"{end}_token" not in names:
        raise LaminaError(f"{_KEY}add_{end}_token is true (or implied), but {_KEY}{end}_token_id is missing")
    return names[f"{end}_token"]


def _merges(metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The file's merges; the space between the halves is looked for behind the first character."""
    pairs = []
    for merge in _strings(metadata, "merges"):
        cut = merge.find(" ", 1)
        if cut < 0 or cut == len(merge) - 1:
            raise LaminaError(f"{_KEY}merges has {merge!r}: expected two tokens with a space between them")
        pairs.append((merge[:cut], merge[cut + 1 :]))
    return pairs


def _strings(metadata: Mapping[str, Any], key: str) -> list[str]:
    value = metadata.get(_KEY + key)
    found = list(value) if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes) else []
    if not found or not all(isinstance(item, str) for item in found):
        raise LaminaError(f"{_KEY}{key} is missing or not a list of strings")
    return found


def _numbers(metadata: Mapping[str, Any], key: str, count: int) -> np.ndarray | None:
    if _KEY + key not in metadata:
        return None
    try:
        values = np.asarray(metadata[_KEY + key], dtype=np.float64)
    except (TypeError, ValueError):
        raise LaminaError(f"{_KEY}{key} is not a list of numbers") from None
    if values.shape != (count,):
        raise LaminaError(f"{_KEY}{key} has shape {values.shape}: expected one number for each of {count} tokens")
    return values


def _flag(metadata: Mapping[str, Any], key: str, default: bool) -> bool:
    value = metadata.get(_KEY + key, default)
    if not isinstance(value, bool | np.bool_):
        raise LaminaError(f"{_KEY}{key} is {value!r}: expected true or false")
    return bool(value)


def _token_id(metadata: Mapping[str, Any], key: str, kind: str, count: int) -> int | None:
    default = _SENTENCEPIECE_IDS.get(key) if kind == "llama" else None
    value = metadata.get(_KEY + key, default if default is not None and default < count else None)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < count:
        raise LaminaError(f"{_KEY}{key} is {value!r}: expected an id below {count}")
    return int(value)


def _chat_templates(metadata: Mapping[str, Any]) -> dict[str, str]:
    """`tokenizer.chat_template` and the named ones, `tokenizer.chat_template.NAME`."""
    base = "tokenizer.chat_template"
    found = {key[len(base) + 1 :] or "default": metadata[key] for key in metadata if key.startswith(base)}
    found.pop("s", None)  # tokenizer.chat_templates is the list of the names
    if not all(isinstance(template, str) for template in found.values()):
        raise LaminaError(f"{base} must be a string")
    return found
