"""A recurrence in which each number is alone, s_t = a_t s_(t-1) + u_t, over the tokens of a chunk at once.

Every two neighbours are one step, s_(t+1) = (a_(t+1) a_t) s_(t-1) + (u_(t+1) + a_(t+1) u_t), so half as many tokens
make a recurrence of the same kind, which gives every second state; the others follow from those. That is twice the work
of a token at a time, in as many operations as the length has bits. Decays are only multiplied, never divided by: strong
ones fade to zero. The gradient is the same recurrence from the last token to the first.
Source: Blelloch, Prefix sums and their applications (1990), section 1.4
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def diagonal(
    a: Float[Tensor, "B H n *N"], u: Float[Tensor, "B H n *N"], state: Float[Tensor, "B H *N"]
) -> Float[Tensor, "B H n *N"]:
    """The states after each of n tokens, of which there is one at least."""
    return _Diagonal.apply(a, u, state)  # type: ignore[no-any-return]


class _Diagonal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, u: Tensor, state: Tensor) -> Tensor:
        states = torch.empty_like(u)
        _fill(states, a, u, state)
        ctx.save_for_backward(a, state, states)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, state, states = ctx.saved_tensors
        later = torch.cat([torch.zeros_like(a[:, :, :1]), a[:, :, 1:].flip(2)], 2)  # what the next token keeps of s_t
        turned = torch.empty_like(given)
        _fill(turned, later, given.flip(2), torch.zeros_like(state))
        of_u = turned.flip(2)
        of_a = torch.cat([of_u[:, :, :1] * state[:, :, None], of_u[:, :, 1:] * states[:, :, :-1]], 2)
        return of_a, of_u, of_u[:, :, 0] * a[:, :, 0]


def _fill(states: Tensor, a: Tensor, u: Tensor, state: Tensor) -> None:
    """Writes the states after each token."""
    n = u.shape[2]
    pairs, rest = n // 2, (n - 1) // 2
    if pairs:
        even, odd = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
        joined = torch.addcmul(u[:, :, odd], a[:, :, odd], u[:, :, even])
        _fill(states[:, :, odd], a[:, :, odd] * a[:, :, even], joined, state)
    torch.addcmul(u[:, :, :1], a[:, :, :1], state[:, :, None], out=states[:, :, :1])
    if rest:
        torch.addcmul(u[:, :, 2::2], a[:, :, 2::2], states[:, :, 1 : 2 * rest : 2], out=states[:, :, 2::2])
