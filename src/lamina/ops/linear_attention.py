"""Linear attention whose state fades by one number a head and token: also lightning attention, and retention.

    S <- exp(g) S + k v^T;   o = S^T q

Tokens of a chunk see each other as in attention without softmax, times how much has faded between them, and what came
before through the state. The gradients are linear attention too: of queries over the same states, of keys and values
over one that runs from the last token to the first. So a step keeps its inputs alone, and no states.
Source: arXiv 2006.16236 (without decay), 2401.04658 (a decay a head), 2405.21060, section 6 (a decay a token)
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from lamina.arch.measure import CHUNK
from lamina.ops.chunks import States, over_chunks
from lamina.ops.fla import fused
from lamina.ops.inputs import fading, finite, matrix_state, real, shared
from lamina.ops.native import recurrence


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
    parts, whole = (q, k, v, g), partial(recurrence, "linear_attention", ())
    if not backwards:
        out, (state,) = over_chunks(_rule, (state,), parts, chunk=chunk, whole=whole)
    elif (found := whole((state,), parts, backwards=True)) is not None:
        out, (state,) = found
    else:
        out, (state,) = over_chunks(_rule, (state,), [x.flip(2) for x in parts], chunk=chunk)
        out = out.flip(2)
    return out, state


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
