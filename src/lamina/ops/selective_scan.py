"""The selective scan of Mamba: N states in each channel fade at rates of their own, by a step that each token chooses.

    s <- exp(-rate d) s + d x B;   y = s . C + skip x

The states of all tokens are N times the inputs, so they exist for a chunk of tokens and some channels at a time only;
the native function keeps those of one token.
Source: arXiv 2312.00752, algorithm 2
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lamina.arch.measure import CHUNK
from lamina.errors import LaminaError
from lamina.ops.chunks import States, over_chunks
from lamina.ops.diagonal import diagonal
from lamina.ops.inputs import finite, real
from lamina.ops.native import reachable

ROOM = 1 << 19
"""How many states are held in memory at once, if a chunk of one channel does not hold more: they stay in the cache."""
WIDE = 64
"""Channels that the native function takes at a time."""


def selective_scan(
    x: Float[Tensor, "B H T I"],
    d: Float[Tensor, "B H T I"],
    b: Float[Tensor, "B H T N"],
    c: Float[Tensor, "B H T N"],
    rate: Float[Tensor, "H I N"],
    skip: Float[Tensor, "H I"],
    state: Float[Tensor, "B H I N"] | None = None,
    *,
    lengths: Int[Tensor, " B"] | None = None,
    chunk: int = CHUNK,
) -> tuple[Float[Tensor, "B H T I"], Float[Tensor, "B H I N"]]:
    """Outputs, and the state after the last token (after each row's own, with `lengths`), both in float32.

    `d` is the step and `rate` how fast states fade, neither below zero. Each of H heads has channels, B and C of its
    own; Mamba has one.
    Raises: LaminaError for shapes that do not fit each other, or a step that is not finite
    """
    state = _state(x, d, b, c, rate, skip, state)
    finite(d)
    (d,) = real(lengths, d)
    if chunk > 0 and (found := _native(x, d, b, c, rate, skip, state)) is not None:
        return found
    each = max(1, ROOM // (len(x) * rate.shape[0] * rate.shape[2] * max(1, min(chunk, x.shape[2]))))
    parts = (x.split(each, 3), d.split(each, 3), rate.split(each, 1), skip.split(each, 1), state.split(each, 2))
    pieces = [
        over_chunks(_rule, (begun,), (given, steps, b, c), (rates, skips), chunk)
        for given, steps, rates, skips, begun in zip(*parts, strict=True)
    ]
    if len(pieces) == 1:
        out, (state,) = pieces[0]
        return out, state
    return torch.cat([out for out, _ in pieces], 3), torch.cat([after for _, (after,) in pieces], 2)


def selective_scan_reference(
    x: Float[Tensor, "B H T I"],
    d: Float[Tensor, "B H T I"],
    b: Float[Tensor, "B H T N"],
    c: Float[Tensor, "B H T N"],
    rate: Float[Tensor, "H I N"],
    skip: Float[Tensor, "H I"],
    state: Float[Tensor, "B H I N"] | None = None,
) -> tuple[Float[Tensor, "B H T I"], Float[Tensor, "B H I N"]]:
    """The same, a token at a time."""
    state, outputs = _state(x, d, b, c, rate, skip, state), []
    for t in range(x.shape[2]):
        step = d[:, :, t, :, None]
        state = torch.exp(-rate * step) * state + step * x[:, :, t, :, None] * b[:, :, t, None]
        outputs.append((state * c[:, :, t, None]).sum(-1) + skip * x[:, :, t])
    return torch.stack(outputs, 2), state


def _state(x: Tensor, d: Tensor, b: Tensor, c: Tensor, rate: Tensor, skip: Tensor, state: Tensor | None) -> Tensor:
    """The state to begin with, zeros where none is given. Raises: LaminaError for shapes that do not fit each other."""
    rows, heads, tokens, width = x.shape
    states = rate.shape[-1]
    fit = d.shape == x.shape and b.shape == c.shape == (rows, heads, tokens, states)
    if not fit or rate.shape != (heads, width, states) or skip.shape != (heads, width) or not tokens:
        shapes = ", ".join(str(list(part.shape)) for part in (x, d, b, c, rate, skip))
        raise LaminaError(f"shapes {shapes} do not fit; x, d [B H T I], b, c [B H T N], [H I N] and [H I] would")
    expected = rows, heads, width, states
    if state is None:
        return x.new_zeros(expected, dtype=torch.promote_types(x.dtype, torch.float32))
    if state.shape != expected:
        raise LaminaError(f"a state of {list(state.shape)} does not fit; one of {list(expected)} would")
    return state


def _rule(
    state: States, x: Tensor, d: Tensor, b: Tensor, c: Tensor, rate: Tensor, skip: Tensor
) -> tuple[Tensor, States]:
    """A chunk of n tokens: pieces [B H n I] and [B H n N]."""
    (old,) = state
    x, d, b, c, rate, skip = (part.to(old.dtype) for part in (x, d, b, c, rate, skip))
    stays = (d[..., None] * -rate[:, None]).exp_()  # [B H n I N]
    enters = (d * x)[..., None] @ b[..., None, :]
    if x.shape[2] == 1:
        states = stays * old[:, :, None] + enters
    else:
        states = diagonal(stays, enters, old)
    read = torch.einsum("bhtin,bhtn->bhti", states, c)
    return read + skip[:, None] * x, (states[:, :, -1],)


def _native(
    x: Tensor, d: Tensor, b: Tensor, c: Tensor, rate: Tensor, skip: Tensor, state: Tensor
) -> tuple[Tensor, Tensor] | None:
    """The same in C where it can: values of float32 on a CPU, whatever the precision of the inputs."""
    if torch.is_grad_enabled() or not x.is_cpu or state.dtype != torch.float32:
        return None
    x, d, b, c, rate, skip = (part.float().contiguous() for part in (x, d, b, c, rate, skip))
    if (native := reachable(x, d, b, c, rate, skip)) is None:
        return None
    (rows, heads, tokens, width), states, threads = x.shape, rate.shape[2], torch.get_num_threads()
    after, out = state.clone(memory_format=torch.contiguous_format), torch.empty_like(x)
    room = x.new_empty(threads * 2 * states * WIDE)
    places = (part.data_ptr() for part in (x, d, b, c, rate, skip, after, out, room))
    native.selective_scan(*places, rows, heads, tokens, width, states, threads)
    return out, after
