"""Speculation changes the speed and nothing else: the tokens are those of plain decoding."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import lamina
from lamina.arch import GLU, Architecture, Attention, Block, Branch, Embedding, Prediction, RMSNorm, Rotary
from lamina.errors import LaminaError
from lamina.generation import Sampling, filter_logits
from lamina.generation.sampling import generators
from lamina.generation.speculative import Chooser, HeadDrafter
from lamina.nn.state import FullCache, WindowCache
from tests.reference import relative

NORM = RMSNorm(eps=1e-4)
FULL = Attention(heads=4, kv_heads=2, head_dim=6, rotary=Rotary(base=50.0, dim=6))
VOCAB = 31


def block(mixer: Attention) -> Block:
    return Block(branches=(Branch(op=mixer, before=NORM), Branch(op=GLU(inner=17), before=NORM)))


def model_of(
    heads: int, window: int | None = None, seed: int = 1, vocab: int = VOCAB, first: Any = "embedding", head: Any = FULL
) -> Any:
    arch = Architecture(
        family="lamina",
        embedding=Embedding(vocab=vocab, width=20),
        blocks=(block(FULL), block(FULL.replace(window=window)), block(FULL)),
        norm=NORM,
        prediction=Prediction(blocks=(block(head),) * heads, norm=NORM, first=first) if heads else None,
    )
    model, random = lamina.build(arch), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=random)
            p.copy_(noise * 1.4 / p.shape[-1] ** 0.5 if p.ndim > 1 else 1.0 + 0.2 * noise)
            if ("blocks" in name and "down_proj" in name) or "o_proj" in name:
                p.mul_(0.25)  # what comes next depends mostly on the last token, so that a head can learn it
    return model


def prompts(count: int, vocab: int = VOCAB) -> list[list[int]]:
    random = torch.Generator().manual_seed(3)
    return [torch.randint(0, vocab, (1 + 4 * i,), generator=random).tolist() for i in range(count)]


def taught(model: Any, steps: int = 150) -> Any:
    """The heads learn what the model would say of random texts, so that some of what they draft stands."""
    texts = torch.randint(0, VOCAB, (64, 24), generator=torch.Generator().manual_seed(5))
    optimiser = torch.optim.Adam(model.prediction.parameters(), lr=1e-2)
    with torch.no_grad():
        hidden = model.hidden(texts)
        said = model.logits(hidden).argmax(-1)
    for _ in range(steps):
        loss, before = 0.0, hidden
        for d, head in enumerate(model.prediction, 1):
            ids = texts[:, d:]
            step = model._step(ids, None, [ids.shape[1]] * len(ids), None, None)
            before = head(before[:, : ids.shape[1]], model.embedding(ids, step), step)
            loss = loss + F.cross_entropy(model.logits(head.norm(before)).flatten(0, 1), said[:, d:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.requires_grad_(False)


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("heads", [1, 3])
def test_greedy_tokens_are_those_of_plain_decoding(heads, window):
    model = taught(model_of(heads, window, head=FULL.replace(window=window and 4)))
    drafted = accepted = 0
    for prompt in prompts(12):
        plain = list(lamina.generate(model, prompt, max_new_tokens=23))
        for count in (1, 2, 5):
            speculated = lamina.generate(model, prompt, max_new_tokens=23, speculate=count)
            assert list(speculated) == plain
            assert speculated.stats.new_tokens == len(plain) == 23
            if count == 1:  # of more, those after the first that fails are lost
                drafted, accepted = drafted + speculated.stats.drafted, accepted + speculated.stats.accepted
    assert 0.1 < accepted / drafted < 1.0  # a guess would be right once in 31 times


@pytest.mark.parametrize("spare", [True, False])
def test_a_draft_model_and_states_that_cannot_go_back(monkeypatch, spare):
    """Without room to go back, what was read wrongly is restored from a snapshot and read again."""
    if not spare:
        monkeypatch.setattr(FullCache, "spare", 0)
        monkeypatch.setattr(WindowCache, "lengthen", lambda *_: None)
    model, other = model_of(0, window=5), model_of(0, window=3, seed=2)
    for prompt in prompts(8):
        plain = list(lamina.generate(model, prompt, max_new_tokens=23))
        for draft in (model, other):
            speculated = lamina.generate(model, prompt, max_new_tokens=23, speculate=3, draft=draft)
            assert list(speculated) == plain
            assert (speculated.stats.acceptance == 1.0) == (draft is model)


@pytest.mark.parametrize("first", ["embedding", "hidden"])
def test_heads_say_what_the_paper_says(first):
    """Every head's drafts against equations 21 to 23 of arXiv 2412.19437, computed from the whole text at once."""
    model, text = model_of(3, first=first), prompts(5)[4]
    drafter = HeadDrafter(model, 40, 3)
    seen: list[torch.Tensor] = []

    class Listening(Chooser):
        def draft(self, logits):
            seen.append(logits)
            return super().draft(logits)

    chooser = Listening(Sampling(), generators(Sampling(), 1)[0])
    with torch.inference_mode():
        for start, stop in ((0, 7), (7, 8), (8, len(text) - 1)):
            state_of_all = model.hidden(torch.tensor([text[:stop]]))
            drafter.read(text[start:stop], state_of_all[:, start:])
        drafter.read(text[-1:], state_of_all[:, :0])
        drafts = drafter.draft(3, chooser)
        ids, before = [*text, *(draft.id for draft in drafts)], state_of_all[0]
        for d, head in enumerate(model.prediction, 1):
            before = by_hand(model, head, before, ids[d : d + len(before)])
            expected = F.rms_norm(before[-1], (20,), head.norm.weight, 1e-4) @ model.head.weight.T
            assert relative(seen[d - 1], expected) <= 1e-5


def by_hand(model: Any, head: Any, before: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """One head in plain torch."""

    def normed(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-4).sqrt() * weight

    def turned(x: torch.Tensor) -> torch.Tensor:
        angles = torch.arange(len(x))[:, None, None] / 50.0 ** (torch.arange(0, 6, 2) / 6)
        a, b = x[..., :3], x[..., 3:]
        return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)

    read = [
        normed(model.embedding.table[torch.tensor(ids)], head.embedding_norm.weight),
        normed(before, head.hidden_norm.weight),
    ]
    x = torch.cat(read if head.embedding_first else read[::-1], -1) @ head.joining.weight.T
    mixer, fed = head.block.mixer, head.block.feed_forward
    y, n = normed(x, mixer.before.weight), len(x)
    q, k, v = ((y @ mixer.op.get_submodule(p).weight.T).view(n, -1, 6) for p in ("q_proj", "k_proj", "v_proj"))
    k, v = (t.repeat_interleave(2, 1) for t in (k, v))
    scores = torch.einsum("thk,shk->hts", turned(q), turned(k)) / 6**0.5
    scores = scores.masked_fill(torch.ones(n, n).triu(1).bool(), float("-inf"))
    x = x + torch.einsum("hts,shk->thk", scores.softmax(-1), v).flatten(1) @ mixer.op.o_proj.weight.T
    y = normed(x, fed.before.weight)
    gate, up = y @ fed.op.gate_proj.weight.T, y @ fed.op.up_proj.weight.T
    return x + (F.silu(gate) * up) @ fed.op.down_proj.weight.T


@pytest.mark.parametrize("options", [{"temperature": 0.8}, {"temperature": 1.5, "top_k": 3, "repetition_penalty": 1.3}])
def test_sampled_tokens_keep_their_distribution(options):
    """The second and third tokens of many short continuations against their exact chances."""
    model, other = model_of(0, vocab=5), model_of(0, seed=9, vocab=5)
    rounds, counts = 1000, torch.zeros(5, 5)
    for seed in range(rounds):
        ids = lamina.generation.complete_ids(
            model, [1, 2], max_new_tokens=3, speculate=2, draft=other, seed=seed, **options
        )
        counts[ids[1], ids[2]] += 1
    sampling, exact = Sampling(**options), torch.zeros(5, 5)

    def chances(ids: list[int]) -> torch.Tensor:
        seen = torch.zeros(1, 5, dtype=torch.bool)
        seen[0, ids] = True
        with torch.inference_mode():
            return filter_logits(model(torch.tensor([ids]))[:, -1], sampling, seen)[0].softmax(-1)

    for a, b, c in itertools.product(range(5), repeat=3):
        first = chances([1, 2])[a]
        if first > 0:
            exact[b, c] += first * (second := chances([1, 2, a])[b]) * (chances([1, 2, a, b])[c] if second > 0 else 0)
    assert exact.sum() == pytest.approx(1.0, abs=1e-5)
    spread = (exact * (1 - exact) / rounds).sqrt().clamp(min=1e-9)
    assert ((counts / rounds - exact).abs() <= 4.5 * spread).all()


def test_several_prompts_and_ends_are_as_in_plain_decoding():
    model = taught(model_of(1))
    batch = prompts(4)
    assert lamina.generation.complete_ids(
        model, batch, max_new_tokens=9, speculate=3
    ) == lamina.generation.complete_ids(model, batch, max_new_tokens=9)
    end = lamina.generation.complete_ids(model, batch[2], max_new_tokens=9)[4]
    model.token_ids = lamina.nn.decoder.TokenIds(eos=(end,))
    plain, fast = (list(lamina.generate(model, batch[2], max_new_tokens=9, speculate=s)) for s in (0, 4))
    assert fast == plain
    assert fast[-1] == end
    assert [t.finished for t in fast] == [t.finished for t in plain]


def test_bad_requests_are_said():
    plain, other = model_of(0), model_of(0, vocab=7)
    for model, options, said in (
        (plain, {"speculate": 2}, "no heads for later tokens"),
        (plain, {"speculate": -1}, "speculate is -1"),
        (plain, {"draft": plain}, "speculate is 0"),
        (plain, {"draft": other, "speculate": 2}, "vocabulary of 7 tokens and the model one of 31"),
    ):
        with pytest.raises(LaminaError, match=said):
            lamina.generate(model, [1], **options)


def test_heads_are_counted_beside_the_total():
    model = model_of(2)
    heads = sum(p.numel() for p in model.prediction.parameters())
    assert model.arch.prediction_parameters == heads
    assert model.arch.parameters().total == sum(p.numel() for p in model.parameters()) - heads
    assert model.arch.parameters() == model.arch.replace(prediction=None).parameters()
