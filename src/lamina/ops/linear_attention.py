"""Linear attention whose state fades by one number a head and token: also what lightning attention and Mamba-2 compute.

    S <- exp(g) S + k v^T;   o = S^T q

Tokens of a chunk see each other as in attention without softmax, times how much has faded between them, and what came
before through the state.
Source: arXiv 2006.16236 (without decay), 2401.04658 (a decay a head), 2405.21060, section 6 (a decay a token)
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lamina.arch.measure import CHUNK
from lamina.ops.chunks import States, fading, finite, matrix_state, over_chunks, real, shared
from lamina.ops.fla import fused
from lamina.ops.native import PLAIN, reachable

NATIVE_CHUNK = 64
"""Tokens that the native function takes at a time."""


def linear_attention(
    q: Float[Tensor, "B G T K"],
    k: Float[Tensor, "B G T K"],
    v: Float[Tensor, "B H T V"],
    g: Float[Tensor, "B H T"],
    state: Float[Tensor, "B H K V"] | None = None,
    *,
    lengths: Int[Tensor, " B"] | None = None,
    chunk: int = CHUNK,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """Outputs, and the state after the last token (after each row's own, with `lengths`), both in float32.

    `g` is the logarithm of the decay, zeros for none. Each of the G heads of queries and keys serves H / G of values.
    Raises: LaminaError for shapes that do not fit each other, or a decay that is not finite
    """
    state = matrix_state(q, k, v, state, g)
    finite(g)
    k, g = real(lengths, k, g)
    if chunk > 0 and (found := natively(q, k, v, g, state)) is not None:
        return found
    groups = v.shape[1] // k.shape[1]
    if (made := fused("simple_gla", shared(q, groups), shared(k, groups), v, g, state=state, scale=1.0)) is not None:
        return made
    out, (state,) = over_chunks(_rule, (state,), (q, k, v, g), chunk=chunk)
    return out, state


def linear_attention_reference(
    q: Float[Tensor, "B G T K"],
    k: Float[Tensor, "B G T K"],
    v: Float[Tensor, "B H T V"],
    g: Float[Tensor, "B H T"],
    state: Float[Tensor, "B H K V"] | None = None,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """The same, a token at a time."""
    state, outputs = matrix_state(q, k, v, state, g), []
    q, k = (x.repeat_interleave(v.shape[1] // k.shape[1], 1) for x in (q, k))
    for t in range(v.shape[2]):
        state = g[:, :, t, None, None].exp() * state + k[:, :, t, :, None] * v[:, :, t, None]
        outputs.append(torch.einsum("bhkv,bhk->bhv", state, q[:, :, t]))
    return torch.stack(outputs, 2), state


def _rule(state: States, q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> tuple[Tensor, States]:
    """A chunk of n tokens: pieces [B G n K] and [B H n V]."""
    (old,) = state
    q, k, v, g = (x.to(old.dtype) for x in (q, k, v, g))
    groups = v.shape[1] // k.shape[1]
    if v.shape[2] == 1:
        new = g[..., None].exp() * old + shared(k, groups).mT @ v
        return shared(q, groups) @ new, (new,)
    between = fading(g).mT.exp()  # [B H n n]
    fade, remain = g.cumsum(-1).exp()[..., None], between[..., -1, :, None]  # [B H n 1] since before, to the end
    seen = shared(q @ k.mT, groups)
    q, k = shared(q, groups), shared(k, groups)
    out = fade * (q @ old) + (seen * between).tril() @ v
    return out, (fade[..., -1:, :] * old + k.mT @ (v * remain),)


def natively(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor) -> tuple[Tensor, Tensor] | None:
    """The same in C where it can: values of float32 on a CPU, more than a token; rows are read where they lie."""
    parts = q, k, v
    plain = all(type(x) in PLAIN and x.is_cpu and x.dtype == torch.float32 and x.stride(3) == 1 for x in parts)
    if torch.is_grad_enabled() or not plain or v.shape[2] == 1:
        return None
    after = state.clone(memory_format=torch.contiguous_format)
    if after.dtype != torch.float32 or (native := reachable(after)) is None:
        return None
    (rows, heads, tokens, value_dim), (_, groups, _, key_dim) = v.shape, k.shape
    g, threads = g.float(), torch.get_num_threads()
    out = v.new_empty(rows, tokens, heads, value_dim).transpose(1, 2)  # a token's heads beside each other
    strides = torch.tensor([x.stride()[:3] for x in (q, k, v, g, out)])
    wide = -(-value_dim // 16) * 16
    each = NATIVE_CHUNK * (NATIVE_CHUNK + 2 + 3 * key_dim + 2 * wide)
    room = v.new_empty(threads * each + rows * heads * key_dim * wide)
    places = (x.data_ptr() for x in (q, k, v, g, out, after, room, strides))
    native.linear_attention(*places, rows, groups, heads, tokens, key_dim, value_dim, each, threads)
    return out, after
