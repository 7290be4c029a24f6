"""The delta rule in C, with a decay a head or of each row, against its twins; test_recurrences.py has the rest."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lamina.errors import LaminaError
from lamina.ops.chunks import packed
from lamina.ops.delta_rule import gated_delta_rule, gated_delta_rule_reference
from lamina.ops.vector_delta_rule import vector_delta_rule, vector_delta_rule_reference
from tests.ops.recurrences import close, single

OPS = {
    "scalar": (gated_delta_rule, gated_delta_rule_reference),
    "vector": (vector_delta_rule, vector_delta_rule_reference),
}


@pytest.fixture(params=OPS)
def kind(request):
    return request.param


def made(kind, rows=2, groups=2, heads=6, tokens=70, key_dim=9, value_dim=21) -> list[torch.Tensor]:
    """q, k, v, g, b and a state, in float64; a token's heads beside each other."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    q, k = (normal(rows, tokens, groups, key_dim).transpose(1, 2) for _ in range(2))
    v, g = normal(rows, tokens, heads, value_dim).transpose(1, 2), -normal(rows, tokens, heads, key_dim).abs()
    g = g.transpose(1, 2) if kind == "vector" else g[..., 0].transpose(1, 2)
    b = normal(rows, tokens, heads).sigmoid().transpose(1, 2)
    return [q, k, v, g, b, normal(rows, heads, key_dim, value_dim)]


@pytest.mark.parametrize("tokens", [2, 15, 16, 17, 63, 64, 65, 150])
@pytest.mark.parametrize("dims", [(1, 1), (9, 21), (16, 16), (20, 64), (64, 33)], ids=str)
@torch.no_grad()
def test_native(calls, threads, kind, tokens, dims):
    op, reference = OPS[kind]
    arguments = made(kind, tokens=tokens, key_dim=dims[0], value_dim=dims[1])
    held = single(arguments)
    before = [x.clone() for x in held]
    assert close(op(*held), reference(*arguments))
    assert calls == ["delta_rule"]
    assert all(torch.equal(a, b) for a, b in zip(held, before, strict=True))  # the state that was given too
    arguments[1] = arguments[1] / dims[0]  # keys of any length
    assert close(op(*single(arguments), unit=False), reference(*arguments, unit=False))
    assert len(calls) == 2


@pytest.mark.parametrize("size", [0.0, 1e-6, 50.0, 1e4, 1e30], ids=str)
@torch.no_grad()
def test_native_decays_of_all_sizes(calls, kind, size):
    """None, hardly any, and to nothing; weak ones are exact behind strong ones."""
    op, reference = OPS[kind]
    arguments = made(kind)
    arguments[3][:, :, 5::3] *= size
    assert close(op(*single(arguments)), reference(*arguments))
    assert calls == ["delta_rule"]


@torch.no_grad()
def test_native_reads_rows_where_they_lie(calls, kind):
    """Parts of one projection, rows of a larger batch; what lies beside is NaN."""
    op, reference = OPS[kind]
    q, k, v, g, b, state = made(kind)
    wide = torch.full((4, 80, 6, 60), float("nan"))
    apart = [
        wide[1:3, 5:75, : x.shape[1], at : at + x.shape[3]].transpose(1, 2) for x, at in ((q, 3), (k, 13), (v, 30))
    ]
    for inside, x in zip(apart, (q, k, v), strict=True):
        inside.copy_(x)
    exact = reference(q, k, v, g, b, state)
    assert close(op(*apart, *single([g, b, state.mT.contiguous().mT])), exact)
    assert calls == ["delta_rule"]
    columns = [x.float().mT.contiguous().mT for x in (q, k, v)]  # a row's numbers are apart: not in C
    assert close(op(*columns, *single([g, b, state])), exact)
    assert len(calls) == 1


@torch.no_grad()
def test_native_of_rows_with_padding(calls, kind):
    """A state is that after a row's own tokens, bit for bit if it has none."""
    op, reference = OPS[kind]
    arguments, lengths = made(kind, rows=3), [70, 0, 9]
    out, state = op(*single(arguments), lengths=torch.tensor(lengths))
    for row, n in enumerate(lengths):
        begun = arguments[5][row : row + 1]
        if not n:
            assert torch.equal(state[row : row + 1], begun.float())
            continue
        alone = [x[row : row + 1, :, :n] for x in arguments[:5]]
        assert close((out[row : row + 1, :, :n], state[row : row + 1]), reference(*alone, begun))
    row = [x[:1] for x in single(arguments)[:5]]
    out, _ = packed(op, [4, 1, 65], *row)
    assert close([out[:, :, 5:]], op(*[x[:, :, 5:] for x in row])[:1])
    assert calls == ["delta_rule"] * 3


def test_native_is_for_float32_values_only(calls, kind):
    op, reference = OPS[kind]
    arguments = made(kind)
    exact = reference(*arguments)
    with torch.no_grad():
        assert close(op(*arguments), exact, 1e-12)
        assert close(op(*(x.bfloat16() for x in arguments)), exact, 5e-2)
        with FlopCounterMode(display=False) as counter:
            op(*single(arguments))
        assert counter.get_total_flops()
        assert not calls


@pytest.mark.parametrize("tokens", [2, 64, 65, 150])
def test_gradients(calls, kind, tokens):
    """The states before each chunk are those of the native function; the rest of a step is torch's."""
    op, reference = OPS[kind]
    arguments = made(kind, tokens=tokens)
    arguments[3][:, :, 5::9] *= 1e3
    steps = []
    for function, given in ((op, single(arguments)), (reference, arguments)):
        leaves = [x.detach().requires_grad_() for x in given]
        results = function(*leaves)
        random = torch.Generator().manual_seed(1)
        weights = [torch.randn(x.shape, generator=random, dtype=torch.float64).to(x) for x in results]
        steps.append([*results, *torch.autograd.grad(results, leaves, weights)])
    assert close(*steps, 5e-6)
    assert calls == ["delta_rule"]


def test_no_heads_and_no_numbers_are_refused(kind):
    q, k, *rest = single(made(kind))
    for none in ((q[:, :0], k[:, :0]), (q[..., :0], k[..., :0])):
        with pytest.raises(LaminaError, match="do not fit"):
            OPS[kind][0](*none, *rest[:-1])
