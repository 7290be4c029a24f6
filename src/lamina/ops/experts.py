"""Products with the weights of a few of many experts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def sort_by_expert(chosen: Int[Tensor, "N k"], experts: int) -> tuple[Int[Tensor, " Nk"], list[int]]:
    """The choices in order of expert: places in the flattened choices, and how many fall on each expert."""
    flat = chosen.flatten()
    return flat.argsort(stable=True), torch.bincount(flat, minlength=experts).tolist()


def grouped_linear(
    x: Float[Tensor, "M I"],
    weight: Float[Tensor, "E O I"],
    counts: Sequence[int],
    bias: Float[Tensor, "E O"] | None = None,
) -> Float[Tensor, "M O"]:
    """x W_e^T + b_e, the first counts[0] rows with expert 0, the next counts[1] with expert 1, and so on.

    Experts without rows cost nothing.
    """
    used = [e for e, count in enumerate(counts) if count]
    parts = x.split([counts[e] for e in used])
    if not parts:
        return x.new_empty(0, weight.shape[1])
    return torch.cat(
        [F.linear(part, weight[e], None if bias is None else bias[e]) for e, part in zip(used, parts, strict=True)]
    )
