"""Rotary position embedding: angles, and turning queries and keys by them."""

from __future__ import annotations

import ctypes
import functools
import math

import torch
from jaxtyping import Float
from torch import Tensor

from lamina.arch.position import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    Rotary,
    YarnScaling,
)
from lamina.ops.native import usable


@functools.lru_cache(maxsize=256)
def frequencies(rotary: Rotary, length: int = 0) -> Float[Tensor, " K/2"]:
    """Radians per token of each pair of dimensions, float32, for a sequence of `length` tokens in all.

    Source: arXiv 2104.09864, eq. 15, and the source of each scaling.
    """
    base, dim, scaling = rotary.base, rotary.dim, rotary.scaling
    if rotary.turning is not None:
        with torch.inference_mode(False):
            some = frequencies(rotary.replace(turning=None), length).clone()
            some[rotary.turning :] = 0.0
            return some
    if isinstance(scaling, DynamicScaling) and length > scaling.original_context and dim > 2:
        growth = scaling.factor * length / scaling.original_context - (scaling.factor - 1)
        base *= growth ** (dim / (dim - 2))
    with torch.inference_mode(False), torch.no_grad():
        wavelength = base ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
        if isinstance(scaling, LongRopeScaling):
            return 1.0 / (torch.tensor(scaling.long if rotary.regime(length) else scaling.short) * wavelength)
        plain = 1.0 / wavelength
        if isinstance(scaling, LinearScaling):
            return plain / scaling.factor
        if isinstance(scaling, Llama3Scaling):
            return _llama3(plain, scaling)
        if isinstance(scaling, YarnScaling):
            return _yarn(plain, rotary, scaling)
        return plain


def _llama3(plain: Tensor, s: Llama3Scaling) -> Tensor:
    """Blend by how often a pair turns within the original context: `low_frequency` times or less is slow."""
    turns = s.original_context * plain / (2 * math.pi)
    fast = ((turns - s.low_frequency) / (s.high_frequency - s.low_frequency)).clamp(0, 1)
    return (1 - fast) * plain / s.factor + fast * plain


def _yarn(plain: Tensor, rotary: Rotary, s: YarnScaling) -> Tensor:
    """Blend by dimension between those that turn `beta_fast` and `beta_slow` times in the original context."""
    dim = rotary.dim

    def dimension(turns: float) -> float:
        return dim * math.log(s.original_context / (turns * 2 * math.pi)) / (2 * math.log(rotary.base))

    low, high = dimension(s.beta_fast), dimension(s.beta_slow)
    if s.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = (torch.arange(dim // 2, dtype=torch.float32) - low) / ((high - low) or 0.001)
    slow = ramp.clamp(0, 1)
    return plain / s.factor * slow + plain * (1 - slow)


def tables(
    rotary: Rotary,
    positions: Tensor,
    length: int,
    dtype: torch.dtype,
    learned: Float[Tensor, " K/2"] | None = None,
) -> tuple[Float[Tensor, "*B T K"], Float[Tensor, "*B T K"]]:
    """Cosines and signed sines for `positions` (any shape), laid out as `rotate` wants them.

    `learned` are the powers of e that frequencies are multiplied by, where they are learned.

    The sine of the first of each pair is negative, so that turning is x * cos + partner(x) * sin.
    """
    turns = frequencies(rotary, length).to(positions.device)
    angles = positions[..., None].float() * (turns if learned is None else turns * learned.float().exp())
    factor = rotary.scaling.attention_factor if isinstance(rotary.scaling, YarnScaling | LongRopeScaling) else 1.0
    cos, sin = angles.cos() * factor, angles.sin() * (-factor if rotary.backwards else factor)
    if rotary.layout == "half":
        cos, sin = torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)
    else:
        cos, sin = torch.stack([cos, cos], -1).flatten(-2), torch.stack([-sin, sin], -1).flatten(-2)
    return cos.to(dtype), sin.to(dtype)


def rotate(x: Float[Tensor, "B H T K"], rotary: Rotary, cos: Tensor, sin: Tensor) -> Float[Tensor, "B H T K"]:
    """Turn the first `rotary.dim` dimensions of each head by the angles of `tables`."""
    dim = rotary.dim
    turned, rest = (x, None) if dim == x.shape[-1] else (x[..., :dim], x[..., dim:])
    whole = rest is None and x.stride(-1) == 1 and x.dtype == cos.dtype and x.device == cos.device
    if whole and (native := usable(cos, sin)):
        return _native(native, x, rotary, cos, sin)
    if rotary.layout == "half":
        partner = turned.roll(dim // 2, -1)
    else:
        partner = turned.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    out = torch.addcmul(turned * cos, partner, sin)
    return out if rest is None else torch.cat([out, rest], -1)


def _native(native: ctypes.CDLL, x: Tensor, rotary: Rotary, cos: Tensor, sin: Tensor) -> Tensor:
    """`rotate` of whole heads, where x may be strided."""
    batch, heads, tokens, dim = x.shape
    y = x.new_empty(batch, heads, tokens, dim)
    table = tokens * dim if len(cos) > 1 else 0
    places = x.data_ptr(), cos.data_ptr(), sin.data_ptr(), y.data_ptr()
    sizes = batch, heads, tokens, dim, *x.stride()[:3], table
    native.rotate(*places, *sizes, rotary.layout == "interleaved", torch.get_num_threads())
    return y


def rotate_reference(x: Tensor, rotary: Rotary, positions: Tensor, length: int = 0) -> Tensor:
    """The obvious twin of `tables` and `rotate`: each pair as a complex number, one pair at a time.

    Shapes: x [B H T K]; positions [T]
    """
    out = x.clone()
    factor = rotary.scaling.attention_factor if isinstance(rotary.scaling, YarnScaling | LongRopeScaling) else 1.0
    for pair, frequency in enumerate(frequencies(rotary, length)):
        if rotary.layout == "half":
            i, j = pair, pair + rotary.dim // 2
        else:
            i, j = 2 * pair, 2 * pair + 1
        angle = positions.float() * (-frequency if rotary.backwards else frequency)
        number = torch.complex(x[..., i], x[..., j]) * torch.polar(torch.full_like(angle, factor), angle)
        out[..., i], out[..., j] = number.real, number.imag
    return out
