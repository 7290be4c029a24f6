"""A delta rule whose decay is a vector: each of the K rows of a head's state fades by its own share.

    S <- diag(exp(g)) S;   S <- S + b k (v - S^T k)^T;   o = S^T q / sqrt(K)

What a later token sees of an earlier one has faded by another share in each row, so the scores of a chunk are no product
of two matrices. Those between two neighbouring runs of tokens are: queries and keys of the later run are times what
faded since it began, keys of the earlier one times what fades until it ends. Runs of one token join to runs of two,
those to runs of four and so on, and each pair of tokens meets once. All factors are products of decays, none above one:
strong ones fade to zero, nothing overflows, and weak ones are as exact behind strong ones as before them.
Source: arXiv 2510.26692, section 3 (the rule); 2406.06484, section 3 (the chunked form, without decay)
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lamina.arch.measure import CHUNK
from lamina.errors import LaminaError
from lamina.ops.chunks import States, finite, matrix_state, over_chunks, real, shared
from lamina.ops.delta_rule import unit_vectors


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
    state = _begin(q, k, v, g, b, state)
    finite(g)
    g, b = real(lengths, g, b)
    out, (state,) = over_chunks(_unit_rule if unit else _rule, (state,), (q, k, v, g, b), chunk=chunk)
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
    state = _begin(q, k, v, g, b, state)
    groups, outputs = v.shape[1] // k.shape[1], []
    q, k = ((unit_vectors(x) if unit else x).repeat_interleave(groups, 1) for x in (q, k))
    for t in range(v.shape[2]):
        state = g[:, :, t, :, None].exp() * state
        answered = torch.einsum("bhkv,bhk->bhv", state, k[:, :, t])
        correction = b[:, :, t, None] * (v[:, :, t] - answered)
        state = state + k[:, :, t, :, None] * correction[:, :, None]
        outputs.append(torch.einsum("bhkv,bhk->bhv", state, q[:, :, t]) * k.shape[-1] ** -0.5)
    return torch.stack(outputs, 2), state


def _begin(q: Tensor, k: Tensor, v: Tensor, g: Tensor, b: Tensor, state: Tensor | None) -> Tensor:
    """The state to begin with. Raises: LaminaError for shapes that do not fit each other"""
    if g.shape[3:] != k.shape[3:]:
        raise LaminaError(f"shapes {list(k.shape)}, {list(g.shape)} do not fit; k [B G T K] and decays [B H T K] would")
    return matrix_state(q, k, v, state, g, b)


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
    seen, like_keys, q, k, left, decay = _meeting(q, k, decay)
    asked = b * (v - k @ old)
    corrections = torch.linalg.solve_triangular(like_keys * b, asked, upper=False, unitriangular=True)
    return q @ old + seen @ corrections, (decay.mT * old + left.mT @ corrections,)


def _step(old: Tensor, q: Tensor, k: Tensor, v: Tensor, decay: Tensor, b: Tensor) -> tuple[Tensor, States]:
    """One token: pieces [B H 1 K] and [B H 1 V]."""
    old = decay.mT * old
    new = old + k.mT @ (b * (v - k @ old))
    return q @ new, (new,)


def _meeting(q: Tensor, k: Tensor, decay: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Scores of queries with keys up to their own, of keys with keys before them; and what meets the state.

    Shapes: [B H n K] -> two of [B H n n]; q and k times what faded since before the first token, k times what fades
    until the last one, and all that fades [B H 1 K]
    """
    tokens = k.shape[2]
    asking, left = torch.stack([q, k], 3) * decay[..., None, :], k.clone()
    scores = k.new_zeros(*k.shape[:3], 2, tokens)
    scores[..., 0, :].diagonal(dim1=2, dim2=3)[:] = (q[..., None, :] @ k[..., None])[..., 0, 0]
    half = 1
    while half < tokens:
        since, until = torch.ones_like(decay), torch.ones_like(decay)
        whole = tokens - tokens % (2 * half)
        for start, end in ((0, whole), (whole, tokens)):
            if end - start <= half:
                continue
            size = min(2 * half, end - start)
            asks, keys, fades = (x[:, :, start:end].unflatten(2, (-1, size)) for x in (asking, left, decay))
            met = asks[:, :, :, half:].flatten(3, 4) @ keys[:, :, :, :half].mT
            runs = scores[:, :, start:end, :, start:end].unflatten(4, (-1, size)).unflatten(2, (-1, size))
            runs.diagonal(dim1=2, dim2=5)[:, :, half:, :, :half] = met.unflatten(3, (-1, 2)).movedim(2, -1)
            since[:, :, start:end].unflatten(2, (-1, size))[:, :, :, half:] = fades[:, :, :, half - 1 : half]
            until[:, :, start:end].unflatten(2, (-1, size))[:, :, :, :half] = fades[:, :, :, -1:]
        asking, left, decay = _times(asking, since[..., None, :]), _times(left, until), _times(decay, since)
        half *= 2
    (q, k), (seen, like_keys) = asking.unbind(3), scores.unbind(3)
    return seen, like_keys, q, k, left, decay[:, :, -1:]


def _times(x: Tensor, factor: Tensor) -> Tensor:
    """In place where no gradient will ask what was there."""
    return x * factor if torch.is_grad_enabled() else x.mul_(factor)
