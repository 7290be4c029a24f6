"""Linear attention whose state fades at a fixed rate for each head, whatever the tokens are.

    S <- exp(g_h) S + k v^T;   o = S^T q

As ops/linear_attention.py with the same decay at every token: what has faded between two tokens of a chunk is the same
in all chunks, and is made once.
Source: arXiv 2401.04658, section 3 (the tiled form); 2307.08621, eq. 7
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lamina.arch.measure import CHUNK
from lamina.errors import LaminaError
from lamina.ops.chunks import States, finite, matrix_state, over_chunks, shared
from lamina.ops.linear_attention import linear_attention, linear_attention_reference, natively


def fixed_decay(
    q: Float[Tensor, "B G T K"],
    k: Float[Tensor, "B G T K"],
    v: Float[Tensor, "B H T V"],
    g: Float[Tensor, " H"],
    state: Float[Tensor, "B H K V"] | None = None,
    *,
    lengths: Int[Tensor, " B"] | None = None,
    chunk: int = CHUNK,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """Outputs, and the state after the last token (after each row's own, with `lengths`), both in float32.

    `g` is the logarithm of each head's decay. Each of the G heads of queries and keys serves H / G of values. Where
    rows end at different tokens the decay is none behind them, and so no fixed one; a GPU has kernels for any.
    Raises: LaminaError for shapes that do not fit each other, or a decay that is not finite
    """
    if lengths is not None or v.device.type != "cpu":
        return linear_attention(q, k, v, _each(g, v), state, lengths=lengths, chunk=chunk)
    state = matrix_state(q, k, v, state)
    finite(g)
    if chunk > 0 and (found := natively(q, k, v, _each(g, v), state)) is not None:
        return found
    g = g.to(torch.promote_types(v.dtype, torch.float32))[:, None]
    longest = min(chunk, v.shape[2])
    constants = _faded(g, longest) if longest > 1 else (g.exp()[..., None],) * 3
    out, (state,) = over_chunks(_rule, (state,), (q, k, v), constants, chunk=chunk)
    return out, state


def fixed_decay_reference(
    q: Float[Tensor, "B G T K"],
    k: Float[Tensor, "B G T K"],
    v: Float[Tensor, "B H T V"],
    g: Float[Tensor, " H"],
    state: Float[Tensor, "B H K V"] | None = None,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """The same, a token at a time."""
    return linear_attention_reference(q, k, v, _each(g, v), state)


def _each(g: Tensor, v: Tensor) -> Tensor:
    """The decay of every token [B H T]. Raises: LaminaError if there is none for each head"""
    if g.shape != v.shape[1:2]:
        raise LaminaError(f"shapes {list(g.shape)}, {list(v.shape)} do not fit; a decay for each head of v would")
    return g[None, :, None].expand(v.shape[:3])


def _faded(g: Float[Tensor, "H 1"], tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """What fades since before a chunk [H n 1], until its end [H n 1], and between two of its tokens [H n n]."""
    at = torch.arange(tokens, device=g.device, dtype=g.dtype)
    between = (g[..., None] * (at[:, None] - at).clamp(min=0)).exp().tril()
    return (g * (at + 1)).exp()[..., None], (g * at.flip(0)).exp()[..., None], between


def _rule(
    state: States, q: Tensor, k: Tensor, v: Tensor, fade: Tensor, remain: Tensor, between: Tensor
) -> tuple[Tensor, States]:
    """A chunk of n tokens: pieces [B G n K] and [B H n V], the last of which may be shorter than the constants."""
    (old,) = state
    q, k, v = (x.to(old.dtype) for x in (q, k, v))
    groups, n = v.shape[1] // k.shape[1], v.shape[2]
    if n == 1:
        new = fade[:, :1] * old + shared(k, groups).mT @ v
        return shared(q, groups) @ new, (new,)
    seen = shared(q @ k.mT, groups)
    q, k = shared(q, groups), shared(k, groups)
    out = torch.addcmul((seen * between[:, :n, :n]) @ v, q @ old, fade[:, :n])
    new = k.mT @ (v * remain[:, -n:])
    return out, (new.addcmul_(old, fade[:, n - 1 : n]),)
