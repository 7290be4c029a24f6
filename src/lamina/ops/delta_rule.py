"""Linear attention with a delta rule: the state of a head is corrected towards each new value.

    S <- exp(g) S;   S <- S + b k (v - S^T k)^T;   o = S^T q / sqrt(K)

Tokens of a chunk are taken together: what each corrects depends on the corrections of those before it, a triangular
system; all else are matrix products. What fades between two tokens is a sum of logarithms, never a quotient, so that
strong decays go to zero, nothing overflows, and weak ones behind them are exact.
Source: arXiv 2412.06464, section 3.3; the chunked form without decay: 2406.06484, section 3
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lamina.arch.measure import CHUNK
from lamina.ops.chunks import States, over_chunks
from lamina.ops.fla import fused
from lamina.ops.inputs import fading, finite, matrix_state, real, shared
from lamina.ops.native import recurrence

UNIT = 1e-6
"""What is added to the square of a length before it is divided by."""


def gated_delta_rule(
    q: Float[Tensor, "B G T K"],
    k: Float[Tensor, "B G T K"],
    v: Float[Tensor, "B H T V"],
    g: Float[Tensor, "B H T"],
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
    state = matrix_state(q, k, v, state, g, b)
    finite(g)
    g, b = real(lengths, g, b)
    options: dict[str, Any] = {"scale": k.shape[-1] ** -0.5, "use_qk_l2norm_in_kernel": unit}
    if (made := fused("gated_delta_rule", q, k, v, g, b, state=state, **options)) is not None:
        return made
    whole, rule = partial(recurrence, "delta_rule", (1, unit)), _unit_rule if unit else _rule
    out, (state,) = over_chunks(rule, (state,), (q, k, v, g, b), chunk=chunk, whole=whole)
    return out, state


def gated_delta_rule_reference(
    q: Float[Tensor, "B G T K"],
    k: Float[Tensor, "B G T K"],
    v: Float[Tensor, "B H T V"],
    g: Float[Tensor, "B H T"],
    b: Float[Tensor, "B H T"],
    state: Float[Tensor, "B H K V"] | None = None,
    *,
    unit: bool = True,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """The same, a token at a time."""
    return a_token_at_a_time(q, k, v, g[..., None], b, matrix_state(q, k, v, state, g, b), unit)


def a_token_at_a_time(
    q: Float[Tensor, "B G T K"],
    k: Float[Tensor, "B G T K"],
    v: Float[Tensor, "B H T V"],
    g: Float[Tensor, "B H T K"] | Float[Tensor, "B H T 1"],
    b: Float[Tensor, "B H T"],
    state: Float[Tensor, "B H K V"],
    unit: bool,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """A delta rule whose state fades by a number, or row by row."""
    groups, outputs = v.shape[1] // k.shape[1], []
    q, k = ((unit_vectors(x) if unit else x).repeat_interleave(groups, 1) for x in (q, k))
    for t in range(v.shape[2]):
        state = g[:, :, t, :, None].exp() * state
        answered = torch.einsum("bhkv,bhk->bhv", state, k[:, :, t])
        correction = b[:, :, t, None] * (v[:, :, t] - answered)
        state = state + k[:, :, t, :, None] * correction[:, :, None]
        outputs.append(torch.einsum("bhkv,bhk->bhv", state, q[:, :, t]) * k.shape[-1] ** -0.5)
    return torch.stack(outputs, 2), state


def unit_vectors(x: Tensor, length: float = 1.0) -> Tensor:
    return x * (torch.rsqrt(x.square().sum(-1, keepdim=True) + UNIT) * length)


def _unit_rule(state: States, q: Tensor, k: Tensor, *rest: Tensor) -> tuple[Tensor, States]:
    q, k = (x.to(state[0].dtype) for x in (q, k))
    return _scaled_rule(state, unit_vectors(q, k.shape[-1] ** -0.5), unit_vectors(k), *rest)


def _rule(state: States, q: Tensor, *rest: Tensor) -> tuple[Tensor, States]:
    return _scaled_rule(state, q.to(state[0].dtype) * q.shape[-1] ** -0.5, *rest)


def _scaled_rule(state: States, q: Tensor, k: Tensor, v: Tensor, g: Tensor, b: Tensor) -> tuple[Tensor, States]:
    """A chunk of n tokens: pieces [B G n K] and [B H n V], q times K^-0.5 already."""
    (old,) = state
    k, v, g, b = (x.to(old.dtype) for x in (k, v, g, b))
    groups, n = v.shape[1] // k.shape[1], v.shape[2]
    if n == 1:
        return _step(old, shared(q, groups), shared(k, groups), v, g, b)
    between = fading(g).mT.exp()  # [B H n n]
    fade, remain = g.cumsum(-1).exp()[..., None], between[..., -1, :, None]  # [B H n 1] since before, to the end
    like_keys, seen = (shared(x @ k.mT, groups) for x in (k, q))
    q, k = shared(q, groups), shared(k, groups)
    system = (like_keys * between * b[..., None]).tril(-1)
    asked = b[..., None] * torch.addcmul(v, k @ old, fade, value=-1)
    corrections = torch.linalg.solve_triangular(system, asked, upper=False, unitriangular=True)
    out = torch.addcmul((seen * between).tril() @ corrections, q @ old, fade)
    return out, (torch.addcmul((k * remain).mT @ corrections, old, fade[..., -1:, :]),)


def _step(old: Tensor, q: Tensor, k: Tensor, v: Tensor, g: Tensor, b: Tensor) -> tuple[Tensor, States]:
    """One token: pieces [B H 1 K] and [B H 1 V]."""
    old = old * g[..., None].exp()
    correction = b[..., None] * (v - k @ old)
    new = old + k.mT @ correction
    return q @ new, (new,)
