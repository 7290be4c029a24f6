"""Linear attention whose state fades by one number a head and token: also lightning attention, and retention.

    S <- exp(g) S + k v^T;   o = S^T q

Tokens of a chunk see each other as in attention without softmax, times how much has faded between them, and what came
before through the state. The gradients are linear attention too: of queries over the same states, of keys and values
over one that runs from the last token to the first. So a step keeps its inputs alone, and no states.
Source: arXiv 2006.16236 (without decay), 2401.04658 (a decay a head), 2405.21060, section 6 (a decay a token)
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from lamina.arch.measure import CHUNK
from lamina.ops.chunks import States, fading, finite, matrix_state, over_chunks, real, shared
from lamina.ops.fla import fused
from lamina.ops.native import PLAIN, reachable

NATIVE_CHUNK, NATIVE_SIDE = 64, 16
"""Tokens that the native function takes at a time, and of values how many columns lie beside each other."""


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
    groups = v.shape[1] // k.shape[1]
    if (made := fused("simple_gla", shared(q, groups), shared(k, groups), v, g, state=state, scale=1.0)) is not None:
        return made
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v, g, state)):
        q, k, v, g = (x.to(state.dtype) for x in (q, k, v, g))
        return _WithGradient.apply(shared(q, groups), shared(k, groups), v, g, state, chunk)  # type: ignore[return-value]
    return _attended(q, k, v, g, state, chunk)


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


class _WithGradient(torch.autograd.Function):
    """With R_t = q_t do_t^T + exp(g_(t + 1)) R_(t + 1), the gradient of the state S_t:

    dq_t = S_t do_t,   dk_t = R_t v_t,   dv_t = R_t^T k_t,   dg_t = q_t dq_t - k_t dk_t + dg_(t + 1)
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, chunk: int
    ) -> tuple[Tensor, Tensor]:
        out, after = _attended(q, k, v, g, state, chunk)
        ctx.save_for_backward(q, k, v, g, state, after if ctx.needs_input_grad[3] else None)
        ctx.chunk = chunk
        return out, after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_out: Tensor, of_after: Tensor) -> Any:
        q, k, v, g, state, after = ctx.saved_tensors
        later = torch.cat([g[:, :, 1:], torch.zeros_like(g[:, :, :1])], 2)  # what fades from the next token
        of_q, _ = _attended(of_out, v, k, g, state.mT, ctx.chunk)
        of_k, _ = _attended(v, of_out, q, later, of_after.mT, ctx.chunk, backwards=True)
        of_v, of_first = _attended(k, q, of_out, later, of_after, ctx.chunk, backwards=True)
        of_g = None
        if ctx.needs_input_grad[3]:
            each = (q * of_q - k * of_k).sum(-1)
            each[:, :, -1] += (of_after * after).sum((2, 3))
            of_g = each.flip(2).cumsum(2).flip(2)
        return of_q, of_k, of_v, of_g, g[:, :, 0, None, None].exp() * of_first, None


def _attended(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, chunk: int, backwards: bool = False
) -> tuple[Tensor, Tensor]:
    """Without gradients; from the last token to the first, if wanted."""
    if chunk > 0 and (found := _native(q, k, v, g, state, backwards)) is not None:
        return found
    if backwards:
        q, k, v, g = (x.flip(2) for x in (q, k, v, g))
    out, (state,) = over_chunks(_rule, (state,), (q, k, v, g), chunk=chunk)
    return out.flip(2) if backwards else out, state


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


def _native(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, backwards: bool) -> tuple[Tensor, Tensor] | None:
    """The same in C where it can: values of float32 on a CPU, more than a token; rows are read where they lie."""
    plain = all(type(x) in PLAIN and x.is_cpu and x.dtype == torch.float32 for x in (q, k, v, state))
    if torch.is_grad_enabled() or not plain or v.shape[2] == 1 or any(x.stride(3) != 1 for x in (q, k, v)):
        return None
    after = state.clone(memory_format=torch.contiguous_format)
    if (native := reachable(after)) is None:
        return None
    (rows, heads, tokens, value_dim), (_, groups, _, key_dim) = v.shape, k.shape
    g, threads, wide = g.float(), torch.get_num_threads(), -(-value_dim // NATIVE_SIDE) * NATIVE_SIDE
    out = v.new_empty(rows, tokens, heads, value_dim).transpose(1, 2)  # a token's heads beside each other
    parts = q, k, v, g, out
    begin, step = (tokens - 1, -1) if backwards else (0, 1)
    places = [x.data_ptr() + begin * x.stride(2) * x.element_size() for x in parts]
    strides = torch.tensor([(x.stride(0), x.stride(1), step * x.stride(2)) for x in parts])
    each = NATIVE_CHUNK * (NATIVE_CHUNK + 2 + 3 * key_dim + 2 * wide)
    room = v.new_empty(threads * each + rows * heads * key_dim * wide)
    places += [x.data_ptr() for x in (after, room, strides)]
    native.linear_attention(*places, rows, groups, heads, tokens, key_dim, value_dim, each, threads)
    return out, after
