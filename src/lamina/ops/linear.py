"""x W^T + b, whatever W is stored as, and fast for one token on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from lamina.ops.native import usable
from lamina.ops.packed import PIECE, Packed

FEW = 8
"""Up to how many tokens the weights, and not the arithmetic, are what takes time."""


def linear(
    x: Float[Tensor, "*B I"], weight: Float[Tensor, "O I"] | Packed, bias: Float[Tensor, " O"] | None = None
) -> Float[Tensor, "*B O"]:
    """x W^T + b.

    A few tokens on a CPU are bound by reading the weights. The product behind `F.linear` reads them with one
    thread; here all threads do (bench/projections.py). Packed weights are unpacked in pieces; they get no gradient.
    """
    if isinstance(weight, Packed):
        y = _packed(x, weight)
        return y if bias is None else y + bias
    outputs, inputs = weight.shape
    tokens = x.numel() // inputs
    if tokens <= FEW and (native := usable(x, weight)):
        y = x.new_empty(*x.shape[:-1], outputs)
        places = weight.data_ptr(), x.data_ptr(), y.data_ptr()
        native.few_tokens(*places, outputs, inputs, tokens, torch.get_num_threads())
        return y if bias is None else y + bias
    return F.linear(x, weight, bias)


def lookup(ids: Int[Tensor, "*B"], table: Float[Tensor, "V D"] | Packed) -> Float[Tensor, "*B D"]:
    """The rows of a table that ids name."""
    return table.take(ids) if isinstance(table, Packed) else F.embedding(ids, table)


def _packed(x: Float[Tensor, "*B I"], weight: Packed) -> Float[Tensor, "*B O"]:
    if x.numel() <= FEW * x.shape[-1] and (y := weight.few_tokens(x)) is not None:
        return y
    return _Unpacking.apply(x, weight) if x.requires_grad and torch.is_grad_enabled() else _product(x, weight)


def _product(x: Tensor, weight: Packed) -> Tensor:
    """Piece by piece of the weight: its rows are unpacked once, whatever the number of tokens."""
    outputs, inputs = weight.shape
    if outputs * inputs <= PIECE:
        return F.linear(x, weight.rows(0, outputs).to(x.dtype))
    y = x.new_empty(*x.shape[:-1], outputs)
    for start, stop, rows in weight.pieces(x.dtype):
        y[..., start:stop] = F.linear(x, rows)
    return y


class _Unpacking(torch.autograd.Function):
    """The product with a packed weight, which is unpacked again for the gradient of x."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Packed) -> Tensor:
        ctx.weight = weight
        return _product(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        found = grad.new_zeros(*grad.shape[:-1], ctx.weight.shape[1])
        for start, stop, rows in ctx.weight.pieces(grad.dtype):
            found += grad[..., start:stop] @ rows
        return found, None


def neighbours(parts: Sequence[Tensor]) -> Tensor | None:
    """Tensors that lie one after the other in memory as one, along their first dimension; None if they do not.

    Shapes: each [n ...], the rest alike -> [sum of n, ...], the same memory
    """
    first = parts[0]
    end = first.data_ptr()
    for part in parts:
        alike = part.shape[1:] == first.shape[1:] and part.dtype == first.dtype and part.is_contiguous()
        if not alike or part.data_ptr() != end or not end:
            return None
        end += part.nbytes
    if first.untyped_storage().data_ptr() + first.untyped_storage().nbytes() < end:
        return None  # next to each other by chance, in two allocations
    return first.detach().as_strided((sum(len(part) for part in parts), *first.shape[1:]), first.stride())
