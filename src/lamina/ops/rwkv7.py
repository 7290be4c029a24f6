"""The rule of RWKV-7: a state that fades by a vector, and from which one direction is taken and another added.

    S <- diag(exp(g)) S + b (S^T a)^T + k v^T;   o = S^T r

A delta rule is the case a = -k, b = step k. What a token takes from the state depends on what those before it left of
it: a triangular system a chunk, as in delta rules; all else are matrix products.
Source: arXiv 2503.14456, section 4 (transposed here); the chunked form: 2406.06484, section 3, with a and b apart
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lamina.arch.measure import CHUNK
from lamina.errors import LaminaError
from lamina.ops.chunks import States, over_chunks
from lamina.ops.fading import faded_scores
from lamina.ops.inputs import finite, matrix_state, real


def rwkv7(
    r: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    g: Float[Tensor, "B H T K"],
    a: Float[Tensor, "B H T K"],
    b: Float[Tensor, "B H T K"],
    state: Float[Tensor, "B H K V"] | None = None,
    *,
    lengths: Int[Tensor, " B"] | None = None,
    chunk: int = CHUNK,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """Outputs, and the state after the last token (after each row's own, with `lengths`), both in float32.

    `g` is the logarithm of the decay; a reads the state before that fades, r the one after all.
    Raises: LaminaError for shapes that do not fit each other, or a decay that is not finite
    """
    state = _begun(r, k, v, g, a, b, state)
    finite(g)
    k, g, b = real(lengths, k, g, b)
    out, (state,) = over_chunks(_rule, (state,), (r, k, v, g, a, b), chunk=chunk)
    return out, state


def rwkv7_reference(
    r: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    g: Float[Tensor, "B H T K"],
    a: Float[Tensor, "B H T K"],
    b: Float[Tensor, "B H T K"],
    state: Float[Tensor, "B H K V"] | None = None,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """The same, a token at a time."""
    state, outputs = _begun(r, k, v, g, a, b, state), []
    for t in range(v.shape[2]):
        taken = torch.einsum("bhkv,bhk->bhv", state, a[:, :, t])
        state = g[:, :, t, :, None].exp() * state
        state = state + b[:, :, t, :, None] * taken[:, :, None] + k[:, :, t, :, None] * v[:, :, t, None]
        outputs.append(torch.einsum("bhkv,bhk->bhv", state, r[:, :, t]))
    return torch.stack(outputs, 2), state


def _begun(r: Tensor, k: Tensor, v: Tensor, g: Tensor, a: Tensor, b: Tensor, state: Tensor | None) -> Tensor:
    """The state to begin with. Raises: LaminaError for shapes that do not fit each other"""
    if any(x.shape != k.shape for x in (r, g, a, b)) or k.shape[:3] != v.shape[:3]:
        shapes = ", ".join(str(list(x.shape)) for x in (r, k, v, g, a, b))
        raise LaminaError(f"shapes {shapes} do not fit; [B H T K] for all but v [B H T V] would")
    return matrix_state(r, k, v, state)


def _rule(state: States, r: Tensor, k: Tensor, v: Tensor, g: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, States]:
    """A chunk of n tokens: pieces [B H n K] and [B H n V]."""
    (old,) = state
    r, k, v, g, a, b = (x.to(old.dtype) for x in (r, k, v, g, a, b))
    decay = g.exp()
    if v.shape[2] == 1:
        new = decay.mT * old + b.mT @ (a @ old) + k.mT @ v
        return r @ new, (new,)
    keys = torch.stack([b, k], 3)
    own = (r[..., None, :] @ keys.mT).squeeze(3)  # [B H n 2]: what a token sees of its own
    scores, asking, keys, since = faded_scores(torch.stack([a, r * decay], 3), keys, decay)
    (taking, asked), (reading, seen) = (pair.unbind(4) for pair in scores.unbind(3))
    (asking, last), (first, second) = asking.unbind(3), keys.unbind(3)
    taken = asking @ old + asked @ v
    taken = torch.linalg.solve_triangular(-taking, taken, upper=False, unitriangular=True)
    reading, seen = (x + own[..., i].diag_embed() for i, x in enumerate((reading, seen)))
    out = last @ old + reading @ taken + seen @ v
    return out, (since[:, :, -1:].mT * old + first.mT @ taken + second.mT @ v,)
