"""The recurrence of Mamba-3: a trapezoidal step, a state that turns, and several inputs and outputs of each state.

    S <- exp(g) (S + (1 - l) step K'^T V') + l step K^T V;   Y = Q S,   V = x times `up`

K' and V' are those of the token before, so what enters is a mean of both ends of a step, and `l` says how it leans. K
and Q are turned by an angle that grows from token to token, which makes the state a complex one. With a rank R above
one, K, Q and V have R rows.
Source: arXiv 2603.15569, sections 3.1 (trapezoidal), 3.2 (complex) and 3.3 (several inputs and outputs)
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lamina.arch.measure import CHUNK
from lamina.errors import LaminaError
from lamina.ops.chunks import States, over_chunks
from lamina.ops.inputs import fading, finite, real, shared

Kept = tuple[Float[Tensor, "B H A"], Float[Tensor, "B H P N"], Float[Tensor, "B H R N"], Float[Tensor, "B H P"]]
"""The angles so far, the states, and the keys and values of the last token."""


def mamba3(
    q: Float[Tensor, "B G T R N"],
    k: Float[Tensor, "B G T R N"],
    x: Float[Tensor, "B H T P"],
    g: Float[Tensor, "B H T"],
    steps: Float[Tensor, "B H T"],
    lean: Float[Tensor, "B H T"],
    turns: Float[Tensor, "B 1 T A"],
    biases: Float[Tensor, "2 H R N"],
    up: Float[Tensor, "H R P"],
    state: Kept | None = None,
    *,
    lengths: Int[Tensor, " B"] | None = None,
    chunk: int = CHUNK,
) -> tuple[Float[Tensor, "B H T R P"], Kept]:
    """Outputs, and the state after the last token (after each row's own, with `lengths`), in float32 at least.

    `g` is the logarithm of the decay, `turns` how far a step of one turns each of A pairs of numbers; angles are kept
    below a full turn. `biases` are those of Q and of K.
    Raises: LaminaError for shapes that do not fit each other, or a decay that is not finite
    """
    begun = _begun(q, k, x, g, steps, lean, turns, up, state)
    finite(g)
    here = torch.ones_like(g[:, :1])
    g, steps, here = real(lengths, g, steps, here)
    constants = [part.to(begun[1].dtype) for part in (biases, up)]
    out, after = over_chunks(_rule, begun, (q, k, x, g, steps, lean, turns, here), constants, chunk)
    return out, after  # type: ignore[return-value]


def mamba3_reference(
    q: Float[Tensor, "B G T R N"],
    k: Float[Tensor, "B G T R N"],
    x: Float[Tensor, "B H T P"],
    g: Float[Tensor, "B H T"],
    steps: Float[Tensor, "B H T"],
    lean: Float[Tensor, "B H T"],
    turns: Float[Tensor, "B 1 T A"],
    biases: Float[Tensor, "2 H R N"],
    up: Float[Tensor, "H R P"],
    state: Kept | None = None,
) -> tuple[Float[Tensor, "B H T R P"], Kept]:
    """The same, a token at a time."""
    angle, held, before, last = _begun(q, k, x, g, steps, lean, turns, up, state)
    groups, outputs = x.shape[1] // k.shape[1], []
    for t in range(x.shape[2]):
        angle = angle + turns[:, :, t] * steps[:, :, t, None]
        angle = angle - 2 * math.pi * torch.floor(angle / (2 * math.pi))
        row = [part[:, :, t].repeat_interleave(groups, 1) for part in (q, k)]
        query, key = (_turned(part + bias, angle) for part, bias in zip(row, biases, strict=True))
        of_last = (1 - lean[:, :, t]) * steps[:, :, t]
        of_this = lean[:, :, t] * steps[:, :, t]
        entered = torch.einsum("bhrn,bhp,hrp->bhpn", before, last, up) * of_last[..., None, None]
        held = g[:, :, t, None, None].exp() * (held + entered)
        held = held + torch.einsum("bhrn,bhp,hrp->bhpn", key, x[:, :, t], up) * of_this[..., None, None]
        outputs.append(torch.einsum("bhrn,bhpn->bhrp", query, held))
        before, last = key, x[:, :, t]
    return torch.stack(outputs, 2), (angle, held, before, last)


def _begun(
    q: Tensor,
    k: Tensor,
    x: Tensor,
    g: Tensor,
    steps: Tensor,
    lean: Tensor,
    turns: Tensor,
    up: Tensor,
    state: Kept | None,
) -> Kept:
    """The state to begin with, zeros where none is given."""
    rows, heads, tokens, dim = x.shape
    rank, size = k.shape[3:]
    fit = q.shape == k.shape and (k.shape[0], k.shape[2]) == (rows, tokens) and heads % k.shape[1] == 0 and tokens > 0
    fit = fit and turns.shape[:3] == (rows, 1, tokens) and 2 * turns.shape[3] <= size and up.shape == (heads, rank, dim)
    if not fit or any(part.shape != x.shape[:3] for part in (g, steps, lean)):
        shapes = ", ".join(str(list(part.shape)) for part in (q, k, x, g, steps, lean, turns, up))
        raise LaminaError(
            f"shapes {shapes} do not fit; q, k [B G T R N], x [B H T P], three of [B H T], turns [B 1 T A] and "
            "up [H R P] would, G | H and 2 A <= N"
        )
    expected = (turns.shape[3],), (dim, size), (rank, size), (dim,)
    if state is None:
        dtype = torch.promote_types(x.dtype, torch.float32)
        state = tuple(x.new_zeros(rows, heads, *shape, dtype=dtype) for shape in expected)  # type: ignore[assignment]
    assert state is not None
    for part, shape in zip(state, expected, strict=True):
        if part.shape != (rows, heads, *shape):
            wanted = [rows, heads, *shape]
            raise LaminaError(f"a part of the state of {list(part.shape)} does not fit; one of {wanted} would")
    return state


def _turned(x: Float[Tensor, "*B R N"], angle: Float[Tensor, "*B A"]) -> Float[Tensor, "*B R N"]:
    """Each two neighbours among the first 2 A numbers turned by an angle."""
    turning = 2 * angle.shape[-1]
    a, b = x[..., :turning:2], x[..., 1:turning:2]
    cos, sin = angle.cos()[..., None, :], angle.sin()[..., None, :]
    pairs = torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
    return torch.cat([pairs, x[..., turning:]], -1)


def _rule(
    state: States,
    q: Tensor,
    k: Tensor,
    x: Tensor,
    g: Tensor,
    steps: Tensor,
    lean: Tensor,
    turns: Tensor,
    here: Tensor,
    biases: Tensor,
    up: Tensor,
) -> tuple[Tensor, States]:
    """A chunk of n tokens, whose R rows are taken as tokens of their own."""
    angle, old, before, last = state
    q, k, x, g, steps, lean, turns = (part.to(old.dtype) for part in (q, k, x, g, steps, lean, turns))
    groups, tokens, rank = x.shape[1] // k.shape[1], x.shape[2], k.shape[3]
    angle = angle[:, :, None] + (turns * steps[..., None]).cumsum(2)  # [B H n A]
    q, k = (_turned(shared(p, groups) + bias[:, None], angle) for p, bias in zip((q, k), biases, strict=True))
    v = x[:, :, :, None] * up[:, None]  # [B H n R P]
    of_last, of_this = (1 - lean) * steps, lean * steps
    entered = ((last[:, :, None] * up)[..., None] * before[..., None, :]).sum(2)  # [B H P N]
    old = old + of_last[:, :, 0, None, None] * entered
    if tokens == 1:
        new = g[..., None].exp() * old + (v[:, :, 0] * of_this[..., None]).mT @ k[:, :, 0]
        out = (q[:, :, 0] @ new.mT)[:, :, None]
    else:
        later = of_this + torch.nn.functional.pad(of_last[:, :, 1:], (0, 1))  # what a token leaves in all
        between = fading(g)
        fade = (between[:, :, 0] + g[:, :, :1]).exp()  # [B H n] since before
        seen = (between.exp() * later[..., None]).triu(1) + torch.diag_embed(of_this)
        flat_q, flat_k, flat_v = (part.flatten(2, 3) for part in (q, k, v))  # [B H nR .]
        scores = (flat_k @ flat_q.mT).unflatten(3, (-1, rank)).unflatten(2, (-1, rank)) * seen[:, :, :, None, :, None]
        out = scores.flatten(4).flatten(2, 3).mT @ flat_v
        out = (out + (flat_q @ old.mT) * fade.repeat_interleave(rank, 2)[..., None]).view(v.shape)
        left = (v * (later * between[..., -1].exp())[..., None, None]).flatten(2, 3)
        new = fade[:, :, -1, None, None] * old + left.mT @ flat_k
    count = here.sum(2).long()[..., None]  # [B 1 1] real tokens
    place = (count - 1).clamp(min=0)[..., None, None]
    final = k.gather(2, place.expand(-1, k.shape[1], -1, *k.shape[3:]))[:, :, 0]
    x_final = x.gather(2, place[..., 0].expand(-1, x.shape[1], -1, x.shape[3]))[:, :, 0]
    before, last = torch.where(count[..., None, None][..., 0] > 0, final, before), torch.where(count > 0, x_final, last)
    return out, (torch.remainder(angle[:, :, -1], 2 * math.pi), new, before, last)
