"""Mamba-3: the module against its equations a token at a time, its state, its counts, and how it begins.

The operation agrees with the authors' own loop over tokens (state-spaces/mamba, tests/ops) to 1e-15 in float64, of one
row and of three, as compared when it was written; that needs their kernels' package, so it is not run here.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import lamina
from lamina.arch import Architecture, Block, Branch, Embedding, Mamba3, RMSNorm
from lamina.errors import LaminaError
from tests.reference import ids, relative

ONE = Mamba3(heads=6, head_dim=5, groups=2, state=11, turning=4)
SEVERAL = ONE.replace(rank=3, turning=5, output_norm=RMSNorm(eps=1e-5), rate="softplus", bias=True)
BOTH = pytest.mark.parametrize("value", [ONE, SEVERAL], ids=["one row", "three rows"])


def decoder(value):
    block = Block(branches=(Branch(op=value, before=RMSNorm()),))
    arch = Architecture(
        family="lamina", embedding=Embedding(vocab=97, width=24), blocks=(block,) * 3, norm=RMSNorm(), context=64
    )
    model, random = lamina.build(arch, dtype="float64"), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=random, dtype=p.dtype)
            p.copy_(noise / p.shape[-1] ** 0.5 if p.ndim == 2 else p + 0.3 * noise)
            if name.endswith("step_bias"):
                p.add_(4.0)  # steps of about a half
    return model


def by_hand(op, value, x):
    """One layer, as its docstring says, in loops over rows, tokens and heads."""
    H, P, G, N, R, A = value.heads, value.head_dim, value.groups, value.state, value.rank, value.turning
    ones = torch.ones(H, 1, P, dtype=x.dtype)
    up, spread, down = (getattr(op, name) if R > 1 else ones for name in ("x_up", "gate_up", "down"))
    out = []
    for row in op.in_proj(x):
        S, last = torch.zeros(H, P, N, dtype=x.dtype), torch.zeros(H, P, N, dtype=x.dtype)
        angle = torch.zeros(H, A, dtype=x.dtype)
        for token in row:
            z, v, b, c, raw, p, lean, turn = token.split(value.sizes)
            d = torch.log1p((raw + op.step_bias).exp())
            rate = torch.log1p(p.exp()) if value.rate == "softplus" else torch.where(p >= 0, 1 + p, 1 / (1 - p))
            share = lean.sigmoid()
            angle = angle + math.pi * torch.tanh(turn) * d[:, None]
            y = torch.zeros(H, P, dtype=x.dtype)
            for h in range(H):
                rows = []
                for part, norm, bias in ((b, op.b_norm, op.b_bias), (c, op.c_norm, op.c_bias)):
                    of_head = norm(part.view(R, G, N)[:, h // (H // G)]) + bias[h]
                    pairs = torch.view_as_complex(of_head[:, : 2 * A].reshape(R, A, 2).contiguous())
                    turned = torch.view_as_real(pairs * torch.exp(1j * angle[h])).flatten(1)
                    rows.append(torch.cat([turned, of_head[:, 2 * A :]], 1))
                wide = v.view(H, P)[h] * up[h]  # [R P]
                entering = wide.T @ rows[0]
                S[h] = torch.exp(-rate[h] * d[h]) * (S[h] + (1 - share[h]) * d[h] * last[h])
                S[h] = S[h] + share[h] * d[h] * entering
                last[h] = entering
                of_rows = rows[1] @ S[h].T + op.skip[h] * wide
                if value.output_norm:
                    mean = of_rows.square().mean(-1, keepdim=True)
                    of_rows = of_rows / (mean + 1e-5).sqrt() * op.output_norm.weight.view(H, P)[h]
                y[h] = (of_rows * torch.nn.functional.silu(z.view(H, P)[h] * spread[h]) * down[h]).sum(0)
            out.append(op.o_proj(y.flatten()))
    return torch.stack(out).view(x.shape)


@BOTH
@torch.no_grad()
def test_a_layer_is_its_equations(value):
    model = decoder(value)
    seen = {}
    op = model.blocks[1].mixer.op
    op.register_forward_hook(lambda _, given, out: seen.update(x=given[0], y=out))
    model(ids(2, 19))
    assert relative(seen["y"], by_hand(op, value, seen["x"])) <= 1e-6  # norms are computed in single precision


@BOTH
@torch.no_grad()
def test_a_state_and_padding_change_nothing(value):
    model, x = decoder(value), ids(2, 29)
    whole = model(x)
    for pieces in ([1] * 29, [5, 1, 7, 9, 7], [3, 20, 1, 1, 4]):
        state = model.init_state(2, 31)
        assert relative(torch.cat([model(piece, state) for piece in x.split(pieces, 1)], 1), whole) <= 1e-6
    state = model.init_state(2, 31)
    first = model(x[:, :13], state, lengths=torch.tensor([13, 4]))
    then = model(torch.stack([x[0, 13:18], x[1, 4:9]]), state)
    assert relative(first[1, :4], whole[1, :4]) <= 1e-6
    assert relative(then, torch.stack([whole[0, 13:18], whole[1, 4:9]])) <= 1e-6


@BOTH
@torch.no_grad()
def test_counts(value):
    model = decoder(value)
    assert model.arch.parameters().total == sum(p.numel() for p in model.parameters())
    for tokens in (1, 19, 64, 70):
        with FlopCounterMode(display=False) as counter:
            model(ids(1, tokens))
        assert counter.get_total_flops() == model.arch.flops(tokens)
    state = lamina.build(model.arch).init_state(3, 40)
    assert state.nbytes == model.arch.state_bytes(40, 3, "float32") == model.arch.state_bytes(9, 3, "float32")


def test_it_begins_as_published():
    """Steps of 0.01, biases of B and C and the skip at one, rows that are a mean."""
    op = lamina.build(decoder(SEVERAL).arch).blocks[0].mixer.op
    assert torch.allclose(torch.nn.functional.softplus(op.step_bias), torch.tensor(0.01))
    assert all(bool((p == 1).all()) for p in (op.b_bias, op.c_bias, op.skip, op.gate_up))
    assert torch.allclose(op.x_up * 3, torch.ones_like(op.x_up))
    assert torch.allclose(op.down * 3, torch.ones_like(op.down))


def test_what_does_not_fit_is_said():
    with pytest.raises(LaminaError, match=r"turning \(6\) must be at most half of state \(11\)"):
        ONE.replace(turning=6)
    with pytest.raises(LaminaError, match=r"heads \(6\) must be a multiple of groups \(4\)"):
        ONE.replace(groups=4)
