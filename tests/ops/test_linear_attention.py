"""Linear attention in C, against its twin; tests/ops/test_recurrences.py has the rest."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lamina.errors import LaminaError
from lamina.ops.chunks import packed
from lamina.ops.linear_attention import linear_attention, linear_attention_reference
from tests.ops.recurrences import close, single


def made(rows=2, groups=2, heads=6, tokens=70, key_dim=9, value_dim=21) -> list[torch.Tensor]:
    """q, k, v, g and a state, in float64; a token's heads beside each other."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    q, k = (normal(rows, tokens, groups, key_dim).transpose(1, 2) for _ in range(2))
    v, g = normal(rows, tokens, heads, value_dim).transpose(1, 2), -normal(rows, tokens, heads).transpose(1, 2).abs()
    return [q, k, v, g, normal(rows, heads, key_dim, value_dim)]


@pytest.mark.parametrize("tokens", [2, 15, 16, 63, 64, 65, 150])
@pytest.mark.parametrize("dims", [(1, 1), (9, 21), (16, 16), (20, 64), (64, 33)], ids=str)
@torch.no_grad()
def test_native(calls, threads, tokens, dims):
    arguments = made(tokens=tokens, key_dim=dims[0], value_dim=dims[1])
    held = single(arguments)
    before = [x.clone() for x in held]
    assert close(linear_attention(*held), linear_attention_reference(*arguments))
    assert calls == ["linear_attention"]
    assert all(torch.equal(a, b) for a, b in zip(held, before, strict=True))  # the state that was given too


@pytest.mark.parametrize("size", [0.0, 1e-6, 50.0, 1e4, 1e30], ids=str)
@torch.no_grad()
def test_native_decays_of_all_sizes(calls, size):
    """None, hardly any, and to nothing; weak ones are exact behind strong ones."""
    arguments = made()
    arguments[3][:, :, 5::3] *= size
    assert close(linear_attention(*single(arguments)), linear_attention_reference(*arguments))
    assert calls == ["linear_attention"]


@torch.no_grad()
def test_native_reads_rows_where_they_lie(calls):
    """Parts of one projection, rows of a larger batch; what lies beside is NaN."""
    q, k, v, g, state = made()
    wide = torch.full((4, 80, 6, 60), float("nan"))
    apart = [
        wide[1:3, 5:75, : x.shape[1], at : at + x.shape[3]].transpose(1, 2) for x, at in ((q, 3), (k, 13), (v, 30))
    ]
    for inside, x in zip(apart, (q, k, v), strict=True):
        inside.copy_(x)
    found = linear_attention(*apart, *single([g, state.mT.contiguous().mT]))
    assert close(found, linear_attention_reference(q, k, v, g, state))
    rates = g[0, :, :1].expand(g.shape)  # one a head
    exact = linear_attention_reference(q, k, v, rates, state)
    assert close(linear_attention(*apart, *single([rates, state])), exact)
    assert calls == ["linear_attention"] * 2
    columns = [x.float().mT.contiguous().mT for x in (q, k, v)]  # a row's numbers are apart: not in C
    assert close(linear_attention(*columns, *single([g, state])), linear_attention_reference(q, k, v, g, state))
    assert len(calls) == 2


@torch.no_grad()
def test_native_of_rows_with_padding(calls):
    """A state is that after a row's own tokens, bit for bit if it has none."""
    arguments, lengths = made(rows=3), [70, 0, 9]
    out, state = linear_attention(*single(arguments), lengths=torch.tensor(lengths))
    for row, n in enumerate(lengths):
        begun = arguments[4][row : row + 1]
        if not n:
            assert torch.equal(state[row : row + 1], begun.float())
            continue
        alone = [x[row : row + 1, :, :n] for x in arguments[:4]]
        exact = linear_attention_reference(*alone, begun)
        assert close((out[row : row + 1, :, :n], state[row : row + 1]), exact)
    row = [x[:1] for x in single(arguments)[:4]]
    out, _ = packed(linear_attention, [4, 1, 65], *row)
    assert close([out[:, :, 5:]], linear_attention(*[x[:, :, 5:] for x in row])[:1])
    assert calls == ["linear_attention"] * 3


def of_a_step(function, arguments) -> list[torch.Tensor]:
    """What it gives, and the gradients of all that it is given."""
    leaves = [x.detach().requires_grad_() for x in arguments]
    made = function(*leaves)
    weights = [torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) for x in made]
    return [*made, *torch.autograd.grad(made, leaves, [w.to(x) for w, x in zip(weights, made, strict=True)])]


@pytest.mark.parametrize("tokens", [2, 64, 150])
def test_native_gradients(calls, threads, tokens):
    """Linear attention too: of queries onwards, of keys and values from the last token to the first."""
    arguments = made(tokens=tokens)
    arguments[3][:, :, 5::9] *= 1e4
    assert close(of_a_step(linear_attention, single(arguments)), of_a_step(linear_attention_reference, arguments), 3e-6)
    assert calls == ["linear_attention"] * 4


def test_native_is_for_float32_values_only(calls):
    arguments = made()
    exact = linear_attention_reference(*arguments)
    with torch.no_grad():
        assert close(linear_attention(*arguments), exact, 1e-12)
        assert close(linear_attention(*(x.bfloat16() for x in arguments)), exact, 5e-2)
        with FlopCounterMode(display=False) as counter:
            linear_attention(*single(arguments))
        assert counter.get_total_flops()
    assert close(of_a_step(linear_attention, arguments), of_a_step(linear_attention_reference, arguments), 1e-12)
    assert not calls


def test_no_heads_and_no_numbers_are_refused():
    q, k, *rest = single(made())
    for none in ((q[:, :0], k[:, :0]), (q[..., :0], k[..., :0])):
        with pytest.raises(LaminaError, match="do not fit"):
            linear_attention(*none, *rest[:-1])
