"""Kimi Delta Attention where no reference has a row: keys and values of other sizes, a gate with a bias."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import lamina
from lamina.arch import Architecture, Block, Branch, Embedding, KimiDeltaAttention, RMSNorm
from tests.reference import ids, randomise, relative

OP = KimiDeltaAttention(heads=3, key_dim=10, value_dim=14, convolution=3, decay_rank=4, gate_rank=6, gate_bias=True)
FORMS = {
    "bottlenecks": OP,
    "full, floor": OP.replace(decay_rank=None, gate_rank=None, decay_floor=-2.0),
    "no convolution": OP.replace(convolution=1, gate_bias=False),
}


def model_of(op: KimiDeltaAttention):
    arch = Architecture(
        family="lamina",
        embedding=Embedding(vocab=97, width=40),
        blocks=(Block(branches=(Branch(op=op, before=RMSNorm()),)),),
        norm=RMSNorm(),
        context=40,
    )
    model = lamina.build(arch)
    randomise(model)
    return model


def by_hand(module, op: KimiDeltaAttention, x: torch.Tensor) -> torch.Tensor:
    """The value's sentences, a token at a time."""
    weight = dict(module.named_parameters())

    def of(name: str) -> torch.Tensor:
        return F.linear(x, weight[f"{name}_proj.weight"], weight.get(f"{name}_proj.bias"))

    def low(name: str) -> torch.Tensor:
        if f"{name}_proj.weight" in weight:
            return of(name)
        return F.linear(of(f"{name}_a"), weight[f"{name}_b_proj.weight"], weight.get(f"{name}_b_proj.bias"))

    inputs = torch.cat([of("q"), of("k"), of("v")], -1)
    filters = weight["convolution.weight"][:, 0]
    padded = F.pad(inputs, (0, 0, op.convolution - 1, 0))
    mixed = F.silu(torch.stack([padded[:, j : j + x.shape[1]] * filters[:, j] for j in range(op.convolution)]).sum(0))
    keys = op.heads * op.key_dim
    q, k, v = (part.unflatten(-1, (op.heads, -1)) for part in mixed.split([keys, keys, op.heads * op.value_dim], -1))
    q, k = (part / (part.square().sum(-1, keepdim=True) + 1e-6).sqrt() for part in (q, k))
    raw = (low("decay") + weight["decay_bias"]).unflatten(-1, (op.heads, -1))
    rate = weight["decay_log_rate"].exp()[:, None]
    log = op.decay_floor * torch.sigmoid(rate * raw) if op.decay_floor else -rate * F.softplus(raw)
    step, outs = of("step").sigmoid(), []
    state = torch.zeros(x.shape[0], op.heads, op.key_dim, op.value_dim)
    for t in range(x.shape[1]):
        state = log[:, t, :, :, None].exp() * state
        change = step[:, t, :, None] * (v[:, t] - (state * k[:, t, ..., None]).sum(-2))
        state = state + k[:, t, ..., None] * change[..., None, :]
        outs.append((state * q[:, t, ..., None]).sum(-2) / op.key_dim**0.5)
    out = torch.stack(outs, 1)
    out = out * torch.rsqrt(out.square().mean(-1, keepdim=True) + op.norm.eps) * weight["norm.weight"]
    return F.linear(out.flatten(2) * low("gate").sigmoid(), weight["o_proj.weight"])


@torch.inference_mode()
@pytest.mark.parametrize("op", FORMS.values(), ids=FORMS)
def test_what_the_value_says(op):
    model, seen = model_of(op), {}
    module = model.blocks[0].mixer.op
    module.register_forward_hook(lambda _, given, out: seen.update(x=given[0], out=out))
    model(ids(2, 33))
    assert relative(seen["out"], by_hand(module, op, seen["x"])) <= 1e-5
    assert sum(p.numel() for p in module.parameters()) == op.parameters(40)


@torch.inference_mode()
@pytest.mark.parametrize("op", FORMS.values(), ids=FORMS)
def test_state(op):
    model, x = model_of(op), ids(2, 29)
    whole, state = model(x), model.init_state(2, 29)
    assert state.nbytes == model.arch.state_bytes(context=29, batch=2, dtype="float32")
    out = torch.cat([model(part, state) for part in x.split([1, 2, 20, 1, 5], 1)], 1)
    assert relative(out, whole) <= 1e-5
    state = model.init_state(2, 29)
    model(x[:, :9], state, lengths=[4, 9])
    rest = model(torch.stack([x[0, 4:14], x[1, 9:19]]), state)
    assert relative(rest, torch.stack([whole[0, 4:14], whole[1, 9:19]])) <= 1e-5


def test_half_precision_and_gradients():
    exact, half = model_of(OP), model_of(OP).to(torch.bfloat16)
    x = ids(1, 40)
    assert relative(half(x).detach().float(), exact(x).detach()) <= 0.1
    exact(x).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in exact.parameters())
