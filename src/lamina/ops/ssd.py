"""The state-space recurrence of Mamba-2 (SSD): linear attention whose values are times a step, and pass a skip too.

    S <- exp(g) S + step x B^T;   y = S C + skip x

Heads of a group share B and C, so what enters and leaves their states is one matrix product for all of them.
Source: arXiv 2405.21060, section 6
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lamina.arch.measure import CHUNK
from lamina.errors import LaminaError
from lamina.ops.chunks import States, over_chunks
from lamina.ops.fla import fused, usable
from lamina.ops.inputs import fading, finite, matrix_state, real, shared


def ssd(
    c: Float[Tensor, "B G T N"],
    b: Float[Tensor, "B G T N"],
    x: Float[Tensor, "B H T P"],
    g: Float[Tensor, "B H T"],
    steps: Float[Tensor, "B H T"],
    skip: Float[Tensor, " H"],
    state: Float[Tensor, "B H P N"] | None = None,
    *,
    lengths: Int[Tensor, " B"] | None = None,
    chunk: int = CHUNK,
) -> tuple[Float[Tensor, "B H T P"], Float[Tensor, "B H P N"]]:
    """Outputs, and the state after the last token (after each row's own, with `lengths`), both in float32.

    `g` is the logarithm of the decay: minus the rate of a head, times the step.
    Raises: LaminaError for shapes that do not fit each other, or a decay that is not finite
    """
    state = _begun(c, b, x, g, steps, skip, state)
    finite(g)
    g, steps = real(lengths, g, steps)
    if usable(x):
        groups, entering = x.shape[1] // b.shape[1], (steps[..., None] * x).to(x.dtype)
        queries, keys, held = shared(c, groups), shared(b, groups), state.mT.contiguous()
        if (made := fused("simple_gla", queries, keys, entering, g, state=held, scale=1.0)) is not None:
            return made[0] + skip[:, None, None] * x, made[1].mT
    out, (state,) = over_chunks(_rule, (state,), (c, b, x, g, steps), (skip.to(state.dtype),), chunk)
    return out, state


def ssd_reference(
    c: Float[Tensor, "B G T N"],
    b: Float[Tensor, "B G T N"],
    x: Float[Tensor, "B H T P"],
    g: Float[Tensor, "B H T"],
    steps: Float[Tensor, "B H T"],
    skip: Float[Tensor, " H"],
    state: Float[Tensor, "B H P N"] | None = None,
) -> tuple[Float[Tensor, "B H T P"], Float[Tensor, "B H P N"]]:
    """The same, a token at a time."""
    state, outputs = _begun(c, b, x, g, steps, skip, state), []
    b, c = (part.repeat_interleave(x.shape[1] // b.shape[1], 1) for part in (b, c))
    for t in range(x.shape[2]):
        entering = steps[:, :, t, None, None] * x[:, :, t, :, None] * b[:, :, t, None]
        state = g[:, :, t, None, None].exp() * state + entering
        outputs.append(torch.einsum("bhpn,bhn->bhp", state, c[:, :, t]) + skip[:, None] * x[:, :, t])
    return torch.stack(outputs, 2), state


def _begun(
    c: Tensor, b: Tensor, x: Tensor, g: Tensor, steps: Tensor, skip: Tensor, state: Tensor | None
) -> Float[Tensor, "B H P N"]:
    """The state to begin with, zeros where none is given."""
    rows, heads, _, dim = x.shape
    zeros = matrix_state(c, b, x, None, g, steps)
    if skip.shape != (heads,):
        raise LaminaError(f"a skip of {list(skip.shape)} does not fit; one of {[heads]} would")
    expected = rows, heads, dim, b.shape[3]
    if state is None:
        return zeros.view(expected)
    if state.shape != expected:
        raise LaminaError(f"a state of {list(state.shape)} does not fit; one of {list(expected)} would")
    return state


def _rule(
    state: States, c: Tensor, b: Tensor, x: Tensor, g: Tensor, steps: Tensor, skip: Tensor
) -> tuple[Tensor, States]:
    """A chunk of n tokens, as [B H P n]: how x lies behind a convolution."""
    (old,) = state
    c, b, x, g, steps = (part.to(old.dtype) for part in (c, b, x, g, steps))
    groups, x = b.shape[1], x.mT
    v = x * steps[:, :, None]
    if x.shape[3] == 1:
        new = torch.addcmul((_wide(v, groups) @ b).view(old.shape), old, g[..., None].exp())
        return (_wide(new, groups) @ c.mT).view(x.shape).add(skip[:, None, None] * x).mT, (new,)
    between = fading(g)
    fade = (between[:, :, :1] + g[:, :, None, :1]).exp()  # [B H 1 n] since before
    remain = between[..., -1].exp()[:, :, None]  # [B H 1 n] to the end
    scores = between.exp().unflatten(1, (groups, -1)) * (b @ c.mT).triu()[:, :, None]
    out = v @ scores.flatten(1, 2)
    out = torch.addcmul(out, (_wide(old, groups) @ c.mT).view(out.shape), fade)
    out = torch.addcmul(out, x, skip[:, None, None])
    new = (_wide(v * remain, groups) @ b).view(old.shape)
    return out.mT, (torch.addcmul(new, old, fade[..., -1:]),)


def _wide(x: Float[Tensor, "B H P n"], groups: int) -> Float[Tensor, "B G Q n"]:
    """The channels of all heads of a group one behind the other: a view."""
    return x.unflatten(1, (groups, -1)).flatten(2, 3)
