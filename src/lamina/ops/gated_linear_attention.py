"""Linear attention whose state fades by a vector: each of the K rows of a head's state has a decay of its own.

    S <- diag(exp(g)) S + k v^T;   o = S^T q

Tokens of a chunk see each other through scores that fade number by number (ops/fading.py), and what came before through
the state.
Source: arXiv 2312.06635, eq. 3 and section 4.3
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lamina.arch.measure import CHUNK
from lamina.ops.chunks import States, over_chunks
from lamina.ops.fading import faded_scores
from lamina.ops.inputs import finite, real, shared, vector_state


def gated_linear_attention(
    q: Float[Tensor, "B G T K"],
    k: Float[Tensor, "B G T K"],
    v: Float[Tensor, "B H T V"],
    g: Float[Tensor, "B H T K"],
    state: Float[Tensor, "B H K V"] | None = None,
    *,
    lengths: Int[Tensor, " B"] | None = None,
    chunk: int = CHUNK,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """Outputs, and the state after the last token (after each row's own, with `lengths`), both in float32.

    `g` is the logarithm of the decay. Each of the G heads of queries and keys serves H / G of values.
    Raises: LaminaError for shapes that do not fit each other, or a decay that is not finite
    """
    state = vector_state(q, k, v, g, state)
    finite(g)
    k, g = real(lengths, k, g)
    out, (state,) = over_chunks(_rule, (state,), (q, k, v, g), chunk=chunk)
    return out, state


def gated_linear_attention_reference(
    q: Float[Tensor, "B G T K"],
    k: Float[Tensor, "B G T K"],
    v: Float[Tensor, "B H T V"],
    g: Float[Tensor, "B H T K"],
    state: Float[Tensor, "B H K V"] | None = None,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """The same, a token at a time."""
    state, outputs = vector_state(q, k, v, g, state), []
    q, k = (x.repeat_interleave(v.shape[1] // k.shape[1], 1) for x in (q, k))
    for t in range(v.shape[2]):
        state = g[:, :, t, :, None].exp() * state + k[:, :, t, :, None] * v[:, :, t, None]
        outputs.append(torch.einsum("bhkv,bhk->bhv", state, q[:, :, t]))
    return torch.stack(outputs, 2), state


def _rule(state: States, q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> tuple[Tensor, States]:
    """A chunk of n tokens: pieces [B G n K] and [B H n V]."""
    (old,) = state
    groups = v.shape[1] // k.shape[1]
    q, k, v, g = (x.to(old.dtype) for x in (shared(q, groups), shared(k, groups), v, g))
    decay = g.exp()
    if v.shape[2] == 1:
        new = decay.mT * old + k.mT @ v
        return q @ new, (new,)
    own = (q * k).sum(-1)
    scores, asking, left, since = faded_scores((q * decay)[:, :, :, None], k[:, :, :, None], decay)
    seen = scores[:, :, :, 0, :, 0] + torch.diag_embed(own)
    return asking[:, :, :, 0] @ old + seen @ v, (since[:, :, -1:].mT * old + left[:, :, :, 0].mT @ v,)
