"""x W^T + b, fast for one token on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lamina.ops.native import usable

FEW = 8
"""Up to how many tokens the weights, and not the arithmetic, are what takes time."""


def linear(
    x: Float[Tensor, "*B I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None = None
) -> Float[Tensor, "*B O"]:
    """x W^T + b.

    A few tokens on a CPU are bound by reading the weights. The product behind `F.linear` reads them with one
    thread; here all threads do (bench/linear.py).
    """
    outputs, inputs = weight.shape
    tokens = x.numel() // inputs
    if tokens <= FEW and (native := usable(x, weight)):
        y = x.new_empty(*x.shape[:-1], outputs)
        places = weight.data_ptr(), x.data_ptr(), y.data_ptr()
        native.few_tokens(*places, outputs, inputs, tokens, torch.get_num_threads())
        return y if bias is None else y + bias
    return F.linear(x, weight, bias)


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
