"""Latent attention: the two orders of its sums agree, a block reads the latents of another, nothing is kept twice."""

from __future__ import annotations

import pytest
import torch

import lamina
from lamina.arch import (
    GLU,
    Architecture,
    Block,
    Branch,
    Embedding,
    LatentAttention,
    LearnedTemperature,
    LengthTemperature,
    LinearScaling,
    RMSNorm,
    Rotary,
)
from lamina.nn.latent_attention import LatentAttention as Module

TURN = Rotary(base=100.0, dim=6, layout="interleaved", scaling=LinearScaling(factor=2.0))
PLAIN = LatentAttention(heads=5, latent=16, query_latent=7, plain_dim=9, rotary_dim=6, value_dim=11, rotary=TURN)
UNTURNED = PLAIN.replace(rotary_dim=0, rotary=None, query_latent=None)
LENGTH = LengthTemperature(floor=3, scale=0.4)
VARIANTS = {
    "plain": (PLAIN, PLAIN),
    "no positions": (UNTURNED, UNTURNED),
    "biases and gates": (PLAIN.replace(bias=True, gate="head"), PLAIN.replace(gate="elementwise")),
    "sinks": (PLAIN.replace(sinks=True), PLAIN.replace(sinks=True, scale=0.7)),
    "scales": (PLAIN.replace(query_scale=1.7, latent_scale=0.6), PLAIN),
    "temperature": (PLAIN.replace(temperature=LENGTH), PLAIN.replace(temperature=LearnedTemperature())),
    "temperature of scores": (PLAIN.replace(temperature=LENGTH.replace(of="scores"), sinks=True), PLAIN),
    "borrowed": (PLAIN, PLAIN.replace(kv_from=0, plain_dim=4, heads=3)),
}


def filled(ops: tuple[LatentAttention, ...], dtype: str = "float32") -> lamina.nn.decoder.Decoder:
    """A model of these mixers with weights that are neither small nor neutral."""
    norm = RMSNorm(eps=1e-3)
    blocks = [Block(branches=(Branch(op=op, before=norm), Branch(op=GLU(inner=7), before=norm))) for op in ops]
    arch = Architecture(
        family="lamina", embedding=Embedding(vocab=31, width=12), blocks=tuple(blocks), norm=norm, context=60
    )
    model, random = lamina.build(arch, dtype=dtype), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) / parameter.shape[-1] ** 0.5)
    return model


def ids(batch: int, tokens: int) -> torch.Tensor:
    return torch.randint(0, 31, (batch, tokens), generator=torch.Generator().manual_seed(2))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("absorbs", [True, False])
@torch.inference_mode()
def test_both_orders_give_the_same(variant, absorbs, monkeypatch):
    """Of a prompt, of one token more, of a few, of rows that have come to different lengths."""
    model = filled(VARIANTS[variant])
    x, lengths = ids(3, 21), torch.tensor([4, 9, 7])
    alone = [model(row[None]) for row in x]
    monkeypatch.setattr(Module, "_absorbs", lambda *_: absorbs)
    assert relative(model(x), torch.cat(alone)) <= 1e-5
    state = model.init_state(3, 21)
    found = torch.cat([model(piece, state) for piece in x.split([5, 1, 8, 1, 6], 1)], 1)
    assert relative(found, torch.cat(alone)) <= 1e-5
    state = model.init_state(3, 21)
    model(x, state, lengths=lengths)
    again = model(torch.stack([row[n : n + 3] for row, n in zip(x, lengths, strict=True)]), state)
    for row, whole, n in zip(again, alone, lengths, strict=True):
        assert relative(row, whole[0, n : n + 3]) <= 1e-5


def test_the_order_is_that_of_fewer_flops():
    """Of DeepSeek V3: a prompt expands, one token absorbs, and after many tokens up to 170 do."""
    op = LatentAttention(heads=128, latent=512, query_latent=1536, plain_dim=128, rotary_dim=64, value_dim=128)
    with torch.device("meta"):
        module = Module(op, 7168, lamina.nn.registry.Place())
    assert not any(module._absorbs(n, n) for n in (1, 7, 4096))
    assert module._absorbs(1, 2)
    assert [module._absorbs(n, 10**9) for n in (170, 171)] == [True, False]
    for tokens, seen in ((3, 50), (40, 90), (100, 4000), (160, 4000)):
        absorbed = 2 * 128 * (tokens * 512 * 256 + tokens * seen * (512 + 64 + 512))
        expanded = 2 * 128 * (seen * 512 * 256 + tokens * seen * (128 + 64 + 128))
        assert module._absorbs(tokens, seen) == (absorbed < expanded)


def test_the_state_is_one_row_a_token_and_nothing_of_the_absorbed_weights_is_kept():
    model = filled((PLAIN, PLAIN.replace(kv_from=0)))
    state = model.init_state(2, 30)
    assert state.nbytes == 2 * 30 * (16 + 6) * 4 == model.arch.state_bytes(30, 2, "float32")
    before = {name: p.data_ptr() for name, p in model.named_parameters()}
    with torch.inference_mode():
        model(ids(2, 9), state)
        model(ids(2, 1), state)
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == before
    module = model.blocks[0].mixer.op
    up, out = module._up_and_out()
    held = module.kv_b_proj.weight.untyped_storage().data_ptr()
    assert {up.untyped_storage().data_ptr(), out.untyped_storage().data_ptr()} == {held}
    assert not [name for name, _ in model.named_buffers()]


def test_a_block_reads_the_latents_that_an_earlier_one_left():
    model = filled((PLAIN, PLAIN, PLAIN.replace(kv_from=0)))
    assert "kv_a_proj" not in dict(model.blocks[2].mixer.op.named_children())
    x = ids(1, 9)
    with torch.inference_mode():
        model.blocks[0].mixer.op.o_proj.weight.zero_()  # what it leaves now comes from its latents alone
        quiet = model(x)
        model.blocks[0].mixer.op.kv_a_norm.weight.mul_(2.0)
        assert not torch.allclose(model(x), quiet)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
@torch.inference_mode()
def test_other_types(dtype):
    model, exact = filled((PLAIN, PLAIN), dtype), filled((PLAIN, PLAIN))
    state = model.init_state(1, 12)
    found = torch.cat([model(piece, state) for piece in ids(1, 12).split([8, 1, 3], 1)], 1)
    assert relative(found, exact(ids(1, 12))) <= (0.05 if dtype == "bfloat16" else 1e-5)


def test_gradients_go_through_both_orders(monkeypatch):
    gradients = []
    for absorbs in (True, False):
        monkeypatch.setattr(Module, "_absorbs", lambda *_, absorbs=absorbs: absorbs)
        model = filled((PLAIN, PLAIN), "float64")
        model(ids(2, 9)).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(relative(a, b) <= 1e-6 for a, b in zip(*gradients, strict=True))  # logits are float32


def test_keys_under_angles_that_change_with_the_length():
    """A dynamic scaling makes earlier keys stale, so the state keeps the tokens and reads them again."""
    turn = Rotary(base=100.0, dim=6, scaling=lamina.arch.DynamicScaling(factor=2.0, original_context=8))
    model = filled((PLAIN.replace(rotary=turn),) * 2)
    x, state = ids(2, 14), model.init_state(2, 14)
    with torch.inference_mode():
        found = [model(piece, state) for piece in x.split([5, 4, 1, 4], 1)]
        assert relative(found[-1], model(x)[:, -4:]) <= 1e-5
    assert state.nbytes == model.arch.state_bytes(14, 2, "float32")
