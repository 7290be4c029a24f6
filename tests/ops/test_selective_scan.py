"""The selective scan in C and in pieces of channels, against its twin; tests/ops/test_recurrences.py has the rest."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lamina.ops import selective_scan as module
from lamina.ops.chunks import packed
from lamina.ops.diagonal import diagonal
from lamina.ops.selective_scan import selective_scan, selective_scan_reference
from tests.ops.recurrences import close, single


def made(rows=2, heads=3, tokens=23, channels=37, states=5, seed=0) -> Any:
    """x, d, b, c, rate, skip and a state, in float64."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    x, d = (normal(rows, heads, tokens, channels) for _ in range(2))
    b, c = (normal(rows, heads, tokens, states) for _ in range(2))
    rate, skip = normal(heads, channels, states).exp(), normal(heads, channels)
    return x, d.abs(), b, c, rate, skip, normal(rows, heads, channels, states)


@pytest.mark.parametrize(("channels", "states"), product([1, 7, 16, 63, 64, 65, 200], [1, 5, 16]))
@pytest.mark.parametrize("tokens", [1, 2, 13])
@torch.no_grad()
def test_native(calls, threads, tokens, channels, states):
    arguments = made(tokens=tokens, channels=channels, states=states)
    held = single(arguments)
    before = [x.clone() for x in held]
    assert close(selective_scan(*held), selective_scan_reference(*arguments))
    assert len(calls) == 1
    assert all(torch.equal(a, b) for a, b in zip(held, before, strict=True))  # the state that was given too


@pytest.mark.parametrize("size", [0.0, 1e-6, 30.0, 1e4, 1e30], ids=str)
@torch.no_grad()
def test_native_decays_of_all_sizes(calls, size):
    """None, hardly any, and to nothing: exp(-1e30) is zero and not something small, and nothing overflows."""
    x, d, b, c, rate, skip, state = made()
    d[:, :, 5:] = size
    x[:, :, 5:] = x[:, :, 5:] / max(size, 1.0)
    got = selective_scan(*single((x, d, b, c, rate, skip, state)))
    assert close(got, selective_scan_reference(x, d, b, c, rate, skip, state), 3e-6)
    assert len(calls) == 1


@torch.no_grad()
def test_native_of_half_precision_and_of_strides(calls):
    arguments = made()
    half = [x.bfloat16() for x in arguments[:4]]
    out, state = selective_scan(*[*half, *single(arguments[4:])])
    assert out.dtype == state.dtype == torch.float32
    assert close((out, state), selective_scan_reference(*[*(x.double() for x in half), *arguments[4:]]))
    apart = [torch.stack([x, x], -1)[..., 0] for x in single(arguments)]
    assert not any(x.is_contiguous() for x in apart)
    assert close(selective_scan(*apart), selective_scan_reference(*arguments))
    assert len(calls) == 2


@torch.no_grad()
def test_native_of_rows_with_padding(calls):
    """A state is that after a row's own tokens, bit for bit if it has none."""
    arguments, lengths = made(rows=3), [23, 0, 9]
    out, state = selective_scan(*single(arguments), lengths=torch.tensor(lengths))
    for row, n in enumerate(lengths):
        begun = arguments[6][row : row + 1]
        if not n:
            assert torch.equal(state[row : row + 1], begun.float())
            continue
        alone = [x[row : row + 1, :, :n] for x in arguments[:4]]
        exact = selective_scan_reference(*[*alone, *arguments[4:6], begun])
        assert close((out[row : row + 1, :, :n], state[row : row + 1]), exact)
    x, d, b, c, *rest = (x[:1] if x.ndim == 4 and x.shape[0] == 3 else x for x in single(arguments))
    constants = {"rate": rest[0], "skip": rest[1]}
    out, _ = packed(selective_scan, [4, 1, 18], x, d, b, c, **constants)
    last = selective_scan(x[:, :, 5:], d[:, :, 5:], b[:, :, 5:], c[:, :, 5:], **constants)
    assert close([out[:, :, 5:]], last[:1])
    assert len(calls) == 3


def test_native_is_for_float32_values_only(calls):
    arguments = made()
    exact = selective_scan_reference(*arguments)
    with torch.no_grad():
        assert close(selective_scan(*arguments), exact, 1e-12)
        with FlopCounterMode(display=False) as counter:
            selective_scan(*single(arguments))
        assert counter.get_total_flops() == 4 * arguments[0].numel() * arguments[4].shape[2]
    assert close(selective_scan(*single(arguments)), exact)
    wanted = [x.requires_grad_() for x in single(arguments)]
    selective_scan(*wanted)[0].sum().backward()
    assert all(x.grad is not None and torch.isfinite(x.grad).all() for x in wanted)
    assert not calls


def test_channels_in_pieces(monkeypatch):
    """Values and gradients are the same, however many channels are taken at a time."""
    given = [x.requires_grad_() for x in made()]
    results = []
    for room in (1 << 19, 2 * 3 * 5 * 23 * 10, 1):
        monkeypatch.setattr(module, "ROOM", room)
        out, state = selective_scan(*given)
        weigh = torch.arange(out.numel(), dtype=torch.float64).sin().view_as(out)
        results.append([out, state, *torch.autograd.grad((out * weigh).sum() + state.square().sum(), given)])
    for other in results[1:]:
        assert close(other, results[0], 1e-12)


@pytest.mark.parametrize("tokens", [*range(1, 10), 31, 32, 33, 64])
def test_a_diagonal_recurrence(tokens):
    random = torch.Generator().manual_seed(tokens)
    a, u = (torch.randn(2, 3, tokens, 5, 7, generator=random, dtype=torch.float64) for _ in range(2))
    leaves = [a.tanh().requires_grad_(), u.requires_grad_(), u[:, :, 0].detach().clone().requires_grad_()]
    found = diagonal(leaves[0], leaves[1], leaves[2])
    state, each = leaves[2], []
    for t in range(tokens):
        state = leaves[0][:, :, t] * state + leaves[1][:, :, t]
        each.append(state)
    exact = torch.stack(each, 2)
    assert close([found], [exact.detach()], 1e-12)
    weigh = torch.randn(exact.shape, generator=random, dtype=torch.float64)
    grads = [torch.autograd.grad(out, leaves, weigh, allow_unused=True) for out in (found, exact)]
    assert close(*grads, 1e-12)
