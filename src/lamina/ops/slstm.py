"""sLSTM: cells of one number each, whose gates read the last output; a loop over tokens, for there is no other way.

    c <- f c + i z;   n <- f n + i;   h = o c / n

with exp(-m) kept out of c and n: m is the largest exponent that any of their terms would have had, so that no
exponential exceeds 1.
Source: arXiv 2405.04517, eqs. 8 to 17
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lamina.arch.measure import CHUNK
from lamina.errors import LaminaError
from lamina.ops.chunks import States, over_chunks
from lamina.ops.inputs import real

Forget = Literal["sigmoid", "exponential"]


def slstm(
    x: Float[Tensor, "B H T 4 P"],
    state: States | None = None,
    *,
    weight: Float[Tensor, "4 H P P"],
    forget: Forget = "sigmoid",
    lengths: Int[Tensor, " B"] | None = None,
    chunk: int = CHUNK,
) -> tuple[Float[Tensor, "B H T P"], States]:
    """Outputs, and the state after the last token (after each row's own, with `lengths`), both in float32.

    x is what the input gives to z and to the gates i, f and o, `weight` what the last h is multiplied by for each. The
    state is c, n, h and m, each [B H P], zeros before the first token. A chunk is what the backward pass computes again
    at a time.
    Raises: LaminaError for shapes that do not fit each other
    """
    begun = _begun(x, state, weight)
    rule = partial(_rule, forget=forget)
    if lengths is None:
        return over_chunks(rule, begun, (x,), (weight,), chunk)
    alive = real(lengths, torch.ones_like(x[..., 0, :1]))[0] > 0.0
    return over_chunks(rule, begun, (x, alive), (weight,), chunk)


def slstm_reference(
    x: Float[Tensor, "B H T 4 P"],
    state: States | None = None,
    *,
    weight: Float[Tensor, "4 H P P"],
    forget: Forget = "sigmoid",
) -> tuple[Float[Tensor, "B H T P"], States]:
    """The same, with c and n as large as they are."""
    c, n, h, m = _begun(x, state, weight)
    c, n = c * m.exp(), n * m.exp()
    outputs = []
    for t in range(x.shape[2]):
        z, i, f, o = (x[:, :, t, j] + torch.einsum("hpq,bhq->bhp", weight[j], h) for j in range(4))
        kept = f.sigmoid() if forget == "sigmoid" else f.exp()
        m = torch.where(n == 0.0, i, torch.maximum(kept.log() + m, i))
        c, n = kept * c + i.exp() * z.tanh(), kept * n + i.exp()
        h = o.sigmoid() * c / n
        outputs.append(h)
    return torch.stack(outputs, 2), (c * (-m).exp(), n * (-m).exp(), h, m)


def _begun(x: Tensor, state: States | None, weight: Tensor) -> States:
    """The state to begin with, zeros where none is given. Raises: LaminaError for shapes that do not fit."""
    if x.ndim != 5 or x.shape[2] == 0 or weight.shape != (4, x.shape[1], x.shape[4], x.shape[4]) or x.shape[3] != 4:
        raise LaminaError(f"shapes {list(x.shape)} and {list(weight.shape)} do not fit; [B H T 4 P], [4 H P P] would")
    expected = x.shape[0], x.shape[1], x.shape[4]
    if state is None:
        zeros = x.new_zeros(expected, dtype=torch.promote_types(x.dtype, torch.float32))
        return zeros, zeros, zeros, zeros
    for part in state:
        if part.shape != expected:
            raise LaminaError(f"a state of {list(part.shape)} does not fit; one of {list(expected)} would")
    return state


def _rule(state: States, x: Tensor, *rest: Tensor, forget: Forget) -> tuple[Tensor, States]:
    """A run of n tokens: x [B H n 4 P], which of them are real [B H n 1] if not all are, and the weight."""
    *alive, weight = (part if part.dtype == torch.bool else part.to(state[0].dtype) for part in rest)
    joined = weight.permute(1, 3, 0, 2).flatten(2)  # [H P 4P]
    outputs = []
    for t, token in enumerate(x.to(state[0].dtype).unbind(2)):
        new = _step(state, token, joined, forget)
        if alive:
            new = tuple(torch.where(alive[0][:, :, t], *both) for both in zip(new, state, strict=True))
        state = new
        outputs.append(state[2])
    return torch.stack(outputs, 2), state


def _step(state: States, x: Tensor, joined: Tensor, forget: Forget) -> States:
    """One token, [B H 4 P]."""
    c, n, h, m = state
    z, i, f, o = (x + (h[:, :, None] @ joined).view_as(x)).unbind(2)
    held = m + (F.logsigmoid(f) if forget == "sigmoid" else f)
    most = torch.where(n == 0.0, i, torch.maximum(held, i))
    fade, enter = (held - most).clamp(max=0.0).exp(), (i - most).exp()
    c, n = fade * c + enter * z.tanh(), fade * n + enter
    return c, n, o.sigmoid() * c / n, most
