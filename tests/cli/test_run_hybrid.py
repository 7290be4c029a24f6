"""run and chat on hybrids, whose states cannot go back: the same words as plain decoding, and the same bytes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import lamina
from lamina.cli.conversation import Conversation
from lamina.cli.options import SamplingOptions
from tests.cli.tiny import CONFIG, TEMPLATE, process, tiny_model

HYBRIDS: dict[str, dict[str, Any]] = {
    "qwen3_next": {
        "model_type": "qwen3_next",
        "num_hidden_layers": 4,
        "full_attention_interval": 2,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 6,
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 12,
        "shared_expert_intermediate_size": 10,
    },
    "lfm3": {
        "model_type": "lfm3",
        "num_hidden_layers": 5,
        "layer_types": ["conv", "full_attention", "conv", "sliding_attention", "conv"],
        "sliding_window": 6,
    },
}
EPS = {"lfm3": {"norm_eps": 1e-5, "rms_norm_eps": None}}
TEXT = "hello, and a text that is longer than any window or short convolution is"


@pytest.fixture(scope="module", params=HYBRIDS)
def hybrid(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    config = CONFIG | HYBRIDS[request.param] | EPS.get(request.param, {})
    model = tiny_model(TEMPLATE, {key: value for key, value in config.items() if value is not None})
    return model, lamina.save(model, tmp_path_factory.mktemp("hybrid") / request.param)


def _said(model: Any, text: str, most: int) -> str:
    ids = model.tokenizer.encode(text, special=False)
    return "".join(token.text for token in lamina.generate(model, ids, max_new_tokens=most, prefill_chunk=5))


def test_run_says_what_the_model_says_and_holds_what_was_predicted(run, hybrid: tuple[Any, Path]) -> None:
    model, directory = hybrid
    done = run("run", directory, TEXT, "--max-new-tokens", 9, "--stats")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == _said(model, f"<s>user: {TEXT}\nassistant: ", 9) + "\n"
    assert len(set(done.stdout.strip())) > 2
    found = re.search(r"^state +predicted (.*) bytes, held ([\d,]+) \(", done.stderr, re.M)
    assert found
    assert found[1] == found[2]


def test_run_speculates_with_the_model_itself(run, hybrid: tuple[Any, Path]) -> None:
    _, directory = hybrid
    plain = run("run", directory, TEXT, "--max-new-tokens", 15)
    drafted = run("run", directory, TEXT, "--max-new-tokens", 15, "--speculate", 3, "--draft", directory, "--stats")
    assert drafted.stdout == plain.stdout
    assert "100" in re.findall(r"^.*draft.*$", drafted.stderr, re.M)[-1]


def test_chat_continues_from_its_state(hybrid: tuple[Any, Path]) -> None:
    model, directory = hybrid
    talk = Conversation(model, SamplingOptions(max_new_tokens=7), capacity=400)
    first, second = "".join(talk.answer("hello")), "".join(talk.answer("and now"))
    assert talk.usage.prompt_tokens < len(model.tokenizer.encode(f"user: hello\n{first}user: and now\n")) + 20
    text = "<s>user: hello\nassistant: "
    assert first == _said(model, text, 7)
    assert second == _said(model, f"{text}{first}\nuser: and now\nassistant: ", 7)
    done = process("chat", directory, "--temperature", 0, "--max-new-tokens", 7, input="hello\nand now\n")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"\d{7}", done.stdout) == [first, second]
