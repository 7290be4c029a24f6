"""Compressed convolutional attention: queries and keys are mixed over the last few tokens before they meet."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt, model_validator

from lamina.arch.measure import Kept, Pairs, Shape, Work, linear, matrices
from lamina.arch.mixers.attention import check_groups
from lamina.arch.mixers.base import Mixer
from lamina.arch.position import Rotary


class CompressedConvolutionalAttention(Mixer):
    """Softmax attention in a space of H K < D numbers, whose queries and keys pass two causal convolutions.

    The first runs over each channel (`depthwise` tokens), the second over the channels of a head (`grouped`
    tokens). A query is that plus the mean of its projection and its group's key projection; a key is that plus
    the mean of its group's such means. Both are then scaled to a length of sqrt(K), and keys by a learned number
    a head. The first half of the values' numbers is of this token, the second of the one before.
    Source: arXiv 2510.04476 (CCA, CCGQA); the learned key scale is that of ZAYA1, 2511.17127.
    """

    kind: Literal["compressed_convolutional_attention"] = "compressed_convolutional_attention"
    heads: PositiveInt
    kv_heads: PositiveInt
    head_dim: PositiveInt
    rotary: Rotary | None = None
    window: PositiveInt | None = None
    depthwise: PositiveInt = 2
    grouped: PositiveInt = 2
    bias: bool = False
    output_bias: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> CompressedConvolutionalAttention:
        check_groups(self.heads, self.kv_heads)
        if self.rotary and self.rotary.dim > self.head_dim:
            raise ValueError(f"rotary.dim ({self.rotary.dim}) must not exceed head_dim ({self.head_dim})")
        if self.kv_heads * self.head_dim % 2:
            raise ValueError(f"values of {self.kv_heads} x {self.head_dim} numbers cannot be halved")
        return self

    @property
    def channels(self) -> int:
        """Of queries and keys together, which the convolutions run over."""
        return (self.heads + self.kv_heads) * self.head_dim

    def weights(self, width: int) -> dict[str, Shape]:
        q, k = self.heads * self.head_dim, self.kv_heads * self.head_dim
        named = linear("q_proj", q, width, self.bias) | linear("k_proj", k, width, self.bias)
        named |= linear("v_proj", k // 2, width, self.bias) | linear("delayed_v_proj", k // 2, width, self.bias)
        for name, shape in (("depthwise", (1, self.depthwise)), ("grouped", (self.head_dim, self.grouped))):
            named |= {f"{name}.weight": (self.channels, *shape), f"{name}.bias": (self.channels,)}
        return named | {"key_scale": (self.kv_heads,)} | linear("o_proj", width, q, self.output_bias)

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        convolutions = 2 * self.channels * (self.depthwise + self.head_dim * self.grouped)
        pairs = Pairs(4 * self.heads * self.head_dim, self.window)
        return Work(2 * matrices(self.weights(width)) + convolutions, (pairs,))

    def keeps(self, width: int) -> tuple[Kept, ...]:
        """Keys and values of all tokens; the convolutions' last inputs, and the last token's delayed values."""
        k = self.kv_heads * self.head_dim
        tail = self.channels * (self.depthwise + self.grouped - 2) + k // 2
        return (
            Kept("window" if self.window else "full", 2 * k, window=self.window),
            Kept("convolution", tail, each="sequence"),
        )

    def saved(self, width: int) -> int:
        q, k = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return width + 4 * self.channels + k + q + self.heads  # projected, each convolution, scaled; v, o, softmax
