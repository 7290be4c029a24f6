"""Root-mean-square normalisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lamina.ops.native import usable


def rms_norm(
    x: Float[Tensor, "*B D"], weight: Float[Tensor, " D"] | None, eps: float, offset: float = 0.0
) -> Float[Tensor, "*B D"]:
    """x / sqrt(mean(x^2) + eps) * (offset + weight), computed in float32.

    Source: arXiv 1910.07467, eq. 4
    Differs: without a weight, not torch's own `rms_norm`, whose last bits are others than those of the published
    models; a recursive model on random weights magnifies them a thousandfold in a few steps.
    """
    if weight is None:
        y = x.float()
        return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + eps)).to(x.dtype)
    width = x.shape[-1]
    if native := usable(x, weight):
        y = torch.empty_like(x)
        places = x.data_ptr(), weight.data_ptr(), y.data_ptr()
        native.rms_norm(*places, x.numel() // width, width, eps, offset, torch.get_num_threads())
        return y
    scale = weight.float() + offset if offset else weight.float()
    return F.rms_norm(x.float(), (width,), scale, eps).to(x.dtype)
