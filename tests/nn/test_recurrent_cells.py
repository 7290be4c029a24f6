"""sLSTM against its equations written by hand, and decoders of sLSTM, mLSTM, RWKV-7 and attention together."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import lamina
from lamina.arch import GLU, MLSTM, RWKV7, SLSTM, Architecture, Attention, Block, Branch, ChannelMix, Embedding, RMSNorm
from lamina.arch.base import Op
from tests.reference import changes_nothing, ids, relative

NORM = RMSNorm()
H, P = 3, 7
CELL = SLSTM(heads=H, head_dim=P)
MEMORY = MLSTM(heads=2, key_dim=6, value_dim=10, softcap=5.0)
MIX = RWKV7(heads=2, key_dim=6, value_dim=10, decay_rank=3, step_rank=4, gate_rank=5)
ATTENTION = Attention(heads=4, kv_heads=2, head_dim=6)
HYBRIDS = {
    "slstm": (CELL, CELL.replace(forget="exponential")),
    "xlstm": (MEMORY, CELL, MEMORY),
    "rwkv and attention": (MIX, ATTENTION, MIX.replace(value_rank=2)),
}


def decoder(mixers: tuple[Op, ...], feed_forward: Op | None = None) -> Architecture:
    rest = feed_forward or GLU(inner=26)
    blocks = tuple(Block(branches=(Branch(op=op, before=NORM), Branch(op=rest, before=NORM))) for op in mixers)
    return Architecture(family="llama", embedding=Embedding(vocab=97, width=20), blocks=blocks, norm=NORM, context=128)


def filled(arch: Architecture):
    model, random = lamina.build(arch), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=random)
            p.copy_(noise * p.shape[-1] ** -0.5 if p.ndim > 1 else 0.5 * noise + ("norm" in name))
    return model


@pytest.fixture(params=HYBRIDS, ids=str)
def model(request):
    mix = ChannelMix(inner=26) if "rwkv" in request.param else None
    return filled(decoder(HYBRIDS[request.param], mix))


def by_hand(x: torch.Tensor, module, forget: str) -> torch.Tensor:
    """arXiv 2405.04517, eqs. 8 to 14, a row, a token and a head at a time, without what keeps numbers in bounds."""
    names = ("z_proj", "input_gate_proj", "forget_gate_proj", "gate_proj")
    out = torch.zeros(*x.shape[:2], H * P, dtype=torch.float64)
    for b, row in enumerate(x.double()):
        c, n, h = (torch.zeros(H, P, dtype=torch.float64) for _ in range(3))
        for t, token in enumerate(row):
            given = []
            for j, name in enumerate(names):
                linear, back = getattr(module, name), module.recurrent[j].double()
                wx = linear.weight.double() @ token + linear.bias.double()
                given.append(wx.view(H, P) + torch.stack([back[head] @ h[head] for head in range(H)]))
            z, i, f, o = given
            i, f = i.exp(), torch.sigmoid(f) if forget == "sigmoid" else f.exp()
            c, n = f * c + i * torch.tanh(z), f * n + i
            h = torch.sigmoid(o) * (c / n)
            centred = h - h.mean(-1, keepdim=True)
            normed = centred / torch.sqrt(h.var(-1, correction=0, keepdim=True) + module.norm.eps)
            out[b, t] = normed.flatten() * module.norm.weight.double()
    return out @ module.o_proj.weight.double().T


@torch.inference_mode()
def test_slstm_equals_its_equations():
    model, seen = filled(decoder(HYBRIDS["slstm"])), {}
    for i, block in enumerate(model.blocks):
        block.mixer.op.register_forward_hook(lambda _, given, out, i=i: seen.update({i: (given[0], out)}))
    model(ids(2, 23))
    for i, forget in enumerate(("sigmoid", "exponential")):
        given, out = seen[i]
        assert relative(out.double(), by_hand(given, model.blocks[i].mixer.op, forget)) <= 1e-5


@torch.inference_mode()
def test_large_gates_stay_finite():
    """Gates of hundreds, whose exponentials no number holds: the first token's and later ones'."""
    for sign in (300.0, -300.0):
        model = filled(decoder((CELL.replace(forget="exponential"), MEMORY.replace(softcap=None), CELL)))
        for i in range(3):
            model.blocks[i].mixer.op.input_gate_proj.bias.fill_(sign)
            model.blocks[i].mixer.op.forget_gate_proj.bias.fill_(-sign)
        state, x = model.init_state(2, 70), ids(2, 70)
        whole = model(x)
        assert torch.isfinite(whole).all()
        assert relative(torch.cat([model(piece, state) for piece in x.split([1, 30, 39], 1)], 1), whole) <= 1e-5


def test_states_and_padding_change_nothing(model):
    changes_nothing(model)


def test_formulas_equal_what_is_there(model):
    arch = model.arch
    assert arch.parameters().total == sum(p.numel() for p in model.parameters())
    assert lamina.Architecture.from_json(arch.to_json()) == arch
    if any(isinstance(op, Attention) for op in arch.ops()):
        return  # its pairs are counted in tests/arch/test_cost.py
    triangles = {torch.ops.aten.linalg_solve_triangular: lambda a, b, *_, **__: math.prod(b) * a[-1]}
    for tokens in (1, 2, 19, 64, 65, 100):
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=triangles) as counter:
            model(ids(1, tokens))
        assert counter.get_total_flops() == arch.flops(tokens)


def test_every_weight_has_a_gradient(model):
    model.train()
    model(ids(2, 70)).square().mean().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all(), name
        assert p.grad.abs().max() > 0, name


def test_flops_of_rwkv():
    """Without attention beside it."""
    test_formulas_equal_what_is_there(filled(decoder((MIX, MIX.replace(value_rank=2)), ChannelMix(inner=26))))
