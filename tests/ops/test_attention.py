"""Softmax attention: the fast version against its twin, the reference, and torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward

from lamina.ops import attention
from lamina.ops.attention import Reach, attend, attend_reference

B, H, G, K, V = 3, 6, 2, 5, 11


def inputs(tokens: int, keys: int, heads: int = H, groups: int = G, seed: int = 0) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    shapes = (B, heads, tokens, K), (B, groups, keys, K), (B, groups, keys, V)
    return [torch.randn(shape, dtype=torch.float64, generator=random) for shape in shapes]


def places(start: int, stop: int) -> torch.Tensor:
    return torch.arange(start, stop)[None]


def ragged() -> torch.Tensor:
    """Where the 7 new tokens of three rows stand that held 9, 4 and 0 tokens."""
    return torch.tensor([[9], [4], [0]]) + torch.arange(7)


def ring() -> torch.Tensor:
    """The keys of those rows: the last 6 before the new ones (negative where there are none), then the new ones."""
    return torch.cat([ragged()[:, :1] + torch.arange(-6, 0), ragged()], 1)


REACHES = {
    "prefill": (7, 7, Reach(places(0, 7), places(0, 7))),
    "square": (7, 7, Reach(places(0, 7), places(0, 7), square=True)),
    "prefill-window": (7, 7, Reach(places(0, 7), places(0, 7), window=3)),
    "window-of-one": (7, 7, Reach(places(0, 7), places(0, 7), window=1)),
    "chunk": (5, 13, Reach(places(8, 13), places(0, 13))),
    "chunk-window": (5, 13, Reach(places(8, 13), places(0, 13), window=7)),
    "decode": (1, 13, Reach(places(12, 13), places(0, 13), everything=True)),
    "decode-masked": (1, 13, Reach(places(12, 13), places(0, 13))),
    "two-ways": (7, 7, Reach(places(0, 7), places(0, 7), causal=False, everything=True)),
    "two-ways-padded": (
        7,
        7,
        Reach(places(0, 7), places(0, 7), causal=False, ends=torch.tensor([[7], [4], [1]])),
    ),
    "ragged": (7, 16, Reach(ragged(), places(0, 16))),
    "ragged-window": (7, 13, Reach(ragged(), ring(), window=7)),
    "ragged-short-window": (7, 13, Reach(ragged(), ring(), window=2)),
}


class Whole(Reach):
    """A reach whose mask has a row for each query, also where all queries see the same: the twin looks them up."""

    def mask(self, queries: slice, keys: slice) -> torch.Tensor:
        mask = super().mask(queries, keys)
        return mask.expand(-1, -1, self.queries[:, queries].shape[1], -1)


HEADS = {"grouped": (6, 2), "one-key-head": (6, 1), "a-key-head-each": (6, 6)}


@pytest.fixture(params=[512, 3])
def queries(request, monkeypatch):
    """How many queries are scored at once."""
    monkeypatch.setattr(attention, "QUERIES", request.param)
    return request.param


@pytest.mark.parametrize("softcap", [None, 0.7])
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("name", REACHES)
def test_fast_attention_equals_its_twin(name, heads, softcap, queries):
    """Values and the gradients of q, k and v."""
    tokens, keys, reach = REACHES[name]
    q, k, v = inputs(tokens, keys, *HEADS[heads])
    fast = [x.clone().requires_grad_() for x in (q, k, v)]
    slow = [x.clone().requires_grad_() for x in (q, k, v)]
    out = attend(*fast, reach, 0.6, softcap)
    expected = attend_reference(*slow, Whole(**vars(reach)), 0.6, softcap)
    # soft-capped scores are brought to float32 before the softmax
    tolerance = {"rtol": 0.0, "atol": 1e-12 if softcap is None else 1e-6}
    assert out.shape == (B, HEADS[heads][0], tokens, V)
    torch.testing.assert_close(out, expected, **tolerance)
    weight = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a.grad, b.grad, **tolerance)
        assert name == "window-of-one" or float(b.grad.abs().max()) > 0.01  # one key: its weight is 1 whatever it is


@pytest.mark.parametrize("softcap", [None, 0.7])
def test_what_is_out_of_reach_changes_nothing(softcap, queries):
    """Keys before the window, in empty slots and after the query may hold anything finite."""
    for tokens, keys, reach in REACHES.values():
        q, k, v = inputs(tokens, keys)
        seen = reach.mask(slice(None), slice(None)).any(2)[:, 0]  # [R S]
        hidden = ~seen.expand(B, -1)[:, None, :, None]
        expected = attend(q, k, v, reach, 0.6, softcap)
        got = attend(q, k.masked_fill(hidden, 1e3), v.masked_fill(hidden, -1e3), reach, 0.6, softcap)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("window", [None, 4])
def test_equals_the_reference(softcap, window, queries):
    """Gemma 2's own attention, given a mask made here from the definition of a window."""
    q, k, v = inputs(9, 9, groups=G)
    v = v[..., :K].contiguous()  # the reference has K = V
    module = torch.nn.Module()
    module.num_key_value_groups = H // G
    mask = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    for i in range(9):
        for j in range(9):
            if j > i or (window is not None and i - j >= window):
                mask[..., i, j] = float("-inf")
    expected, _ = eager_attention_forward(module, q, k, v, mask, scaling=0.6, softcap=softcap)
    got = attend(q, k, v, Reach(places(0, 9), places(0, 9), window=window), 0.6, softcap)
    torch.testing.assert_close(got.transpose(1, 2), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("softcap", [None, 0.7])
@pytest.mark.parametrize("backend", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_padded_queries_are_never_nan(softcap, backend, dtype, queries):
    """A row that is shorter than the others asks with queries that mean nothing, far beyond its own tokens."""
    q, k, v = (x.to(dtype) for x in inputs(7, 13))
    square = [x.to(dtype) for x in inputs(7, 7)]
    ends = torch.tensor([[7], [4], [1]])
    with sdpa_kernel([backend, SDPBackend.MATH], set_priority=True):
        for window in (1, 2, 7):
            assert torch.isfinite(attend(q, k, v, Reach(ragged(), ring(), window=window), 0.6, softcap)).all()
        padded = Reach(places(0, 7), places(0, 7), causal=False, ends=ends)
        assert torch.isfinite(attend(*square, padded, 0.6, softcap)).all()


@pytest.mark.parametrize("window", [1, 2, 3, 5, 8, 40])
@pytest.mark.parametrize("earlier", [0, 1, 3, 6])
@pytest.mark.parametrize("starts", [(6,), (9, 4, 0), (2, 2, 1)])
def test_columns_never_hide_a_visible_key(window, earlier, starts):
    """What is left out of a block of queries is what its mask hides anyway."""
    tokens = 7
    queries = torch.tensor(starts)[:, None] + torch.arange(tokens)
    keys = torch.cat([queries[:, :1] + torch.arange(-earlier, 0), queries], 1)
    reach = Reach(queries, keys, window=window)
    total, kept = keys.shape[1], 0
    for start in range(tokens):
        for stop in range(start + 1, tokens + 1):
            rows = slice(start, stop)
            columns = attention._columns(reach, rows, tokens, total)
            outside = torch.ones(total, dtype=torch.bool)
            outside[columns] = False
            assert not reach.mask(rows, slice(None))[..., outside].any()
            assert len(range(*columns.indices(total))) <= stop - start + window - 1
            kept += len(range(*columns.indices(total)))
    assert window > 3 or kept < 28 * total  # and it does leave something out


def test_without_a_window_every_key_is_kept():
    reach = Reach(ragged(), places(0, 16))
    assert attention._columns(reach, slice(2, 3), 7, 16) == slice(0, 16)
    two_ways = Reach(places(0, 7), places(0, 7), causal=False, window=3)
    assert attention._columns(two_ways, slice(2, 3), 7, 7) == slice(0, 7)


def test_work_with_a_window_grows_with_the_window(monkeypatch):
    """No scores of T * T numbers: the largest mask is one block of queries by that block and the window."""
    monkeypatch.setattr(attention, "QUERIES", 16)
    seen = []
    original = Reach.mask
    monkeypatch.setattr(Reach, "mask", lambda self, q, k: seen.append(original(self, q, k)) or seen[-1])
    q, k, v = inputs(301, 301)
    attend(q, k, v, Reach(places(0, 301), places(0, 301), window=9), 0.6)
    assert len(seen) == 19
    assert max(mask.numel() for mask in seen) <= 16 * (16 + 9 - 1)
