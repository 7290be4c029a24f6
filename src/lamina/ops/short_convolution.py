"""A causal convolution of each channel over the last few tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def short_convolution(
    x: Float[Tensor, "B T C"],
    before: Float[Tensor, "B C n"],
    weight: Float[Tensor, "C 1 k"],
    bias: Float[Tensor, " C"] | None = None,
    silu: bool = False,
) -> Float[Tensor, "B T C"]:
    """y_t = sum_j w_j x_(t - k + 1 + j) + bias, then a SiLU if asked for; `before` are the k - 1 inputs before x."""
    y = F.conv1d(torch.cat([before, x.mT], 2), weight, bias, groups=len(weight)).mT
    return F.silu(y) if silu else y


def short_convolution_reference(
    x: Float[Tensor, "B T C"],
    before: Float[Tensor, "B C n"],
    weight: Float[Tensor, "C 1 k"],
    bias: Float[Tensor, " C"] | None = None,
    silu: bool = False,
) -> Float[Tensor, "B T C"]:
    """The same, a token at a time."""
    window, outputs = before, []
    for t in range(x.shape[1]):
        window = torch.cat([window, x[:, t, :, None]], 2)[:, :, -weight.shape[2] :]
        y = (window * weight[:, 0]).sum(-1) + (0.0 if bias is None else bias)
        outputs.append(y * torch.sigmoid(y) if silu else y)
    return torch.stack(outputs, 1)
