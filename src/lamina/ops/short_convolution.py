"""A causal convolution of each channel over the last few tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lamina.ops.native import PLAIN, reachable

WIDE = 512
"""Channels that the native function takes at a time."""


def short_convolution(
    x: Float[Tensor, "B T C"],
    before: Float[Tensor, "B C n"],
    weight: Float[Tensor, "C 1 k"],
    bias: Float[Tensor, " C"] | None = None,
    silu: bool = False,
) -> Float[Tensor, "B T C"]:
    """y_t = sum_j w_j x_(t - k + 1 + j) + bias, then a SiLU if asked for; `before` are the k - 1 inputs before x."""
    if (found := _native(x, before, weight, bias, silu)) is not None:
        return found
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


def _native(x: Tensor, before: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor | None:
    """The same in C where it can: values of float32 on a CPU; the numbers of a token lie side by side, tokens apart."""
    parts = [before.contiguous(), weight, *([] if bias is None else [bias])]
    plain = x.is_cpu and type(x) in PLAIN and x.stride(2) == 1
    if torch.is_grad_enabled() or not plain or any(part.dtype != torch.float32 for part in (x, *parts)):
        return None
    (batch, tokens, channels), taps, threads = x.shape, weight.shape[2], torch.get_num_threads()
    fit = before.shape == (batch, channels, taps - 1) and weight.shape == (channels, 1, taps)
    if not fit or (native := reachable(*parts)) is None:
        return None
    y, room = x.new_empty(x.shape), x.new_empty(threads * (2 * taps + 1) * WIDE)
    places = x.data_ptr(), parts[0].data_ptr(), weight.data_ptr(), 0 if bias is None else bias.data_ptr()
    sizes = batch, tokens, channels, taps, x.stride(0), x.stride(1)
    native.short_convolution(*places, y.data_ptr(), room.data_ptr(), *sizes, silu, threads)
    return y
