"""How byte-level vocabularies cut text before merging, by the names GGUF files use (`tokenizer.ggml.pre`).

A GGUF file does not hold its pre-tokenizer, only a name for it; the expressions are those of the
`tokenizer.json` files that the names stand for.

Source: llama.cpp `src/llama-vocab.cpp` (names, `ignore_merges`, `add_bos`) and the tokenizer classes of
    transformers 5.23.0 (NFC of Qwen, Cohere, GPT-NeoX)
Differs: llama.cpp rewrites what its own regex engine lacks; here are the original expressions, which
    `tokenizers` runs. llama.cpp never composes (NFC) although the tokenizers of these models do. `default`
    (files older than the key) is GPT-2's, as in transformers; llama.cpp cuts punctuation off first and warns.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Split:
    """A pre-tokenizer: expressions applied one after another, and the flags that go with the name."""

    patterns: tuple[str, ...]
    nfc: bool = False
    ignore_merges: bool = False  # a piece that is a token as a whole is taken without merging
    add_bos: bool = False  # where the file does not say


_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACE = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ASCII_PUNCTUATION = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""


def _words(digits: str) -> str:
    """The cl100k shape: endings, words with at most one leading mark, numbers, marks, white space."""
    return rf"{_ENDING}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*" + _SPACE


def _cased(digits: str, ending: str, upper: str = _UPPER, lower: str = _LOWER, marks: str = r"[\r\n/]*") -> str:
    """The o200k shape: as `_words`, cut also between lower and upper case."""
    lead = r"[^\r\n\p{L}\p{N}]?"
    words = rf"{lead}{upper}*{lower}+{ending}|{lead}{upper}+{lower}*{ending}"
    return rf"{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+{marks}" + _SPACE


_DIGIT, _THREE_DIGITS = r"\p{N}", r"\p{N}{1,3}"
_NOT_HAN = r"&&[^\p{Han}]]"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_GPT4O = _cased(_THREE_DIGITS, _ENDING + "?")
_KIMI = r"\p{Han}+|" + _cased(
    _THREE_DIGITS, _ENDING + "?", _UPPER[:-1] + _NOT_HAN, _LOWER[:-1] + _NOT_HAN, marks=r"[\r\n]*"
)
_DEEPSEEK3 = (
    _THREE_DIGITS,
    "[一-龥\u3040-ゟ゠-ヿ]+",
    rf"{_ASCII_PUNCTUATION}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*" + _SPACE,
)
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", _DIGIT)
_QWEN35 = rf"{_ENDING}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|{_DIGIT}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*" + _SPACE
_BAILING = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
_SEED = rf"{_ENDING}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+" + _SPACE
_TINY_AYA = (r"\d{1,3}(?=(?:\d{3})*\b)", _GPT4O)

_BY_SPLIT: list[tuple[Split, str]] = [
    (Split((_GPT2,)), "default gpt-2 phi-2 gigachat a.x-4.0 mellum exaone4 trillion granite-docling"),
    (Split((_GPT2,), nfc=True), "olmo mpt"),
    (Split((_DIGIT, _GPT2)), "smollm starcoder refact codeshell"),
    (Split((_DIGIT, _GPT2), nfc=True), "command-r"),
    (
        Split((_words(_THREE_DIGITS),), ignore_merges=True, add_bos=True),
        "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2",
    ),
    (Split((_words(_THREE_DIGITS),)), "dbrx smaug-bpe chatglm-bpe glm4"),
    (Split((_words(_DIGIT),), nfc=True), "qwen2"),
    (Split((_words(_DIGIT),)), "deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2"),
    (Split((_QWEN35,), nfc=True), "qwen35"),
    (Split((_cased(_DIGIT, ""),), ignore_merges=True, add_bos=True), "tekken"),
    (Split((_GPT4O,)), "gpt-4o llama4 kanana2 talkie minimax-m2"),
    (Split((_KIMI,)), "kimi-k2"),
    (Split(_DEEPSEEK3), "deepseek-v3 hunyuan-dense joyai-llm hy_v4"),
    (Split(_DEEPSEEK_CODER), "deepseek-coder"),
    (Split((_BAILING,)), "bailingmoe bailingmoe2 llada-moe"),
    (Split((_SEED,)), "seed-coder"),
    (Split((r"[^\n]+|[\n]+", _words(_DIGIT))), "laguna"),
    (Split(_TINY_AYA), "tiny_aya cohere2moe"),
]

SPLITS: dict[str, Split] = {name: split for split, names in _BY_SPLIT for name in names.split()}
