"""Scores between tokens of a chunk where each of the K numbers of a key fades by its own share.

They are no product of two matrices, but those between two neighbouring runs of tokens are: what asks in the later run
is times what faded since the run began, keys of the earlier one are times what fades until it ends. Runs of one token
join to runs of two, those to runs of four and so on, and each pair of tokens meets once. All factors are products of
decays, none above one: strong ones fade to zero, nothing overflows, and weak ones are as exact behind strong ones as
before them.
Source: arXiv 2312.06635, section 4.3 (chunks within chunks; two levels there)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

Kept = list[tuple[Tensor, Tensor, Tensor]]


def faded_scores(
    asking: Float[Tensor, "B H n A K"], keys: Float[Tensor, "B H n L K"], decay: Float[Tensor, "B H n K"]
) -> tuple[
    Float[Tensor, "B H n A n L"], Float[Tensor, "B H n A K"], Float[Tensor, "B H n L K"], Float[Tensor, "B H n K"]
]:
    """Of A vectors of each token with L keys of each before it; and what is left of both, and of a state.

    `asking` is times what fades at its own token already, where it reads after that. Returned are the scores, zero but
    for earlier keys; `asking` times what faded since before the first token; `keys` times what fades until the last
    one; and what of a state from before the first token is left after each. Where no gradient is recorded `asking` is
    overwritten: it is large, and made for this.
    """
    if torch.is_grad_enabled():
        return _Meeting.apply(asking, keys, decay)  # type: ignore[return-value]
    return _meeting(asking, keys, decay)


def _meeting(
    asking: Tensor, keys: Tensor, decay: Tensor, kept: Kept | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the gradient needs of each joining is appended to `kept`."""
    keys, since = keys.clone(), decay.clone()
    kinds, others, tokens = asking.shape[3], keys.shape[3], keys.shape[2]
    scores = keys.new_zeros(*keys.shape[:3], kinds, tokens, others)
    for half, start, end in _runs(tokens):
        later, earlier, fades = _parts(half, start, end, asking, keys, since)
        met = later.flatten(3, 4) @ earlier.flatten(3, 4).mT
        met = met.unflatten(4, (-1, others)).unflatten(3, (-1, kinds))
        _square(scores, half, start, end)[:] = met.movedim(2, -1)
        if kept is not None:
            kept.append((later.clone(), earlier.clone(), fades.clone()))
        earlier *= fades[:, :, :, -1:, None]
        later *= fades[:, :, :, :1, None]
        fades[:, :, :, 1:] *= fades[:, :, :, :1]
    return scores, asking, keys, since


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


def _parts(half: int, start: int, end: int, asking: Tensor, keys: Tensor, since: Tensor) -> tuple[Tensor, ...]:
    """Of r joining runs what asks in the later ones [B H r m A K], the keys of the earlier ones [B H r half L K].

    And what faded since the first token until the last of the earlier ones and each later one [B H r 1+m K].
    """
    size = min(2 * half, end - start)
    asks, held, fades = (x[:, :, start:end].unflatten(2, (-1, size)) for x in (asking, keys, since))
    return asks[:, :, :, half:], held[:, :, :, :half], fades[:, :, :, half - 1 :]


def _square(scores: Tensor, half: int, start: int, end: int) -> Tensor:
    """The scores of r later runs with the earlier ones [B H m A half L r]."""
    size = min(2 * half, end - start)
    runs = scores[:, :, start:end, :, start:end].unflatten(4, (-1, size)).unflatten(2, (-1, size))
    return runs.diagonal(dim1=2, dim2=5)[:, :, half:, :, :half]


class _Meeting(torch.autograd.Function):
    """`_meeting`, and its gradient: the same joinings in reverse."""

    @staticmethod
    def forward(ctx: Any, asking: Tensor, keys: Tensor, decay: Tensor) -> tuple[Tensor, ...]:
        kept: Kept = []
        made = _meeting(asking.clone(), keys, decay, kept)
        ctx.save_for_backward(*(part for parts in kept for part in parts))
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_scores: Tensor, *of_rest: Tensor) -> tuple[Tensor, ...]:
        kept = list(zip(*([iter(ctx.saved_tensors)] * 3), strict=True))
        asking, keys, since = (x.clone() for x in of_rest)  # their gradients
        for (half, start, end), (later, earlier, fades) in reversed(list(zip(_runs(keys.shape[2]), kept, strict=True))):
            of_later, of_earlier, of_fades = _parts(half, start, end, asking, keys, since)
            met = _square(of_scores, half, start, end).movedim(-1, 2).flatten(5, 6).flatten(3, 4)
            first, second = fades[:, :, :, :1], fades[:, :, :, -1:]
            of_first = (of_later * later).sum((3, 4)) + (of_fades[:, :, :, 1:] * fades[:, :, :, 1:]).sum(3)
            of_second = (of_earlier * earlier).sum((3, 4))
            of_later.mul_(first[..., None, :]).add_((met @ earlier.flatten(3, 4)).view_as(later))
            of_earlier.mul_(second[..., None, :]).add_((met.mT @ later.flatten(3, 4)).view_as(earlier))
            of_fades[:, :, :, 1:] *= first
            of_fades[:, :, :, 0] += of_first
            of_fades[:, :, :, -1] += of_second
        return asking, keys, since
