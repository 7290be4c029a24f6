"""What a recurrence is given: checked, and made ready for chunks."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lamina.errors import LaminaError


def real(lengths: Int[Tensor, " B"] | None, *sequences: Tensor) -> list[Tensor]:
    """Sequences [B H T ...] with zeros in place of what is behind a row's length.

    What is added to a state and the logarithms of its decays are zero there, which leaves it as it is.
    Raises: LaminaError for lengths that are not one a row, from 0 to T
    """
    if lengths is None:
        return list(sequences)
    rows, tokens = sequences[0].shape[0], sequences[0].shape[2]
    lengths = torch.as_tensor(lengths, device=sequences[0].device)
    whole = not (lengths.is_floating_point() or lengths.is_complex())
    if not whole or lengths.shape != (rows,) or bool(((lengths < 0) | (lengths > tokens)).any()):
        raise LaminaError(f"lengths {lengths.tolist()} must be one of 0 to {tokens} for each of {rows} rows")
    behind = torch.arange(tokens, device=lengths.device) >= lengths[:, None]
    return [x.masked_fill(behind[:, None].reshape(rows, 1, tokens, *(1,) * (x.ndim - 3)), 0.0) for x in sequences]


def finite(g: Tensor) -> None:
    """Raises: LaminaError for logarithms of decays that are no finite numbers."""
    if not torch.isfinite(g.detach().sum()):
        raise LaminaError("the logarithms of decays hold numbers that are not finite; a large negative one forgets all")


def matrix_state(q: Tensor, k: Tensor, v: Tensor, state: Tensor | None, *a_token: Tensor) -> Tensor:
    """The state [B H K V] to begin with, in float32 at least; zeros where none is given.

    Shapes: q, k [B G T K]; v [B H T V]; each of `a_token` [B H T ...]
    Raises: LaminaError for shapes that do not fit each other
    """
    (rows, heads, tokens, value_dim), keys = v.shape, k.shape
    fit = q.shape == keys and (keys[0], keys[2]) == (rows, tokens)
    fit = fit and all(size > 0 for size in keys[1:]) and heads % keys[1] == 0
    if not fit or any(x.shape[:3] != v.shape[:3] for x in a_token):
        shapes = ", ".join(str(list(x.shape)) for x in (q, k, v, *a_token))
        raise LaminaError(f"shapes {shapes} do not fit; q, k [B G T K], v [B H T V] and others [B H T] would, G | H")
    expected = rows, heads, keys[3], value_dim
    if state is None:
        return v.new_zeros(expected, dtype=torch.promote_types(v.dtype, torch.float32))
    if state.shape != expected:
        raise LaminaError(f"a state of {list(state.shape)} does not fit; one of {list(expected)} would")
    return state.to(torch.promote_types(state.dtype, torch.float32))


def vector_state(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor | None, *a_token: Tensor) -> Tensor:
    """The same for decays of each row of the state, g [B H T K]."""
    if g.shape[3:] != k.shape[3:]:
        raise LaminaError(f"shapes {list(k.shape)}, {list(g.shape)} do not fit; k [B G T K] and decays [B H T K] would")
    return matrix_state(q, k, v, state, g, *a_token)


def shared(x: Tensor, groups: int) -> Tensor:
    """Of each of G heads [B G ...], for each of the heads of values that it serves, [B H ...]."""
    return x if groups == 1 else x.repeat_interleave(groups, 1)


def fading(g: Float[Tensor, "*B n"]) -> Float[Tensor, "*B n n"]:
    """The logarithms of what fades from a token (a row) until a later one (a column); zeros where there is none.

    Each is a sum of its own: differences of sums from the first token on would lose weak decays behind strong ones.
    """
    return g[..., None, :].expand(*g.shape, g.shape[-1]).triu(1).cumsum(-1)
