"""Normalisation. Its width comes from where it stands, so it is not a field."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat

from lamina.arch.base import Node
from lamina.arch.measure import Shape


class RMSNorm(Node):
    """x / sqrt(mean(x^2) + eps) * (offset + weight).

    Source: arXiv 1910.07467. `offset` is 1 where the stored weight is a difference from one (Gemma).
    `weight` is False where nothing is learned (TRM). With `weight_first`, x is multiplied by the weight and then
    normalised (Muse Spark).
    """

    kind: Literal["rms_norm"] = "rms_norm"
    eps: NonNegativeFloat = 1e-6
    offset: float = 0.0
    weight: bool = True
    weight_first: bool = False

    def weights(self, width: int) -> dict[str, Shape]:
        return {"weight": (width,)} if self.weight else {}

    def saved(self, width: int) -> int:
        """Numbers that the backward pass needs: x, and one over its size."""
        return width + 1


class LayerNorm(Node):
    """(x - mean(x)) / sqrt(var(x) + eps) * weight + bias.

    Source: arXiv 1607.06450.
    """

    kind: Literal["layer_norm"] = "layer_norm"
    eps: NonNegativeFloat = 1e-5
    bias: bool = True

    def weights(self, width: int) -> dict[str, Shape]:
        return {"weight": (width,), "bias": (width,)} if self.bias else {"weight": (width,)}

    def saved(self, width: int) -> int:
        """Numbers that the backward pass needs: x, its mean, and one over its deviation."""
        return width + 2


Norm = Annotated[RMSNorm | LayerNorm, Field(discriminator="kind")]
