"""Directories: read as transformers reads them, and written so that transformers reads the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import byte_level_metadata
from strings import STRINGS
from test_chat import CHAT, CHATML
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lamina.errors import LaminaError
from lamina.tokenizer import Tokenizer, find_tokenizer


@pytest.fixture(params=["bytes", "bytes with ends", "pieces_prefix", "pieces_bare"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    extra: dict[str, Any] = {
        "tokenizer.chat_template": CHATML,
        "tokenizer.chat_template.tool_use": "T" + CHATML,
    }
    if request.param.startswith("pieces"):
        return Tokenizer.from_gguf(request.getfixturevalue(request.param)[1] | extra)
    if request.param == "bytes with ends":
        extra |= {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}
    return Tokenizer.from_gguf(byte_level_metadata(request.getfixturevalue("trained_bytes"), "smollm", **extra))


def _write_reference(trained: Any, path: Path, **config: Any) -> Any:
    """A directory as transformers itself saves it, its config changed by hand afterwards."""
    reference = PreTrainedTokenizerFast(
        tokenizer_object=trained, bos_token="<|endoftext|>", eos_token="<|im_end|>", pad_token="<|pad|>"
    )
    reference.save_pretrained(path)
    file = path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return AutoTokenizer.from_pretrained(path)


def test_transformers_reads_what_we_save(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    theirs, again = AutoTokenizer.from_pretrained(tmp_path), Tokenizer.from_directory(tmp_path)
    for text in STRINGS:
        ids = tokenizer.encode(text)
        assert theirs.encode(text) == ids == again.encode(text), text
        assert theirs.encode(text, add_special_tokens=False) == tokenizer.encode(text, special=False)
        assert theirs.decode(ids) == tokenizer.decode(ids, skip_special=False) == again.decode(ids, skip_special=False)
        assert theirs.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids)
    assert theirs.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True) == tokenizer.render(CHAT)
    assert (theirs.bos_token_id, theirs.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_ids[0])
    assert (theirs.pad_token_id, theirs.unk_token_id) == (tokenizer.pad_id, tokenizer.unk_id)
    assert len(theirs) == tokenizer.vocab_size == again.vocab_size
    assert again.chat_templates == tokenizer.chat_templates
    assert (again.bos_id, again.pad_id, again.unk_id) == (
        tokenizer.bos_id,
        tokenizer.pad_id,
        tokenizer.unk_id,
    )


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"add_bos_token": True},
        {"add_bos_token": True, "add_eos_token": True},
        {"add_bos_token": False},
        {"additional_special_tokens": ["<|tool|>", "<|im_start|>"]},
        {
            "bos_token": {
                "__type": "AddedToken",
                "content": "<|new|>",
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
            }
        },
        {"added_tokens_decoder": {"1600": {"content": "<|late|>", "special": True, "normalized": False}}},
    ],
)
def test_we_read_what_transformers_reads(trained_bytes: Any, config: dict[str, Any], tmp_path: Path) -> None:
    theirs = _write_reference(trained_bytes, tmp_path, **config)
    ours = Tokenizer.from_directory(tmp_path)
    for text in [*STRINGS, "a<|tool|>b<|new|>c<|late|>d"]:
        assert ours.encode(text) == theirs.encode(text), text
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text), skip_special_tokens=True)
    assert (ours.bos_id, ours.pad_id, ours.vocab_size) == (
        theirs.bos_token_id,
        theirs.pad_token_id,
        len(theirs),
    )


def test_templates_by_name(trained_bytes: Any, tmp_path: Path) -> None:
    named = [
        {"name": "default", "template": "D{{ bos_token }}"},
        {"name": "tool_use", "template": "T{{ tools|length }}"},
    ]
    theirs = _write_reference(trained_bytes, tmp_path, chat_template=named)
    ours = Tokenizer.from_directory(tmp_path)
    tools = [{"type": "function", "function": {"name": "f"}}]
    for extra in ({}, {"tools": tools}, {"chat_template": "X{{ add_generation_prompt }}"}):
        expected = theirs.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True, **extra)
        assert ours.render(CHAT, **extra) == expected
    assert ours.render(CHAT, chat_template="tool_use", tools=tools) == "T1"
    assert ours.chat_template == "D{{ bos_token }}"


def test_a_jinja_file_comes_before_the_config(trained_bytes: Any, tmp_path: Path) -> None:
    _write_reference(trained_bytes, tmp_path, chat_template="config")
    (tmp_path / "chat_template.jinja").write_text("file\n")
    ours = Tokenizer.from_directory(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert ours.render(CHAT) == theirs.apply_chat_template(CHAT, tokenize=False) == "file"


def test_ends_come_from_the_generation_config_first(trained_bytes: Any, tmp_path: Path) -> None:
    _write_reference(trained_bytes, tmp_path)
    own = trained_bytes.token_to_id("<|im_end|>")
    assert Tokenizer.from_directory(tmp_path).eos_ids == (own,)
    (tmp_path / "config.json").write_text('{"text_config": {"eos_token_id": 7}}')
    assert Tokenizer.from_directory(tmp_path).eos_ids == (7, own)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [5, 9]}')
    assert Tokenizer.from_directory(tmp_path).eos_ids == (5, 9, own)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": "x"}')
    with pytest.raises(LaminaError, match=r"generation_config\.json: eos_token_id"):
        Tokenizer.from_directory(tmp_path)


def test_truncation_in_the_file_is_not_applied(trained_bytes: Any, tmp_path: Path) -> None:
    _write_reference(trained_bytes, tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    text = "a longer text than that"
    assert Tokenizer.from_directory(tmp_path).encode(text) == trained_bytes.encode(text).ids


def test_nothing_there(tmp_path: Path) -> None:
    assert find_tokenizer(tmp_path) is None
    with pytest.raises(LaminaError, match=r"tokenizer\.json does not exist"):
        Tokenizer.from_directory(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tokenizer.json", "{", r"tokenizer\.json is not a tokenizer"),
        ("tokenizer_config.json", "{", r"tokenizer_config\.json is not JSON"),
        ("tokenizer_config.json", "[]", r"tokenizer_config\.json holds a list"),
        ("tokenizer_config.json", '{"chat_template": [1]}', r"tokenizer_config\.json: chat_template must be"),
        ("tokenizer_config.json", '{"added_tokens_decoder": [1]}', "added_tokens_decoder must be"),
        ("tokenizer_config.json", '{"extra_special_tokens": 3}', "extra_special_tokens must be"),
        ("special_tokens_map.json", "nope", r"special_tokens_map\.json is not JSON"),
    ],
)
def test_bad_files_are_named(trained_bytes: Any, name: str, content: str, said: str, tmp_path: Path) -> None:
    _write_reference(trained_bytes, tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(LaminaError, match=said):
        Tokenizer.from_directory(tmp_path)


def test_bad_calls_are_named(trained_bytes: Any, tmp_path: Path) -> None:
    _write_reference(trained_bytes, tmp_path)
    tokenizer = Tokenizer.from_directory(tmp_path)
    for call, said in (
        (lambda: tokenizer.render(CHAT), "no chat template"),
        (lambda: tokenizer.token(10**6), "no token has id 1000000"),
        (lambda: tokenizer.token(-1), "no token has id -1"),
        (lambda: tokenizer.encode("\ud800"), "cannot encode"),
        (lambda: tokenizer.encode(3), "cannot encode"),  # type: ignore[arg-type]
        (lambda: tokenizer.decode([-1]), "0 or more"),
    ):
        with pytest.raises(LaminaError, match=said):
            call()
    assert tokenizer.token(0) == "<|endoftext|>"


def test_the_package_imports_no_torch() -> None:
    code = "import sys, lamina.tokenizer; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
