"""The decoding loop against transformers' own generation, and its text against the whole decode."""

import itertools
import math

import pytest
import torch

import lamina
from lamina.errors import LaminaError
from lamina.generation import Token, complete, complete_ids, generate

VOCAB = 97  # of the reference model
PROMPTS = [[5, 61, 7], [88, 2, 3, 90, 17, 41, 23, 11, 64], [13], [70, 70, 1, 96, 0, 12]]


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("penalty", [1.0, 1.4])
def test_greedy_is_that_of_transformers(reference, prompt, penalty):
    model = reference()
    got = complete_ids(model, prompt, max_new_tokens=20, repetition_penalty=penalty)
    assert got == model.continuation(prompt, repetition_penalty=penalty)


def test_greedy_is_the_argmax_of_the_whole_sequence_each_time(reference):
    model, ids = reference(), [5, 61, 7]
    new = complete_ids(model, ids, max_new_tokens=12)
    for one in new:
        assert one == int(model.network(torch.tensor([ids])).logits[0, -1].argmax())
        ids = [*ids, one]
    assert len(set(new)) > 3


@pytest.mark.parametrize("chunk", [1, 2, 4, 9, 512])
def test_prompts_together_equal_each_alone_whatever_the_chunk(reference, chunk):
    model = reference()
    got = complete_ids(model, PROMPTS, max_new_tokens=20, prefill_chunk=chunk)
    assert got == [model.continuation(prompt) for prompt in PROMPTS]
    pieces = math.ceil(9 / chunk)
    assert [max(lengths) for _, lengths in model.calls[:pieces]] == [shape[1] for shape, _ in model.calls[:pieces]]
    assert all(shape[1] <= chunk for shape, _ in model.calls)
    assert [shape for shape, _ in model.calls[pieces:]] == [(4, 1)] * 19


def test_rows_that_end_are_dropped_and_the_others_go_on(reference):
    """End-of-sequence ids taken from the continuations themselves: the rows end at different steps."""
    free = reference()
    eos = sorted({free.continuation(PROMPTS[0])[3], free.continuation(PROMPTS[1])[7]})
    model = reference(eos_ids=eos)
    want = [model.continuation(prompt) for prompt in PROMPTS]
    tokens = list(generate(model, PROMPTS, max_new_tokens=20))
    assert [[t.id for t in tokens if t.row == row] for row in range(4)] == want
    lengths = [len(one) for one in want]
    assert len(set(lengths)) > 2
    assert sum(shape[0] for shape, _ in model.calls) == sum(lengths)
    last = {t.row: t.finished for t in tokens}
    assert last == {row: "eos" if one[-1] in eos else "length" for row, one in enumerate(want)}
    assert sum(t.finished is not None for t in tokens) == 4


def test_seeded_draws_are_the_same_alone_again_and_in_any_batch(reference):
    model = reference()
    options = {"max_new_tokens": 15, "temperature": 1.3, "top_p": 0.95, "repetition_penalty": 1.1}
    alone = [complete_ids(model, prompt, seed=11, **options) for prompt in PROMPTS]
    assert complete_ids(model, PROMPTS, seed=11, **options) == alone
    assert complete_ids(model, PROMPTS[::-1], seed=11, **options) == alone[::-1]
    assert complete_ids(model, PROMPTS, seed=12, **options) != alone
    assert complete_ids(model, PROMPTS, **options) != complete_ids(model, PROMPTS, **options)


def test_draws_stay_with_their_rows_when_others_end(reference):
    model = reference(eos_ids=range(0, VOCAB, 4))
    options = {"max_new_tokens": 15, "temperature": 2.0, "repetition_penalty": 1.5}
    made = set()
    for seed in range(6):
        alone = [complete_ids(model, prompt, seed=seed, **options) for prompt in PROMPTS]
        assert complete_ids(model, PROMPTS, seed=seed, **options) == alone
        made |= {len(one) for one in alone}
    assert len(made) > 3


def test_top_k_of_one_is_greedy_at_any_temperature(reference):
    model = reference()
    got = complete_ids(model, PROMPTS[1], max_new_tokens=20, temperature=5.0, top_k=1)
    assert got == model.continuation(PROMPTS[1])


def test_every_form_of_a_prompt_means_the_same(reference):
    model, ids = reference(), PROMPTS[0]
    want = model.continuation(ids)[:4]
    for form in (ids, tuple(ids), torch.tensor(ids), torch.tensor(ids, dtype=torch.int32).numpy(), iter(ids)):
        assert complete_ids(model, form, max_new_tokens=4) == want
    for form in ([ids, ids], torch.tensor([ids, ids]), [torch.tensor(ids), ids]):
        assert complete_ids(model, form, max_new_tokens=4) == [want, want]
    assert complete_ids(model, [ids], max_new_tokens=4) == [want]


ANSWER = "the cat’s 日本語 naïve 🦆🦆 sat on the mat"


@pytest.mark.parametrize("length", range(1, 37, 3))
def test_streamed_text_is_the_decode_of_the_ids(speaker, text, length):
    """Cut anywhere, also inside characters of several bytes; no piece shows a broken character early."""
    model = speaker({"x": ANSWER})
    tokens = list(generate(model, "x", max_new_tokens=length))
    assert "".join(t.text for t in tokens) == text.decode(text.encode(ANSWER)[:length])
    assert not any("\ufffd" in t.text for t in tokens[:-1])
    assert tokens[-1].finished == "length"


def first_stop(whole: str, stops: tuple[str, ...]) -> str:
    """The obvious twin: look at one character more each time."""
    for end in range(len(whole) + 1):
        hits = [len(stop) for stop in stops if whole[:end].endswith(stop)]
        if hits:
            return whole[: end - max(hits)]
    return whole


@pytest.mark.parametrize(
    "stops",
    [("on the",), ("t sat o",), ("日本語",), ("本",), ("🦆🦆 s",), ("zzz",), ("cat’s 日x", "’s 日本"),
     ("the",), ("at", "cat"), ("the", "h"), ("sat on", "at"), ("mat!",), ("mat",),
     (" 日本語 naïve 🦆🦆 sat", "naïve")],
)  # fmt: skip
def test_text_ends_before_the_first_stop_string_wherever_tokens_break(speaker, text, stops):
    count = len(text.encode(ANSWER))
    for ids in (text.encode(ANSWER), [one for c in ANSWER for one in text.encode(c)]):
        model = speaker({"x": ids})
        tokens = list(generate(model, "x", max_new_tokens=len(ids), stop=stops))
        want = first_stop(ANSWER, stops)
        assert "".join(t.text for t in tokens) == want
        assert tokens[-1].finished == ("length" if want == ANSWER else "stop")
        for given in itertools.accumulate(t.text for t in tokens):
            assert want.startswith(given)
    assert count < len(ids)


def test_text_that_may_begin_a_stop_is_held_back_and_given_when_it_does_not(speaker, text):
    ids = [one for c in "sat on a" for one in text.encode(c)]
    tokens = list(generate(speaker({"x": ids}), "x", max_new_tokens=8, stop="t on the"))
    assert [t.text for t in tokens] == ["s", "a", "", "", "", "", "", "t on a"]


@pytest.mark.parametrize("stop", ["sat o", "e", "the mat", "at on t", " the"])
def test_the_token_that_stops_is_that_of_transformers(speaker, text, stop):
    from transformers import PreTrainedTokenizerFast, StopStringCriteria

    model = speaker({"x": "a cat sat on the mat; a dog"})
    ids = complete_ids(model, "x", max_new_tokens=30, stop=stop)
    criteria = StopStringCriteria(PreTrainedTokenizerFast(tokenizer_object=text.inner._tokenizer), stop)
    done = [bool(criteria(torch.tensor([ids[: n + 1]]), None)) for n in range(len(ids))]
    assert done == [False] * (len(ids) - 1) + [True]


def test_several_texts_stop_by_themselves(speaker, text):
    answers = {"a": "the cat sat", "b": "on the mat", "c": "dog 日本", "d": "dog the the"}
    eos = text.encode("!")[0]
    model = speaker({k: [*text.encode(v), eos] for k, v in answers.items()}, eos_ids=[eos])
    prompts = ["a", "b and more", "c", "d"]
    together = complete(model, prompts, max_new_tokens=12, stop=("mat", "og t"))
    assert together == ["the cat sat", "on the ", "dog 日本", "d"]
    assert [complete(model, one, max_new_tokens=12, stop=("mat", "og t")) for one in prompts] == together


def test_the_end_of_sequence_token_has_no_text_but_lets_go_of_what_was_held(speaker, text):
    eos = text.encode("!")[0]
    duck = text.encode("🦆")[:2]
    model = speaker({"x": [*text.encode("mat"), *duck, eos]}, eos_ids=[eos])
    tokens = list(generate(model, "x", stop="matter"))
    last = tokens[-1]
    expected = (0, eos, text.decode(text.encode("mat") + duck), "eos")
    assert (last.row, last.id, last.text, last.finished) == expected
    assert last == eos
    assert f"{last}" == str(last) == last.text
    assert repr(last) == repr(Token(*expected))
    assert all(t.text == "" for t in tokens[:-1])


def test_nothing_is_generated_for_zero_new_tokens(reference, speaker):
    model = reference()
    assert list(generate(model, [1, 2], max_new_tokens=0)) == []
    assert model.calls == []
    assert complete(speaker({}), ["a", "b"], max_new_tokens=0) == ["", ""]


def test_inference_mode_holds_inside_a_step_and_never_between(reference):
    model, seen = reference(), []
    call = model.network.forward
    model.network.forward = lambda *a, **k: seen.append(torch.is_inference_mode_enabled()) or call(*a, **k)
    tokens = generate(model, PROMPTS, max_new_tokens=9)
    for _ in range(6):
        next(tokens)
        assert not torch.is_inference_mode_enabled()
    tokens.close()
    assert not torch.is_inference_mode_enabled()
    assert list(tokens) == []
    assert seen == [True] * 8
    weight = torch.ones(2, requires_grad=True)
    (weight * 2).sum().backward()
    assert weight.grad is not None


def test_an_error_in_the_model_leaves_no_inference_mode(reference):
    model = reference()
    tokens = generate(model, [1, 2, 3])
    next(tokens)
    model.network.forward = None
    with pytest.raises(TypeError):
        next(tokens)
    assert not torch.is_inference_mode_enabled()


def test_stats_count_tokens_seconds_and_bytes(reference, monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr("lamina.generation.loop.time.perf_counter", lambda: float(next(ticks)))
    tokens = generate(reference(), PROMPTS, max_new_tokens=5)
    stats = tokens.stats
    assert (stats.rows, stats.prompt_tokens, stats.new_tokens, stats.decode_rate) == (4, 19, 0, 0.0)
    next(tokens)
    assert (stats.new_tokens, stats.prefill_seconds, stats.state_bytes) == (4, 1.0, 4000)
    assert stats.prefill_rate == 19.0
    list(tokens)
    assert (stats.new_tokens, stats.decode_seconds, stats.decode_rate) == (20, 4.0, 4.0)


def test_the_state_gets_the_capacity_that_is_needed_or_asked_for(reference):
    model = reference()
    list(generate(model, PROMPTS, max_new_tokens=5))
    assert model.state.capacity == 14
    list(generate(model, PROMPTS, max_new_tokens=5, capacity=30))
    assert model.state.capacity == 30


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ([], {}, "the prompt is empty: give at least one token"),
        ([[1], []], {}, "prompt 1 is empty: give at least one token"),
        (torch.empty(0, dtype=torch.int64), {}, "the prompt is empty"),
        ([4, 97], {}, r"the prompt has id 97 at position 1, outside the vocabulary of 97 \(0 to 96\)"),
        ([[4], [4, 5, -1]], {}, "prompt 1 has id -1 at position 2, outside the vocabulary of 97"),
        ("hello", {}, "the prompt is text but the model has no tokenizer: give token ids"),
        ([[1], "hello"], {}, "prompt 1 is text but the model has no tokenizer"),
        ([1, [2]], {}, "the prompt mixes ids with prompts"),
        ([0.5], {}, "the prompt must be text or whole numbers"),
        (torch.tensor([0.5]), {}, "the prompt must be text or whole numbers"),
        (torch.tensor(5), {}, "the prompt must be text or whole numbers"),
        (None, {}, "the prompt must be text or whole numbers"),
        ([1, 2, 3], {"stop": "x"}, "stop strings need text but the model has no tokenizer"),
        ([1, 2, 3], {"stop": ["x", ""]}, "stop holds '', but"),
        ([1, 2, 3], {"stop": [5]}, "stop holds 5, but"),
        ([1, 2, 3], {"max_new_tokens": -1}, "max_new_tokens is -1, but must be"),
        ([1, 2, 3], {"max_new_tokens": 1.5}, "max_new_tokens is 1.5, but must be"),
        ([1, 2, 3], {"prefill_chunk": 0}, "prefill_chunk is 0, but must be"),
        ([1, 2, 3], {"capacity": 0}, "capacity is 0, but must be"),
        (
            [[1], [1, 2, 3]],
            {"max_new_tokens": 6, "capacity": 8},
            r"the prompt \(3 tokens\) and max_new_tokens \(6\) come to 9, past the capacity of 8 tokens",
        ),
        ([1, 2, 3], {"temperature": -1.0}, "temperature is -1.0, but must be"),
        ([1, 2, 3], {"top_p": 0}, "top_p is 0, but must be"),
    ],
)
def test_what_cannot_be_done_is_said_when_it_is_asked(reference, prompt, options, message):
    with pytest.raises(LaminaError, match=f"^{message}"):
        generate(reference(), prompt, **options)


def test_text_of_a_model_without_a_tokenizer_is_refused(reference):
    with pytest.raises(LaminaError, match="use complete_ids"):
        complete(reference(), [1, 2])


def test_the_package_is_the_function_too(reference):
    model = reference()
    tokens = lamina.generate(model, PROMPTS[0], max_new_tokens=3)
    assert [t.id for t in tokens] == model.continuation(PROMPTS[0])[:3]
