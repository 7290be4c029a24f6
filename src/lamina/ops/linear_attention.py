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
from lamina.ops.chunks import States, finite, matrix_state, over_chunks, real, shared
from lamina.ops.fla import fused


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
    sums = g.cumsum(-1)
    fade, remain = sums.exp()[..., None], (sums[..., -1:] - sums).exp()[..., None]  # [B H n 1] since before, to the end
    between = (sums[..., :, None] - sums[..., None, :]).clamp(max=0.0).exp()  # [B H n n]
    seen = shared(q @ k.mT, groups)
    q, k = shared(q, groups), shared(k, groups)
    out = fade * (q @ old) + (seen * between).tril() @ v
    return out, (fade[..., -1:, :] * old + k.mT @ (v * remain),)
