"""x W^T + b, fast for one token on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

FEW = 8
"""Up to how many tokens the weights, and not the arithmetic, are what takes time."""


def linear(
    x: Float[Tensor, "*B I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None = None
) -> Float[Tensor, "*B O"]:
    """x W^T + b.

    A few tokens on a CPU are bound by reading the weights, and the product behind `F.linear` reads them with one
    thread; as a batch of products, one for each thread, all of them read (bench/linear.py).
    """
    outputs, inputs = weight.shape
    rows = x.numel() // inputs
    if rows <= FEW and weight.device.type == "cpu" and weight.dtype == torch.float32 and not torch.is_grad_enabled():
        threads = torch.get_num_threads()
        if threads > 1 and outputs % threads == 0 and x.dtype == torch.float32:
            # tokens must stand on the left: on the right, a single one takes a path four times slower
            left = x.reshape(1, rows, inputs).expand(threads, rows, inputs)
            y = torch.bmm(left, weight.view(threads, outputs // threads, inputs).transpose(1, 2))
            y = y.view(*x.shape[:-1], outputs) if rows == 1 else y.transpose(0, 1).reshape(*x.shape[:-1], outputs)
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
