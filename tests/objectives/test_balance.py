"""Balancing the load of experts, against the reference's loss, and on a router that begins lopsided."""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

import lamina
from lamina.arch import GLU, Architecture, Attention, Block, Branch, Embedding, MoE, RMSNorm, Router
from lamina.errors import LaminaError
from lamina.objectives.balance import Route, balance_loss, loads, move_corrections, routes
from tests.reference import ids, randomise, relative

CONFIG = {
    "vocab_size": 97,
    "hidden_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "moe_intermediate_size": 12,
    "num_experts": 7,
    "num_experts_per_tok": 3,
    "mlp_only_layers": [1],
    "intermediate_size": 20,
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    directory = tmp_path_factory.mktemp("balance")
    model = transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(**CONFIG)).eval()
    randomise(model)
    model.save_pretrained(directory)
    return model, lamina.load(directory)


def test_the_loss_is_that_of_the_reference(pair):
    theirs, ours = pair
    x = ids(2, 19)
    with routes(ours) as found:
        ours(x)
    expected = theirs(x, output_router_logits=True)
    assert [route.path for route in found] == [f"blocks.{i}.feed_forward.op.router" for i in (0, 2)]
    assert all(relative(r.logits, e) <= 1e-5 for r, e in zip(found, expected.router_logits, strict=True))
    assert relative(balance_loss(found), expected.aux_loss) <= 1e-5
    assert relative(balance_loss(found[:1]), load_balancing_loss_func(expected.router_logits[:1], 7, 3)) <= 1e-5


def test_padding_counts_for_nothing(pair):
    theirs, ours = pair
    x, mask = ids(2, 19), torch.ones(2, 19, dtype=torch.int64)
    mask[1, 11:] = 0
    with routes(ours) as found:
        ours(x, lengths=torch.tensor([19, 11]))
    logits = theirs(x, attention_mask=mask, output_router_logits=True).router_logits
    assert relative(balance_loss(found), load_balancing_loss_func(logits, 7, 3, mask)) <= 1e-5
    assert all(float(counts.sum()) == 30 * 3 for counts in loads(found).values())


def test_its_gradients_are_those_of_the_reference(pair):
    theirs, ours = pair
    x = ids(2, 19)
    with routes(ours) as found:
        ours(x)
    balance_loss(found).backward()
    theirs(x, output_router_logits=True).aux_loss.backward()
    for i in (0, 2):
        mine, other = ours.blocks[i].feed_forward.op.router.gate.weight, theirs.model.layers[i].mlp.gate.weight
        assert relative(mine.grad, other.grad) <= 1e-4
    ours.zero_grad()
    theirs.zero_grad()


def test_routers_say_nothing_when_no_one_asks(pair):
    _, ours = pair
    with routes(ours) as found:
        pass
    ours(ids(1, 3))
    assert found == []
    assert not any(module._forward_hooks for module in ours.modules())


def test_an_even_load_is_the_least():
    """k where all experts are alike, as the paper has it for k = 1; more where one has all."""
    value = Router(experts=6, active=2)
    even = torch.stack([torch.arange(6).roll(i)[:2] for i in range(6)])
    assert float(balance_loss([Route("", value, torch.zeros(6, 6), even)])) == pytest.approx(2.0)
    lopsided = Route("", value, torch.tensor([[9.0, 9, 0, 0, 0, 0]] * 6), torch.tensor([[0, 1]] * 6))
    assert float(balance_loss([lopsided])) > 5.9


def lopsided(correction: bool = True) -> lamina.nn.decoder.Decoder:
    """A model whose routers like their first experts best."""
    router = Router(experts=8, active=2, score="sigmoid", correction=correction)
    ops = Attention(heads=2, kv_heads=1, head_dim=6), MoE(router=router, expert=GLU(inner=5))
    blocks = (Block(branches=tuple(Branch(op=op, before=RMSNorm()) for op in ops)),) * 2
    model = lamina.build(Architecture(family="llama", embedding=Embedding(vocab=97, width=12), blocks=blocks))
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" not in name and "before" not in name:
                p.copy_(torch.randn(p.shape, generator=random) * 0.3)
            if name.endswith("correction"):
                p.copy_(torch.linspace(1.0, -1.0, 8))
    return model


def spread(counts: torch.Tensor) -> float:
    """How far the busiest expert is above the mean load, in means (MaxVio of arXiv 2408.15664)."""
    return float(counts.max() / counts.mean() - 1)


@torch.no_grad()
def test_moving_corrections_evens_the_load():
    model, x = lopsided(), ids(4, 50)
    seen = []
    for _ in range(300):
        with routes(model) as found:
            model(x)
        seen.append(max(spread(counts) for counts in loads(found).values()))
        move_corrections(model, loads(found), rate=1e-2)
    assert seen[0] > 2.0
    assert max(seen[-10:]) < 0.5


def test_each_correction_moves_by_the_rate():
    model = lopsided()
    path = "blocks.1.feed_forward.op.router"
    before = model.get_submodule(path).correction.clone()
    move_corrections(model, {path: torch.tensor([9.0, 3, 3, 3, 3, 3, 0, 0])}, rate=0.25)
    moved = model.get_submodule(path).correction - before
    torch.testing.assert_close(moved, 0.25 * torch.tensor([-1.0, 0, 0, 0, 0, 0, 1, 1]))


def test_bad_input():
    with pytest.raises(LaminaError, match=r"^blocks\.0\.feed_forward\.op\.router has no correction to move"):
        move_corrections(lopsided(correction=False), {"blocks.0.feed_forward.op.router": torch.ones(8)})
    values = [Router(experts=n, active=2) for n in (6, 8)]
    different = [Route("", v, torch.zeros(3, v.experts), torch.zeros(3, 2, dtype=torch.int64)) for v in values]
    with pytest.raises(LaminaError, match=r"routers of as many experts, not \[6, 8\]"):
        balance_loss(different)
    with pytest.raises(LaminaError, match=r"not \[\]"):
        balance_loss([])
