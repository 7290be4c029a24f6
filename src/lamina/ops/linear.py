"""x W^T + b, fast for one token on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def linear(
    x: Float[Tensor, "*B I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None = None
) -> Float[Tensor, "*B O"]:
    """x W^T + b.

    One token on a CPU is bound by reading the weights, and the matrix-vector product behind `F.linear` reads
    them with one thread; as a batch of products, one for each thread, all of them read (bench/linear.py).
    """
    if x.numel() == x.shape[-1] and x.device.type == "cpu" and not torch.is_grad_enabled():
        outputs, inputs = weight.shape
        threads = torch.get_num_threads()
        if threads > 1 and outputs % threads == 0 and x.dtype == torch.float32:
            parts = weight.view(threads, outputs // threads, inputs)
            # the row must stand on the left: as a column, contiguous both ways, it takes a path four times slower
            row = x.reshape(1, 1, inputs).expand(threads, 1, inputs)
            y = torch.bmm(row, parts.transpose(1, 2)).view(*x.shape[:-1], outputs)
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
