"""A delta rule whose decay is a vector: each of the K rows of a head's state fades by its own share.

    S <- diag(exp(g)) S;   S <- S + b k (v - S^T k)^T;   o = S^T q / sqrt(K)

As the gated delta rule, but that tokens of a chunk meet through scores which fade row by row (ops/fading.py).
Source: arXiv 2510.26692, section 3 (the rule); 2406.06484, section 3 (the chunked form, without decay)
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lamina.arch.measure import CHUNK
from lamina.ops.chunks import States, over_chunks
from lamina.ops.delta_rule import a_token_at_a_time, unit_vectors
from lamina.ops.fading import faded_scores
from lamina.ops.fla import fused
from lamina.ops.inputs import finite, real, shared, vector_state
from lamina.ops.native import recurrence


def vector_delta_rule(
    q: Float[Tensor, "B G T K"],
    k: Float[Tensor, "B G T K"],
    v: Float[Tensor, "B H T V"],
    g: Float[Tensor, "B H T K"],
    b: Float[Tensor, "B H T"],
    state: Float[Tensor, "B H K V"] | None = None,
    *,
    unit: bool = True,
    lengths: Int[Tensor, " B"] | None = None,
    chunk: int = CHUNK,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """Outputs, and the state after the last token (after each row's own, with `lengths`), both in float32.

    `g` is the logarithm of the decay, `b` the step. Each of the G heads of keys serves H / G of values. With `unit`, q
    and k are made unit vectors first.
    Raises: LaminaError for shapes that do not fit each other, or a decay that is not finite
    """
    state = vector_state(q, k, v, g, state, b)
    finite(g)
    g, b = real(lengths, g, b)
    options: dict[str, Any] = {"scale": k.shape[-1] ** -0.5, "use_qk_l2norm_in_kernel": unit}
    if (made := fused("kda", q, k, v, g, b, state=state, **options)) is not None:
        return made
    whole, rule = partial(recurrence, "delta_rule", (k.shape[-1], unit)), _unit_rule if unit else _rule
    out, (state,) = over_chunks(rule, (state,), (q, k, v, g, b), chunk=chunk, whole=whole)
    return out, state


def vector_delta_rule_reference(
    q: Float[Tensor, "B G T K"],
    k: Float[Tensor, "B G T K"],
    v: Float[Tensor, "B H T V"],
    g: Float[Tensor, "B H T K"],
    b: Float[Tensor, "B H T"],
    state: Float[Tensor, "B H K V"] | None = None,
    *,
    unit: bool = True,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """The same, a token at a time."""
    return a_token_at_a_time(q, k, v, g, b, vector_state(q, k, v, g, state, b), unit)


def _unit_rule(state: States, q: Tensor, k: Tensor, *rest: Tensor) -> tuple[Tensor, States]:
    return _rule(state, unit_vectors(q.to(state[0].dtype)), unit_vectors(k.to(state[0].dtype)), *rest)


def _rule(state: States, q: Tensor, k: Tensor, v: Tensor, g: Tensor, b: Tensor) -> tuple[Tensor, States]:
    """A chunk of n tokens: pieces [B G n K] and [B H n V]."""
    (old,) = state
    groups = v.shape[1] // k.shape[1]
    q, k, v, g, b = (x.to(old.dtype) for x in (q * k.shape[-1] ** -0.5, k, v, g, b))
    q, k, decay, b = shared(q, groups), shared(k, groups), g.exp(), b[..., None]
    if v.shape[2] == 1:
        return _step(old, q, k, v, decay, b)
    own = (q[..., None, :] @ k[..., None])[..., 0, 0].diag_embed()  # what a query sees of its own key has not faded
    asking = torch.stack([q * decay, k * decay], 3)
    scores, asking, left, since = faded_scores(asking, k[:, :, :, None], decay)
    (seen, like_keys), (q, k) = scores[..., 0].unbind(3), asking.unbind(3)
    corrections = torch.linalg.solve_triangular(like_keys * b, b * (v - k @ old), upper=False, unitriangular=True)
    new = torch.addcmul(left[:, :, :, 0].mT @ corrections, old, since[:, :, -1:].mT)
    return q @ old + (seen + own) @ corrections, (new,)


def _step(old: Tensor, q: Tensor, k: Tensor, v: Tensor, decay: Tensor, b: Tensor) -> tuple[Tensor, States]:
    """One token: pieces [B H 1 K] and [B H 1 V]."""
    old = decay.mT * old
    new = old + k.mT @ (b * (v - k @ old))
    return q @ new, (new,)
