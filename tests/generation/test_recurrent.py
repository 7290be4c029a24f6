"""Generation with states that cannot go back by a length alone: hybrids and recurrent models, built from values."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import lamina
from lamina.arch import (
    GLU,
    Architecture,
    Attention,
    Block,
    Branch,
    Embedding,
    GatedDeltaNet,
    Mamba2,
    Op,
    Prediction,
    RMSNorm,
    Rotary,
    ShortConvolution,
)
from lamina.errors import LaminaError
from lamina.generation import complete_ids
from tests.reference import relative

VOCAB, NORM = 31, RMSNorm(eps=1e-4)
FULL = Attention(heads=4, kv_heads=2, head_dim=6, rotary=Rotary(base=50.0, dim=6), gate="elementwise")
NET = GatedDeltaNet(key_heads=2, value_heads=4, key_dim=5, value_dim=3)
SCAN = Mamba2(heads=6, head_dim=4, groups=2, state=5)
KINDS = {
    "qwen3-next": (NET, NET, FULL, NET),
    "mamba-2": (SCAN, SCAN, SCAN),
    "windows": (NET, FULL.replace(window=5), ShortConvolution(kernel=4), FULL),
}


def block(op: Op) -> Block:
    return Block(branches=(Branch(op=op, before=NORM), Branch(op=GLU(inner=17), before=NORM)))


def model_of(kind: str, seed: int = 1, heads: tuple[Op, ...] = ()) -> Any:
    arch = Architecture(
        family="lamina",
        embedding=Embedding(vocab=VOCAB, width=20),
        blocks=tuple(block(op) for op in KINDS[kind]),
        norm=NORM,
        context=400,
        prediction=Prediction(blocks=tuple(block(op) for op in heads), norm=NORM) if heads else None,
    )
    model, random = lamina.build(arch), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=random)
            p.copy_(noise * 1.4 / p.shape[-1] ** 0.5 if p.ndim > 1 else 0.3 * noise + float("norm" in name))
    return model.requires_grad_(False)


def near(kind: str) -> Any:
    """The same model with other weights by a sixth, which guesses some tokens and not all."""
    model, other = model_of(kind), model_of(kind, seed=2)
    with torch.no_grad():
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            p.lerp_(q, 0.15)
    return model


def prompts(count: int, step: int = 5) -> list[list[int]]:
    random = torch.Generator().manual_seed(3)
    return [torch.randint(0, VOCAB, (1 + step * i,), generator=random).tolist() for i in range(count)]


def by_hand(model: Any, prompt: list[int], count: int) -> list[int]:
    """The whole text anew for each token, without a state."""
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_in_pieces_of_any_size_and_in_batches_give_the_same(kind):
    """Also pieces around the 64 tokens that recurrences take at a time."""
    model, given = model_of(kind), [prompts(1)[0], *prompts(2, 66)[1:], *prompts(3, 70)[2:]]
    expected = [by_hand(model, prompt, 6) for prompt in given]
    assert len({tuple(ids) for ids in expected}) == 3
    for chunk in (3, 63, 64, 65, 512):
        assert complete_ids(model, given, max_new_tokens=6, prefill_chunk=chunk) == expected
    assert [complete_ids(model, prompt, max_new_tokens=6, prefill_chunk=7) for prompt in given] == expected
    assert complete_ids(model, given[1][:9], max_new_tokens=6, prefill_chunk=1) == by_hand(model, given[1][:9], 6)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_end_are_dropped_and_the_others_go_on(kind):
    model, given = model_of(kind), prompts(6)
    free = complete_ids(model, given, max_new_tokens=12)
    model.token_ids = type(model.token_ids)(eos=(free[0][2], free[3][5]))
    ended = complete_ids(model, given, max_new_tokens=12)
    lengths = [next((i + 1 for i, id in enumerate(ids) if id in model.eos_ids), 12) for ids in free]
    assert ended == [ids[:n] for ids, n in zip(free, lengths, strict=True)]
    assert len(set(lengths)) > 2


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_speculation_gives_the_tokens_of_plain_decoding(kind, count):
    """Drafts of the model itself, of one that is like it, and of one that remembers in another way."""
    model, other = model_of(kind), near(kind)
    different = model_of("mamba-2" if kind != "mamba-2" else "qwen3-next", seed=3)
    accepted = 0
    for prompt in prompts(3):
        plain = list(lamina.generate(model, prompt, max_new_tokens=11))
        for draft in (model, other, different):
            made = lamina.generate(model, prompt, max_new_tokens=11, speculate=count, draft=draft, prefill_chunk=4)
            assert list(made) == plain
            assert (made.stats.acceptance == 1.0) == (draft is model)
            accepted += made.stats.accepted * (draft is other)
    assert accepted > 0


def test_draws_are_those_of_plain_decoding_where_all_that_is_drafted_stands():
    """A draft of the model itself stands with certainty, so nothing is drawn again."""
    model = model_of("qwen3-next")
    made = lamina.generate(model, prompts(2)[1], max_new_tokens=40, speculate=3, draft=model, temperature=1.1, seed=7)
    ids = [int(token) for token in made]
    assert made.stats.acceptance == 1.0
    assert len(set(ids)) > 8


def test_heads_draft_for_a_hybrid_and_recurrent_heads_are_refused():
    model = model_of("qwen3-next", heads=(FULL,))
    for prompt in prompts(3):
        plain = list(lamina.generate(model, prompt, max_new_tokens=11))
        assert list(lamina.generate(model, prompt, max_new_tokens=11, speculate=3)) == plain
    recurrent = model_of("qwen3-next", heads=(NET,))
    with pytest.raises(LaminaError, match=r"^the heads for later tokens keep what cannot be taken back"):
        list(lamina.generate(recurrent, [1, 2], max_new_tokens=5, speculate=2))


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_a_prefix_is_read_once_for_many_continuations(kind):
    """Its snapshot is put into a state of another batch of requests, one after the other."""
    model, prefix = model_of(kind), prompts(2, 70)[1]
    first = model.init_state(1, 120)
    model(torch.tensor([prefix]), first)
    saved = first.snapshot()
    held = [part.clone() for layer in saved.layers for part in layer]
    for rest in (prompts(3)[2], prompts(4)[3], prompts(3)[2]):
        state = model.init_state(1, 120)
        state.restore(saved)
        logits = model(torch.tensor([rest]), state)
        whole = model(torch.tensor([[*prefix, *rest]]))
        assert relative(logits, whole[:, len(prefix) :]) < 1e-5
        assert state.lengths == [len(prefix) + len(rest)]
    assert all(torch.equal(a, b) for a, b in zip(held, (p for layer in saved.layers for p in layer), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_a_short_way_back_copies_what_recurrences_carry_and_no_keys(kind):
    model, ids = model_of(kind), torch.tensor([prompts(2, 60)[1]])
    state = model.init_state(1, 120)
    model(ids, state)
    short, whole = state.snapshot(ahead=4), state.snapshot()
    full = [i for i, layer in enumerate(state.layers) if layer.spare == float("inf")]
    assert [i for i, layer in enumerate(short.layers) if layer is None] == full
    assert None not in whole.layers
    for saved in (short, whole):
        expected = model(ids[:, :4], state)
        state.restore(saved)
        assert torch.equal(model(ids[:, :4], state), expected)
        state.restore(saved)
    if full:
        model(ids[:, :5], state)
        with pytest.raises(LaminaError, match=r"^rows of \[66\] tokens cannot go back to \[61\]: .* at most 4 tokens$"):
            state.restore(short)
