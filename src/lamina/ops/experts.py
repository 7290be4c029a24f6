"""Products with the weights of a few of many experts: nothing is computed for an expert that no token chose."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lamina.ops.linear import FEW, linear
from lamina.ops.native import reachable
from lamina.ops.packed import Packed

GROUPED = getattr(F, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)
"""Torch's product of rows in groups, each with a matrix of its own, where this torch has it."""


class Sorted(NamedTuple):
    """Choices in order of expert.

    Shapes: `order` [M], places in the flattened choices; `expert` [M]; `ends` int32 [E], where the rows of each end
    """

    order: Int[Tensor, " M"]
    expert: Int[Tensor, " M"]
    ends: Int[Tensor, " E"]


def sort_by_expert(chosen: Int[Tensor, "N k"], experts: int, others: bool = False) -> Sorted:
    """The choices in order of expert; with `others`, those of numbers beyond the last expert are left out."""
    expert, order = chosen.flatten().sort(stable=True)
    ends = torch.searchsorted(expert, torch.arange(experts, device=chosen.device), right=True, out_int32=True)
    if others and experts:
        count = int(ends[-1])
        expert, order = expert[:count], order[:count]
    return Sorted(order, expert, ends)


def experts_reference(
    x: Float[Tensor, "N D"],
    chosen: Int[Tensor, "N k"],
    weights: Float[Tensor, "N k"],
    gate: Float[Tensor, "E F D"],
    up: Float[Tensor, "E F D"],
    down: Float[Tensor, "E D F"],
) -> Float[Tensor, "N D"]:
    """Sum over the chosen experts of weight * down(silu(gate x) * up x), one choice at a time (slow).

    Source: arXiv 1701.06538, eq. 1. A number that no expert has chooses nothing.
    """
    out = []
    for token, experts, given in zip(x, chosen.tolist(), weights, strict=True):
        total = torch.zeros_like(token)
        for expert, weight in zip(experts, given, strict=True):
            if expert < len(gate):
                total = total + weight * (down[expert] @ (F.silu(gate[expert] @ token) * (up[expert] @ token)))
        out.append(total)
    return torch.stack(out) if out else torch.zeros_like(x)


def grouped_reference(
    x: Float[Tensor, "M I"], weight: Float[Tensor, "E O I"], rows: Sorted, bias: Float[Tensor, "E O"] | None = None
) -> Float[Tensor, "M O"]:
    """What `grouped_linear` gives, row by row (slow)."""
    given = [weight[e] @ row if bias is None else weight[e] @ row + bias[e] for row, e in zip(x, rows.expert)]  # noqa: B905
    return torch.stack(given) if given else x.new_zeros(0, weight.shape[1])


def experts_glu(
    x: Float[Tensor, "N D"],
    chosen: Int[Tensor, "N k"],
    weights: Float[Tensor, "N k"],
    gate: Float[Tensor, "E F D"] | Packed,
    up: Float[Tensor, "E F D"] | Packed,
    down: Float[Tensor, "E D F"] | Packed,
) -> Float[Tensor, "N D"] | None:
    """What `experts_reference` gives, in one pass over the weights in C; None if that cannot be."""
    if isinstance(gate, Packed) or isinstance(up, Packed) or isinstance(down, Packed):
        return None
    held = x, chosen, weights, gate, up, down
    if not (native := _native(x, gate, up, down)) or not reachable(chosen, weights) or weights.dtype != torch.float32:
        return None
    (tokens, active), (experts, inner, width) = chosen.shape, gate.shape
    out, hidden = torch.empty_like(x), x.new_empty(tokens * active, inner)
    places = chosen.new_empty(2 * chosen.numel() + experts + 1)
    pointers = (tensor.data_ptr() for tensor in (gate, up, down, *held[:3], out, places, hidden))
    native.experts_glu(*pointers, tokens, active, experts, width, inner, torch.get_num_threads())
    return out


def grouped_linear(
    x: Float[Tensor, "M I"],
    weight: Float[Tensor, "E O I"] | Packed,
    rows: Sorted,
    bias: Float[Tensor, "E O"] | None = None,
) -> Float[Tensor, "M O"]:
    """x W_e^T + b_e, each row of x with the weights of its expert."""
    y = _product(x, weight, rows)
    return y if bias is None else y + bias[rows.expert]


def _product(x: Tensor, weight: Tensor | Packed, rows: Sorted) -> Tensor:
    if isinstance(weight, Tensor):
        if native := _native(x, weight):
            experts, outputs, inputs = weight.shape
            y, starts = x.new_empty(len(x), outputs), F.pad(rows.ends.long(), (1, 0))
            places = torch.empty_like(rows.order)
            pointers = (tensor.data_ptr() for tensor in (weight, x, y, starts, places))
            native.experts_linear(*pointers, experts, outputs, inputs, torch.get_num_threads())
            return y
        if GROUPED is not None and x.is_cuda and _aligned(x, weight):
            return GROUPED(x, weight.mT, offs=rows.ends)
    counts = rows.ends.diff(prepend=rows.ends.new_zeros(1)).tolist()
    if isinstance(weight, Packed) and max(counts) <= FEW and (y := _packed(x, weight, rows)) is not None:
        return y
    return _one_by_one(x, weight, counts)


def _packed(x: Tensor, weight: Packed, rows: Sorted) -> Tensor | None:
    """The product with a stack that is unpacked where it is used, for a few rows of each expert; None if not in C."""
    parts = [part for part in weight.parts if part is not None]
    if not (native := _native(x)) or not reachable(*parts):
        return None
    experts, outputs, _ = weight.shape
    y, starts = x.new_empty(len(x), outputs), F.pad(rows.ends.long(), (1, 0))
    steps = torch.tensor([0 if part is None else part.stride(0) for part in weight.parts])
    pointers = (tensor.data_ptr() for tensor in (steps, x, y, starts))
    native.packed_experts(ctypes.byref(weight.struct()), *pointers, experts, outputs, torch.get_num_threads())
    return y


def _one_by_one(x: Tensor, weight: Tensor | Packed, counts: Sequence[int]) -> Tensor:
    """A product for each expert that has rows."""
    used = [e for e, count in enumerate(counts) if count]
    if not used:
        return x.new_empty(0, weight.shape[1]) + 0 * x.sum()
    # taken apart at once, so that the gradient is put together at once, and not from one full stack an expert
    stack = weight.unbind(0) if isinstance(weight, Tensor) and weight.requires_grad else weight
    parts = x.split([counts[e] for e in used])
    return torch.cat([linear(part, stack[e]) for e, part in zip(used, parts, strict=True)])


def _native(x: Tensor, *weights: Tensor):
    """The functions in C, if these are plain float32 on a CPU and only values are wanted."""
    if torch.is_grad_enabled() or any(tensor.dtype != torch.float32 for tensor in (x, *weights)):
        return None
    return reachable(x, *weights)


def _aligned(x: Tensor, weight: Tensor) -> bool:
    """Whether torch's grouped product takes these: bfloat16, and rows that begin at multiples of 16 bytes."""
    whole = all(size * x.element_size() % 16 == 0 for size in weight.shape[1:])
    return whole and x.dtype == weight.dtype == torch.bfloat16 and torch.cuda.get_device_capability(x.device) >= (8, 0)
