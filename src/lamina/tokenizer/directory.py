"""A tokenizer's files in a model directory (the Hugging Face layout), read and written.

What is added before and after a text is what tokenizer.json says; `add_bos_token` in tokenizer_config.json
is for readers that do not read tokenizer.json.

Source: what `transformers` 5.23.0 does with these files (`tokenization_utils_base.py`)
Differs: tokenizer.json is taken as it is; the reference rebuilds normalizer and pre-tokenizer from the class
    named in tokenizer_config.json for some classes (LlamaTokenizer, GemmaTokenizer, Qwen2Tokenizer, ...)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from lamina.errors import LaminaError
from lamina.tokenizer.tokenizer import Tokenizer

_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTS = ("additional_special_tokens", "extra_special_tokens")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def find_tokenizer(directory: str | Path) -> Tokenizer | None:
    """The tokenizer of a model directory, or None if it has no tokenizer.json."""
    return read_directory(Path(directory)) if (Path(directory) / "tokenizer.json").is_file() else None


def read_directory(directory: Path) -> Tokenizer:
    """Reads tokenizer.json with what the files beside it say of special tokens, ends and chat.

    Raises: LaminaError if tokenizer.json is missing or a file cannot be read
    """
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise LaminaError(f"{path} does not exist: expected a directory with a tokenizer.json")
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise LaminaError(f"{path} is not a tokenizer that `tokenizers` can read: {error}") from None
    config, older = (
        _read_json(directory / "tokenizer_config.json"),
        _read_json(directory / "special_tokens_map.json"),
    )
    config = older | config if "added_tokens_decoder" in config else config | older
    for key, kinds in (("added_tokens_decoder", dict), *((key, (list, dict)) for key in _LISTS)):
        if config.get(key) is not None and not isinstance(config[key], kinds):
            raise LaminaError(f"{directory / 'tokenizer_config.json'}: {key} must be an object (or a list of tokens)")
    names = {key: _content(value) for key, value in config.items() if _is_name(key) and _content(value)}
    _add_tokens(backend, config, names)
    return Tokenizer(backend, names, _eos_ids(directory), _chat_templates(directory, config))


def write_directory(tokenizer: Tokenizer, directory: Path) -> None:
    """Writes tokenizer.json, tokenizer_config.json and the chat templates."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.backend.save(str(directory / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(1e30),  # the reference's word for: no limit known
        **tokenizer.names,
    }
    bos, eos = tokenizer.bos_id, tokenizer.backend.token_to_id(tokenizer.names.get("eos_token", ""))
    added = tokenizer.encode("")
    flags = {(): (False, False), (bos,): (True, False), (eos,): (False, True), (bos, eos): (True, True)}
    if tuple(added) in flags:  # otherwise only the post-processor in tokenizer.json can say it
        config["add_bos_token"], config["add_eos_token"] = flags[tuple(added)]
    _write(directory / "tokenizer_config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    for name, template in tokenizer.chat_templates.items():
        if name == "default" or template == tokenizer.chat_template:
            _write(directory / "chat_template.jinja", template)
        else:
            (directory / "additional_chat_templates").mkdir(exist_ok=True)
            _write(directory / "additional_chat_templates" / f"{Path(name).name}.jinja", template)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="")


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise LaminaError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise LaminaError(f"{path} holds a {type(content).__name__}: expected a JSON object")
    return content


def _is_name(key: str) -> bool:
    return key in _NAMED or (key.endswith("_token") and not key.startswith("add_"))


def _content(value: Any) -> str:
    """A token's text, whether written as a string or as an object with flags; empty if it is neither."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else ""


def _added_token(value: Any, **defaults: bool) -> AddedToken:
    flags = {k: bool(value[k]) for k in _FLAGS if k in value} if isinstance(value, dict) else {}
    return AddedToken(_content(value), **{**defaults, **flags})


def _add_tokens(backend: tokenizers.Tokenizer, config: dict[str, Any], names: dict[str, str]) -> None:
    """Adds what tokenizer_config.json declares and tokenizer.json does not say, in the reference's order."""
    present = {repr(token) for token in backend.get_added_tokens_decoder().values()}
    declared = config.get("added_tokens_decoder") or {}
    for key in sorted(declared, key=lambda k: (len(k), k)):
        token = _added_token(declared[key])
        if token.content and repr(token) not in present:
            backend.add_tokens([token])
    special: list[Any] = [config[key] for key in names]
    for key in _LISTS:
        extra = config.get(key) or []
        special += extra.values() if isinstance(extra, dict) else extra
    tokens = [_added_token(value, normalized=False) for value in special if _content(value)]
    known = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    backend.add_special_tokens([token for token in tokens if token.content not in known])


def _eos_ids(directory: Path) -> list[int]:
    """The end ids of generation_config.json, or those of config.json."""
    for name in ("generation_config.json", "config.json"):
        content = _read_json(directory / name)
        text_part = content.get("text_config")
        found = content.get("eos_token_id")
        if found is None and isinstance(text_part, dict):
            found = text_part.get("eos_token_id")
        if found is None:
            continue
        ids = found if isinstance(found, list) else [found]
        if not all(isinstance(i, int) and i >= 0 for i in ids):
            raise LaminaError(f"{directory / name}: eos_token_id is {found!r}, expected an id or a list of ids")
        return ids
    return []


def _chat_templates(directory: Path, config: dict[str, Any]) -> dict[str, str]:
    """Templates by name: the .jinja files, or else what tokenizer_config.json holds."""
    files = {path.stem: path for path in sorted((directory / "additional_chat_templates").glob("*.jinja"))}
    if (directory / "chat_template.jinja").is_file():
        files["default"] = directory / "chat_template.jinja"
    if files:
        return {name: path.read_text(encoding="utf-8") for name, path in files.items()}
    path, found = directory / "chat_template.json", config.get("chat_template")
    if found is None:
        found, where = _read_json(path).get("chat_template"), path
    else:
        where = directory / "tokenizer_config.json"
    if found is None:
        return {}
    entries = [{"name": "default", "template": found}] if isinstance(found, str) else found
    try:
        return {str(entry["name"]): str(entry["template"]) for entry in entries}
    except (TypeError, KeyError):
        raise LaminaError(f"{where}: chat_template must be a string or a list of {{name, template}} objects") from None
