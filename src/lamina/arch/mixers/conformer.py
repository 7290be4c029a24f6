"""The mixers of a Conformer: attention to near vectors by their distance, and a gated convolution."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from lamina.arch.feedforward import Activation
from lamina.arch.measure import Shape, Work, linear, matrices, within
from lamina.arch.mixers.base import Mixer
from lamina.arch.norm import Norm


class DistanceAttention(Mixer):
    """Softmax attention with H heads over the last `window` vectors, itself included, and how far off each is.

    A score is q . (k + r), where r is a projection of a sinusoid of the distance; queries have a learned scale for
    each dimension, and scores are soft-capped. Source: arXiv 1901.02860, appendix B; as in Gemma 4's audio encoder.
    """

    kind: Literal["distance_attention"] = "distance_attention"
    heads: PositiveInt
    head_dim: PositiveInt
    window: PositiveInt
    softcap: PositiveFloat | None = None

    def weights(self, width: int) -> dict[str, Shape]:
        inner = self.heads * self.head_dim
        named: dict[str, Shape] = {}
        for name in ("q_proj", "k_proj", "v_proj", "relative_k_proj"):
            named |= linear(name, inner, width)
        return named | linear("o_proj", width, inner) | {"scale": (self.head_dim,)}

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        """As if each vector saw a whole window. The keys of distances, which no vector changes, are made once."""
        inner = self.heads * self.head_dim
        return Work(2 * 4 * width * inner + self.window * 6 * inner, once=2 * self.window * width * inner)

    def saved(self, width: int) -> int:
        return width + 4 * self.heads * self.head_dim + self.heads


class GatedConvolution(Mixer):
    """down(act(norm(conv(a * sigmoid(b))))), a and b projections of x; each channel sees its last `kernel` vectors.

    Source: arXiv 2005.08100 (the convolution of a Conformer).
    """

    kind: Literal["gated_convolution"] = "gated_convolution"
    kernel: PositiveInt
    norm: Norm
    activation: Activation = "silu"

    def weights(self, width: int) -> dict[str, Shape]:
        named = linear("up_proj", 2 * width, width) | {"convolution.weight": (width, 1, self.kernel)}
        return named | within("norm", self.norm.weights(width)) | linear("down_proj", width, width)

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        return Work(2 * matrices(self.weights(width)) + 2 * width * self.kernel)

    def saved(self, width: int) -> int:
        return 7 * width  # x, a, b, their product, what the norm reads and gives, its activation
