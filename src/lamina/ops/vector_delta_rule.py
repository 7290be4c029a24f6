"""A delta rule whose decay is a vector: each of the K rows of a head's state fades by its own share.

    S <- diag(exp(g)) S;   S <- S + b k (v - S^T k)^T;   o = S^T q / sqrt(K)

What a later token sees of an earlier one has faded by another share in each row, so scores of a chunk are no product of
two matrices. Those between two neighbouring runs of tokens are: queries and keys of the later run are times what faded
since it began, keys of the earlier one times what fades until it ends. Runs of one token join to runs of two, those to
runs of four and so on, and each pair of tokens meets once. All factors are products of decays, none above one: strong
ones fade to zero, nothing overflows, and weak ones are as exact behind strong ones as before them.
Source: arXiv 2510.26692, section 3 (the rule); 2406.06484, section 3 (the chunked form, without decay)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

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
    meeting = _Meeting.apply if torch.is_grad_enabled() else _meeting
    scores, asking, left, since = meeting(q, k, decay)
    (seen, like_keys), (q, k) = scores.unbind(3), asking.unbind(3)
    corrections = torch.linalg.solve_triangular(like_keys * b, b * (v - k @ old), upper=False, unitriangular=True)
    return q @ old + seen @ corrections, (since[:, :, -1:].mT * old + left.mT @ corrections,)


def _step(old: Tensor, q: Tensor, k: Tensor, v: Tensor, decay: Tensor, b: Tensor) -> tuple[Tensor, States]:
    """One token: pieces [B H 1 K] and [B H 1 V]."""
    old = decay.mT * old
    new = old + k.mT @ (b * (v - k @ old))
    return q @ new, (new,)


Kept = list[tuple[Tensor, Tensor, Tensor]]


def _meeting(q: Tensor, k: Tensor, decay: Tensor, kept: Kept | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores of queries, and of keys, with each key up to their own, and before it; and what meets the state.

    What the gradient needs of each joining is appended to `kept`.
    Shapes: [B H n K] -> scores [B H n 2 n], the second of the two of keys; q and k times what faded since before the
    first token [B H n 2 K]; k times what fades until the last one, and what faded before each since the first
    """
    asking, left, since = torch.stack([q, k], 3) * decay[..., None, :], k.clone(), decay.clone()
    scores = k.new_zeros(*k.shape[:3], 2, k.shape[2])
    scores[..., 0, :].diagonal(dim1=2, dim2=3)[:] = (q[..., None, :] @ k[..., None])[..., 0, 0]
    for half, start, end in _runs(k.shape[2]):
        later, earlier, fades = _parts(half, start, end, asking, left, since)
        met = later.flatten(3, 4) @ earlier.mT
        _square(scores, half, start, end)[:] = met.unflatten(3, (-1, 2)).movedim(2, -1)
        if kept is not None:
            kept.append((later.clone(), earlier.clone(), fades.clone()))
        earlier *= fades[:, :, :, -1:]
        later *= fades[:, :, :, :1, None]
        fades[:, :, :, 1:] *= fades[:, :, :, :1]
    return scores, asking, left, since


def _runs(tokens: int) -> Iterator[tuple[int, int, int]]:
    """What joins: between which tokens runs of so many, each with as many behind it, or with the last ones."""
    half = 1
    while half < tokens:
        whole = tokens - tokens % (2 * half)
        if whole:
            yield half, 0, whole
        if tokens - whole > half:
            yield half, whole, tokens
        half *= 2


def _parts(half: int, start: int, end: int, asking: Tensor, left: Tensor, since: Tensor) -> tuple[Tensor, ...]:
    """Of r joining runs what asks in the later ones [B H r m 2 K], the keys of the earlier ones [B H r half K].

    And what faded since the first token until the last of the earlier ones and each later one [B H r 1+m K].
    """
    size = min(2 * half, end - start)
    runs = (x[:, :, start:end].unflatten(2, (-1, size)) for x in (asking, left, since))
    asks, keys, fades = runs
    return asks[:, :, :, half:], keys[:, :, :, :half], fades[:, :, :, half - 1 :]


def _square(scores: Tensor, half: int, start: int, end: int) -> Tensor:
    """The scores of r later runs with the earlier ones [B H m 2 half r]."""
    size = min(2 * half, end - start)
    runs = scores[:, :, start:end, :, start:end].unflatten(4, (-1, size)).unflatten(2, (-1, size))
    return runs.diagonal(dim1=2, dim2=5)[:, :, half:, :, :half]


class _Meeting(torch.autograd.Function):
    """`_meeting`, and its gradient: the same joinings in reverse."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, decay: Tensor) -> tuple[Tensor, ...]:
        kept: Kept = []
        made = _meeting(q, k, decay, kept)
        ctx.save_for_backward(q, k, decay, *(part for parts in kept for part in parts))
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_scores: Tensor, *of_rest: Tensor) -> tuple[Tensor, ...]:
        q, k, decay, *saved = ctx.saved_tensors
        kept = zip(*([iter(saved)] * 3), strict=True)
        asking, left, since = (x.clone() for x in of_rest)  # their gradients
        for (half, start, end), (later, earlier, fades) in reversed(list(zip(_runs(k.shape[2]), kept, strict=True))):
            of_later, of_earlier, of_fades = _parts(half, start, end, asking, left, since)
            met = _square(of_scores, half, start, end).movedim(-1, 2).flatten(3, 4)
            first, second = fades[:, :, :, :1], fades[:, :, :, -1:]
            of_first = (of_later * later).sum((3, 4)) + (of_fades[:, :, :, 1:] * fades[:, :, :, 1:]).sum(3)
            of_second = (of_earlier * earlier).sum(3)
            of_later.mul_(first[..., None, :]).add_((met @ earlier).unflatten(3, (-1, 2)))
            of_earlier.mul_(second).add_(met.mT @ later.flatten(3, 4))
            of_fades[:, :, :, 1:] *= first
            of_fades[:, :, :, 0] += of_first
            of_fades[:, :, :, -1] += of_second
        own = of_scores[..., 0, :].diagonal(dim1=2, dim2=3)[..., None, None]
        of_q, of_k = (own @ x[..., None, :] for x in (k, q))
        of_q, of_k = of_q[..., 0, :] + asking[..., 0, :] * decay, of_k[..., 0, :] + asking[..., 1, :] * decay + left
        return of_q, of_k, since + asking[..., 0, :] * q + asking[..., 1, :] * k
