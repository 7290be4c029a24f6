"""Reading a published config.json so that nothing in it is passed over in silence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lamina.errors import LaminaError

IGNORED = {
    "storage": [
        "torch_dtype",
        "dtype",
        "use_bfloat16",
        "quantization_config",
        "tf_legacy_loss",
        "torchscript",
    ],
    "training": [
        *["initializer_range", "attention_dropout", "hidden_dropout", "dropout", "embd_pdrop", "resid_pdrop"],
        *["attn_pdrop", "use_cache", "pretraining_tp", "gradient_checkpointing", "z_loss"],
        *["problem_type", "label2id", "id2label", "num_labels", "finetuning_task", "task_specific_params"],
    ],
    "provenance": ["architectures", "transformers_version", "_name_or_path", "auto_map", "name_or_path"],
    "generation": [
        *[
            "bos_token_id",
            "eos_token_id",
            "pad_token_id",
            "sep_token_id",
            "decoder_start_token_id",
            "max_length",
        ],
        *["cache_implementation", "temperature", "top_k", "top_p", "do_sample", "unk_token_id", "prefix"],
        *["bad_words_ids", "begin_suppress_tokens", "diversity_penalty", "early_stopping", "length_penalty"],
        *["encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "forced_bos_token_id"],
        *["forced_eos_token_id", "min_length", "no_repeat_ngram_size", "num_beam_groups", "num_beams"],
        *["num_return_sequences", "output_scores", "remove_invalid_values", "repetition_penalty"],
        *["return_dict_in_generate", "suppress_tokens", "tokenizer_class", "typical_p"],
    ],
    "how the reference runs": [
        *[
            "output_attentions",
            "output_hidden_states",
            "return_dict",
            "chunk_size_feed_forward",
            "torch_compile",
        ],
        *["_attn_implementation", "_attn_implementation_autoset", "attn_implementation", "pruned_heads"],
        *["_flash_attn_2_enabled", "use_return_dict", "use_mamba_kernels", "experts_implementation"],
    ],
}
"""Keys that say nothing about the architecture, by reason."""

HARMLESS = {
    "is_decoder": False,
    "is_encoder_decoder": False,
    "add_cross_attention": False,
    "tie_encoder_decoder": False,
}
"""Keys that every config may hold, and the one value each may have."""

LATER = "it is of layers that predict later tokens, which are left out"

REASONS = {key: reason for reason, keys in IGNORED.items() for key in keys}

_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a string",
    list: "a list",
    dict: "an object",
}
_REQUIRED: Any = object()


def shown(value: Any) -> str:
    """A value from a file, cut so that it fits in a sentence."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply; a number of too many digits
        return f"a very large {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


class Config:
    """A config.json, read key by key; `finish` raises on what nobody read.

    Every error names the file (`where`) and the key. `ignored` lists what was passed over, with the reason.
    """

    def __init__(self, data: Any, where: str = "config.json") -> None:
        if not isinstance(data, dict):
            raise LaminaError(f"{where}: an object with a model_type is expected, not {type(data).__name__}")
        self.data = data
        self.where = where
        self.ignored: dict[str, str] = {}
        self._read: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return self.data.get(key) is not None

    def _take(self, key: str, kind: type, default: Any) -> Any:
        self._read.add(key)
        value = self.data.get(key)
        if value is None:
            if default is _REQUIRED:
                raise LaminaError(f"{self.where}: the key {key!r} is missing; {_NAMES[kind]} is needed")
            return default
        accepted = (int, float) if kind is float else kind
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise LaminaError(f"{self.where}: {key!r} is {shown(value)}; {_NAMES[kind]} is expected")
        if kind in (int, float) and not -1e18 < value < 1e18:
            raise LaminaError(f"{self.where}: {key!r} is {shown(value)}; that is out of range")
        return float(value) if kind is float else value

    def int(self, key: str, default: int | None = _REQUIRED) -> int:
        return self._take(key, int, default)

    def float(self, key: str, default: float | None = _REQUIRED) -> float:
        return self._take(key, float, default)

    def bool(self, key: str, default: bool = _REQUIRED) -> bool:
        return self._take(key, bool, default)

    def str(self, key: str, default: str | None = _REQUIRED) -> str:
        return self._take(key, str, default)

    def list(self, key: str, default: list | None = _REQUIRED) -> list:
        return self._take(key, list, default)

    def dict(self, key: str, default: dict | None = _REQUIRED) -> dict:
        return self._take(key, dict, default)

    def count(self, key: str, default: int | None = _REQUIRED, most: int = 1 << 31, least: int = 1) -> int:
        """A whole number of at least 1; `most` bounds what a hostile file can make us build."""
        value = self.int(key, default)
        if value is not None and not least <= value <= most:
            raise LaminaError(f"{self.where}: {key!r} is {value}; a whole number from {least} to {most} is expected")
        return value

    def choice(self, key: str, known: Iterable[str], default: str | None = _REQUIRED) -> str:
        value = self.str(key, default)
        if value is not None and value not in known:
            raise LaminaError(f"{self.where}: {key!r} is {shown(value)}; known: {', '.join(map(repr, known))}")
        return value

    def only(self, key: str, accepted: Any) -> None:
        """A key that may be absent, or hold one of the values for which the architecture is as described."""
        self._read.add(key)
        values = accepted if isinstance(accepted, tuple) else (accepted,)
        if (value := self.data.get(key)) is not None and value not in values:
            raise LaminaError(
                f"{self.where}: {key!r} is {shown(value)}; only {' or '.join(map(repr, values))} is known"
            )

    def sub(self, key: str) -> Config:
        """The object under `key`; what is ignored in it is listed with what is ignored here."""
        inner = Config(dict(self.dict(key)), f"{self.where}: {key}")
        inner.ignored = self.ignored
        return inner

    def text(self) -> Config:
        """The object under `text_config`; what stands beside it says whether embeddings are tied, if it says so."""
        inner = self.sub("text_config")
        if "tie_word_embeddings" in self:
            inner.data["tie_word_embeddings"] = self.bool("tie_word_embeddings")
        return inner

    def ignore(self, reason: str, *keys: str) -> None:
        for key in keys:
            self._read.add(key)
            if self.data.get(key) is not None:
                self.ignored[key] = reason

    def layer_types(self, layers: int, default: list[str], known: Iterable[str]) -> list[str]:
        """The kind of each layer, by name."""
        types = self.list("layer_types", default)
        if len(types) < layers:
            raise LaminaError(f"{self.where}: layer_types has {len(types)} entries for {layers} layers")
        for i, kind in enumerate(types[:layers]):
            if kind not in known:
                raise LaminaError(
                    f"{self.where}: layer_types[{i}] is {shown(kind)}; known: {', '.join(map(repr, known))}"
                )
        return types[:layers]

    def finish(self) -> None:
        """Raises: LaminaError for a key that was neither read nor known to say nothing about the architecture."""
        self._read |= {"model_type"}
        for key in self.data:
            if key in REASONS:
                self.ignored[key] = REASONS[key]
            elif key in HARMLESS and self.data[key] == HARMLESS[key]:
                self.ignored[key] = "the usual value"
            elif key not in self._read and self.data[key] is not None:
                raise LaminaError(
                    f"{self.where}: the key {shown(key)} ({shown(self.data[key])}) is not understood "
                    "for this model_type; remove it if it does not change the architecture"
                )
