"""mLSTM: linear attention with an exponential input gate, divided by what the keys add up to.

    C <- f C + i k v^T;   n <- f n + i k;   h = C^T q / sqrt(K) / max(|n . q| / sqrt(K), 1)

with exp(-m) kept out of C and n: m is the largest exponent that any of their terms would have had, so that no
exponential exceeds 1. Tokens of a chunk see each other as in linear attention, each with a maximum of its own, which
is what going token by token would give.
Source: arXiv 2405.04517, eqs. 19 to 27; 2503.14376 (tokens in chunks)
"""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lamina.arch.measure import CHUNK
from lamina.errors import LaminaError
from lamina.ops.chunks import States, over_chunks
from lamina.ops.inputs import fading, finite, matrix_state, real

LARGEST = 80.0
"""Of what exp is taken below the fraction line: what is divided by more is zero in single precision."""


def mlstm(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    g: Float[Tensor, "B H T"],
    i: Float[Tensor, "B H T"],
    state: States | None = None,
    *,
    eps: float = 1e-6,
    lengths: Int[Tensor, " B"] | None = None,
    chunk: int = CHUNK,
) -> tuple[Float[Tensor, "B H T V"], States]:
    """Outputs, and the state after the last token (after each row's own, with `lengths`), both in float32.

    `g` and `i` are the logarithms of the forget gate and of the input gate; `eps` is added below the fraction line. The
    state is C [B H K V], n [B H K] and m [B H], zeros before the first token.
    Raises: LaminaError for shapes that do not fit each other, or a gate that is not finite
    """
    begun = _begun(q, k, v, g, i, state)
    finite(g)
    if not torch.isfinite(i.detach().sum()):
        raise LaminaError("the logarithms of input gates hold numbers that are not finite")
    behind = None if lengths is None else real(lengths, torch.ones_like(i))[0] == 0.0
    (g,) = real(lengths, g)
    i = i if behind is None else i.masked_fill(behind, -torch.inf)
    return over_chunks(partial(_rule, eps=eps), begun, (q, k, v, g, i), chunk=chunk)


def mlstm_reference(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    g: Float[Tensor, "B H T"],
    i: Float[Tensor, "B H T"],
    state: States | None = None,
    *,
    eps: float = 1e-6,
) -> tuple[Float[Tensor, "B H T V"], States]:
    """The same, a token at a time."""
    matrix, vector, most = _begun(q, k, v, g, i, state)
    outputs = []
    for t in range(v.shape[2]):
        before, most = most, torch.maximum(g[:, :, t] + most, i[:, :, t])
        fade, enter = (g[:, :, t] + before - most).exp(), (i[:, :, t] - most).exp()
        entering = enter[..., None] * k[:, :, t]
        matrix = fade[..., None, None] * matrix + entering[..., None] * v[:, :, t, None]
        vector = fade[..., None] * vector + entering
        query = q[:, :, t] * k.shape[-1] ** -0.5
        below = torch.maximum((vector * query).sum(-1).abs(), (-most).exp()) + eps
        outputs.append(torch.einsum("bhkv,bhk->bhv", matrix, query) / below[..., None])
    return torch.stack(outputs, 2), (matrix, vector, most)


def _begun(q: Tensor, k: Tensor, v: Tensor, g: Tensor, i: Tensor, state: States | None) -> States:
    """The state to begin with, zeros where none is given. Raises: LaminaError for shapes that do not fit."""
    matrix = matrix_state(q, k, v, None if state is None else state[0], g, i)
    if k.shape[1] != v.shape[1]:
        raise LaminaError(f"{k.shape[1]} heads of keys do not fit {v.shape[1]} of values; as many would")
    if state is None:
        return matrix, matrix.new_zeros(matrix.shape[:3]), matrix.new_zeros(matrix.shape[:2])
    _, vector, most = state
    if vector.shape != matrix.shape[:3] or most.shape != matrix.shape[:2]:
        found = f"{list(vector.shape)} and {list(most.shape)}"
        raise LaminaError(f"a state of {found} does not fit; one of {list(matrix.shape[:3])} and [B H] would")
    return state


def _rule(state: States, q: Tensor, k: Tensor, v: Tensor, g: Tensor, i: Tensor, *, eps: float) -> tuple[Tensor, States]:
    """A chunk of n tokens: pieces [B H n K] and [B H n V]."""
    matrix, vector, most = state
    q, k, v, g, i = (x.to(matrix.dtype) for x in (q, k, v, g, i))
    q = q * k.shape[-1] ** -0.5
    if v.shape[2] == 1:
        return _step(state, q, k, v, g, i, eps)
    entered = fading(g).mT + i[..., None, :]  # [B H n n]: of a token at a later one
    earlier = torch.ones(entered.shape[-2:], dtype=torch.bool, device=g.device).tril()
    entered = entered.masked_fill(~earlier, -torch.inf)
    held = g.cumsum(-1) + most[..., None]
    largest = torch.maximum(held, entered.amax(-1))  # [B H n]
    enter, fade = (entered - largest[..., None]).exp(), (held - largest).exp()[..., None]
    scores = (q @ k.mT) * enter
    below = fade * (q @ vector[..., None]) + scores.sum(-1, keepdim=True)
    out = (fade * (q @ matrix) + scores @ v) / _floor(below, largest[..., None], eps)
    entering = enter[..., -1, :, None] * k
    new = fade[..., -1:, :] * matrix + entering.mT @ v, fade[..., -1, :] * vector + entering.sum(-2)
    return out, (*new, largest[..., -1])


def _step(state: States, q: Tensor, k: Tensor, v: Tensor, g: Tensor, i: Tensor, eps: float) -> tuple[Tensor, States]:
    """One token: pieces [B H 1 K] and [B H 1 V]."""
    matrix, vector, most = state
    held = g + most[..., None]
    largest = torch.maximum(held, i)  # [B H 1]
    entering = (i - largest).exp()[..., None] * k
    fade = (held - largest).exp()
    matrix, vector = fade[..., None] * matrix + entering.mT @ v, fade * vector + entering[:, :, 0]
    out = (q @ matrix) / _floor(q @ vector[..., None], largest[..., None], eps)
    return out, (matrix, vector, largest[..., 0])


def _floor(below: Tensor, largest: Tensor, eps: float) -> Tensor:
    return torch.maximum(below.abs(), (-largest).clamp(max=LARGEST).exp()) + eps
