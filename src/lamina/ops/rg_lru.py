"""The recurrence of RG-LRU: every number of the state is alone, and fades as its token says.

    h <- a h + sqrt(1 - a^2) x,   a = exp(g)

Source: arXiv 2402.19427, eq. 3 and 4
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from lamina.arch.measure import CHUNK
from lamina.errors import LaminaError
from lamina.ops.chunks import States, over_chunks
from lamina.ops.diagonal import diagonal
from lamina.ops.inputs import finite, real

STEEP = 1000.0
"""The largest slope that training sees of a square root, which has no bound at zero."""


def rg_lru(
    x: Float[Tensor, "B H T I"],
    g: Float[Tensor, "B H T I"],
    state: Float[Tensor, "B H I"] | None = None,
    *,
    first: Bool[Tensor, " B"] | None = None,
    lengths: Int[Tensor, " B"] | None = None,
    chunk: int = CHUNK,
) -> tuple[Float[Tensor, "B H T I"], Float[Tensor, "B H I"]]:
    """The states after each token, and the last (of each row's own, with `lengths`), both in float32.

    `g` is the logarithm of the decay. Rows that are `first` begin a text: their first token is not scaled.
    Raises: LaminaError for shapes that do not fit each other, or a decay that is not finite
    """
    state = _state(x, g, state)
    finite(g)
    x, g = real(lengths, x.to(state.dtype), g.to(state.dtype))
    out, (state,) = over_chunks(_rule, (state,), (x * _share(g, first), g), chunk=chunk)
    return out, state


def rg_lru_reference(
    x: Float[Tensor, "B H T I"],
    g: Float[Tensor, "B H T I"],
    state: Float[Tensor, "B H I"] | None = None,
    *,
    first: Bool[Tensor, " B"] | None = None,
) -> tuple[Float[Tensor, "B H T I"], Float[Tensor, "B H I"]]:
    """The same, a token at a time."""
    state, outputs = _state(x, g, state), []
    for t in range(x.shape[2]):
        a = torch.exp(g[:, :, t])
        share = torch.sqrt(1.0 - a.square())
        if t == 0 and first is not None:
            share = torch.where(first[:, None, None], 1.0, share)
        state = a * state + share * x[:, :, t]
        outputs.append(state)
    return torch.stack(outputs, 2), state


def _state(x: Tensor, g: Tensor, state: Tensor | None) -> Tensor:
    """The state to begin with, zeros where none is given. Raises: LaminaError for shapes that do not fit each other."""
    if x.shape != g.shape or not x.shape[2]:
        raise LaminaError(f"shapes {list(x.shape)}, {list(g.shape)} do not fit; two of [B H T I] would, T > 0")
    expected = (*x.shape[:2], x.shape[3])
    if state is None:
        return x.new_zeros(expected, dtype=torch.promote_types(x.dtype, torch.float32))
    if state.shape != expected:
        raise LaminaError(f"a state of {list(state.shape)} does not fit; one of {list(expected)} would")
    return state


class _Root(torch.autograd.Function):
    """A square root whose slope is bounded."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        root = x.sqrt()
        ctx.save_for_backward(root)
        return root

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors
        return given * 0.5 / root.clamp(min=0.5 / STEEP)


def _share(g: Tensor, first: Tensor | None) -> Tensor:
    """sqrt(1 - a^2), and one for the first token of a text."""
    share: Tensor = _Root.apply(-torch.expm1(2.0 * g))  # type: ignore[assignment]
    if first is None:
        return share
    begins = first[:, None, None, None] & (torch.arange(g.shape[2], device=g.device) == 0)[:, None]
    return share.masked_fill(begins, 1.0)


def _rule(state: States, x: Tensor, g: Tensor) -> tuple[Tensor, States]:
    """A chunk of n tokens: pieces [B H n I]."""
    (old,) = state
    states = diagonal(g.exp(), x, old)
    return states, (states[:, :, -1],)
