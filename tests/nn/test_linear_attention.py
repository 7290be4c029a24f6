"""Linear attention in all kinds, in a decoder, against its papers' equations unrolled: no state, no chunks."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import lamina
from lamina.arch import (
    Architecture,
    Block,
    Branch,
    Embedding,
    GatedLinearAttention,
    LayerNorm,
    LightningAttention,
    LinearAttention,
    Retention,
    RMSNorm,
    Rotary,
)
from tests.reference import ids, relative

D, H, K, V = 20, 3, 6, 4
RMS, TURN = RMSNorm(eps=1e-3), Rotary(dim=4, base=50.0)
SIZES: dict[str, Any] = {"heads": H, "key_dim": K, "value_dim": V}
KINDS = {
    "elu": LinearAttention(**SIZES),
    "relu": LinearAttention(**SIZES, features="relu", eps=0.1, norm=RMS, gate="sigmoid"),
    "identity": LinearAttention(**SIZES, features="identity", normalise=False, norm=LayerNorm()),
    "retention": Retention(**SIZES, rotary=TURN),
    "retention-plain": Retention(**SIZES, norm=None, gate=None),
    "gated": GatedLinearAttention(**SIZES, decay_rank=2, damping=4.0),
    "gated-plain": GatedLinearAttention(**SIZES, norm=RMS, gate=None, damping=0.01),
    "lightning": LightningAttention(
        heads=6, head_dim=K, rates="powers", first=1, qk_norm=RMS, rotary=TURN, scale=0.4, norm=RMS, norm_groups=2
    ),
    "lightning-constant": LightningAttention(heads=5, head_dim=K, by_depth=False, activation=None),
}


def decoder(op: Any) -> Architecture:
    """Four blocks of it, so that depth counts."""
    block = Block(branches=(Branch(op=op, before=RMS),))
    return Architecture(
        family="minimax", embedding=Embedding(vocab=97, width=D), blocks=(block,) * 4, norm=RMS, context=400
    )


@pytest.fixture(params=KINDS.values(), ids=list(KINDS))
def model(request):
    made, random = lamina.build(decoder(request.param)), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in made.named_parameters():
            noise = torch.randn(p.shape, generator=random)
            p.copy_(noise * 1.2 / p.shape[-1] ** 0.5 if p.ndim > 1 else float("norm" in name) + 0.3 * noise)
    return made


def normed(x: Tensor, value: Any, w: dict[str, Tensor], name: str = "norm") -> Tensor:
    if isinstance(value, LayerNorm):
        x, eps = x - x.mean(-1, keepdim=True), value.eps
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * w[f"{name}.weight"] + w[f"{name}.bias"]
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + value.eps) * w[f"{name}.weight"].view(-1, x.shape[-1])


def turned(x: Tensor, position: int) -> Tensor:
    out = x.clone()
    for i in range(TURN.dim // 2):
        a, b, angle = x[i], x[i + TURN.dim // 2], position * TURN.base ** (-2 * i / TURN.dim)
        out[i] = a * math.cos(angle) - b * math.sin(angle)
        out[i + TURN.dim // 2] = b * math.cos(angle) + a * math.sin(angle)
    return out


def seen(op: Any, x: Tensor, w: dict[str, Tensor], block: int, h: int, t: int, s: int) -> Tensor:
    """What is left at token t of each of the K rows that token s wrote in head h."""
    if isinstance(op, Retention):
        return torch.full((K,), (1.0 - 2.0 ** (-5 - h)) ** (t - s), dtype=x.dtype)
    if isinstance(op, GatedLinearAttention):
        raw = (x[s + 1 : t + 1] @ w["decay_a_proj.weight"].T) @ w["decay_b_proj.weight"].T + w["decay_b_proj.bias"]
        return (torch.sigmoid(raw.view(-1, H, K)[:, h]) ** (1.0 / op.damping)).prod(0)
    if isinstance(op, LightningAttention):
        six = [2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3]  # of four heads, then each other one of eight
        rate = six[h] * (1 - (block - 1) / 3 + 1e-5) if op.by_depth else 2.0 ** (-8 * (h + 1) / op.heads)
        return torch.full((K,), math.exp(-rate * (t - s)), dtype=x.dtype)
    return torch.ones(K, dtype=x.dtype)


GATES: dict[Any, Any] = {"silu": F.silu, "sigmoid": torch.sigmoid}


def mixer(op: Any, x: Tensor, w: dict[str, Tensor], block: int) -> Tensor:
    heads = op.heads
    q, k, v = ((x @ w[f"{p}_proj.weight"].T).view(len(x), heads, -1) for p in "qkv")
    features = {"elu": lambda y: torch.where(y > 0, y + 1, y.exp()), "relu": lambda y: y.clamp(min=0)}
    scale = getattr(op, "scale", K**-0.5)
    if isinstance(op, LinearAttention):
        q, k = (features.get(op.features, lambda y: y)(y) for y in (q, k))
    if isinstance(op, LightningAttention) and op.activation:
        q, k, v = F.silu(q), F.silu(k), F.silu(v)
    if isinstance(op, LightningAttention) and op.qk_norm:
        q, k = normed(q, op.qk_norm, w, "q_norm"), normed(k, op.qk_norm, w, "k_norm")
    out = torch.zeros(len(x), heads, v.shape[2], dtype=x.dtype)
    for t in range(len(x)):
        for h in range(heads):
            turn = turned if getattr(op, "rotary", None) else lambda y, position: y
            keys = [turn(k[s, h], s) * seen(op, x, w, block, h, t, s) for s in range(t + 1)]
            scores = torch.stack([scale * (turn(q[t, h], t) @ key) for key in keys])
            divided = scores.sum() + op.eps if isinstance(op, LinearAttention) and op.normalise else 1.0
            out[t, h] = scores @ v[: t + 1, h] / divided
    gate = x @ w["gate_proj.weight"].T if "gate_proj.weight" in w else torch.zeros(())
    if isinstance(op, LightningAttention):
        out = normed(out.view(len(x), op.norm_groups, -1), op.norm, w).flatten(1)
        return (out * torch.sigmoid(gate)) @ w["o_proj.weight"].T
    out = (normed(out, op.norm, w) if op.norm else out).flatten(1)
    out = out * GATES[op.gate](gate) if op.gate else out
    return out @ w["o_proj.weight"].T


def forward(model: Any, tokens: Tensor) -> Tensor:
    tensors = {name: p.detach().double() for name, p in model.named_parameters()}
    x = tensors["embedding.table"][tokens]
    for i, block in enumerate(model.arch.blocks):
        start = f"blocks.{i}.mixer."
        w = {name.removeprefix(start): p for name, p in tensors.items() if name.startswith(start)}
        inner = {name.removeprefix("op."): p for name, p in w.items()}
        x = x + mixer(block.branches[0].op, normed(x, RMS, w, "before"), inner, i)
    return normed(x, RMS, tensors) @ tensors["head.weight"].T


@torch.inference_mode()
def test_logits_equal_the_equations(model):
    for tokens in (1, 2, 19):
        x = ids(2, tokens)
        expected = torch.stack([forward(model, row) for row in x])
        assert relative(model(x).double(), expected) <= 1e-5


@torch.inference_mode()
def test_states_and_padding_change_nothing(model):
    """Cached = uncached, in pieces = whole, longer than a chunk, rows of different lengths as if alone."""
    x, lengths = ids(3, 150), [17, 150, 5]
    whole, state = model(x), model.init_state(3, 151)
    out = torch.cat([model(piece, state) for piece in x.split([5, 1, 70, 1, 73], 1)], 1)
    assert relative(out, whole) <= 1e-5
    assert state.nbytes == model.arch.state_bytes(151, 3, "float32") == model.arch.state_bytes(1, 3, "float32")
    state = model.init_state(3, 160)
    padded, saved = model(x, state, lengths=torch.tensor(lengths)), state.snapshot()
    after = model(x[:, :1], state)
    for i, n in enumerate(lengths):
        assert relative(padded[i, :n], whole[i, :n]) <= 1e-5
        assert relative(after[i, 0], model(torch.cat([x[i : i + 1, :n], x[i : i + 1, :1]], 1))[0, -1]) <= 1e-5
    state.restore(saved)
    state.select([2, 0])
    assert relative(model(x[[2, 0], :1], state), after[[2, 0]]) <= 1e-5


@torch.no_grad()
def test_formulas_equal_what_is_allocated_and_done(model):
    assert model.arch.parameters().total == sum(p.numel() for p in model.parameters())
    for rows, tokens in ((1, 1), (1, 2), (2, 63), (1, 64), (1, 65), (1, 131)):
        with FlopCounterMode(display=False) as counter:
            model(ids(rows, tokens))
        assert counter.get_total_flops() == rows * model.arch.flops(tokens)


def test_gradients_equal_those_of_the_equations(model):
    """In double precision but for norms and logarithms of decays, which are never more than single."""
    model, x = model.double(), ids(1, 9)
    model(x).square().sum().backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters()}
    leaves = {name: p.detach().requires_grad_() for name, p in model.named_parameters()}

    class Held:
        arch = model.arch
        named_parameters = staticmethod(lambda: [(name, _Same(p)) for name, p in leaves.items()])

    forward(Held, x[0]).square().sum().backward()
    for name, leaf in leaves.items():
        assert relative(ours[name], leaf.grad) <= 1e-4, name


class _Same:
    """A leaf whose gradient is wanted: it stays one when it is detached."""

    def __init__(self, leaf: Tensor) -> None:
        self.leaf = leaf

    def detach(self) -> _Same:
        return self

    def double(self) -> Tensor:
        return self.leaf
