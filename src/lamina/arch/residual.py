"""What a branch's output is added to, where it is not the stream as it came, unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import PositiveFloat, PositiveInt

from lamina.arch.base import Node, one_of
from lamina.arch.measure import Shape, Work, linear, matrices, within
from lamina.arch.norm import Norm, RMSNorm


class Residual(Node):
    """What a branch adds its output `out` to, x being the stream and z what the op read: before(x)."""

    def weights(self, width: int) -> dict[str, Shape]:
        """The shape of everything learned, by its name."""
        return {}

    def work(self, width: int) -> Work:
        """Forward FLOPs of matrix products."""
        return Work(2 * matrices(self.weights(width)))

    def saved(self, width: int) -> int:
        """Numbers of each token that the backward pass needs, besides what the branch saves."""
        return 0


class ScaledResidual(Residual):
    """scale * x + out; with `normed`, scale * z + out. Source: arXiv 2203.00555 (DeepNorm); as in MiniMax-01."""

    kind: Literal["scaled"] = "scaled"
    scale: float = 1.0
    normed: bool = False


class AffineResidual(Residual):
    """(x + b) * s + (out + c) * t, with b, s, c and t learned vectors. Source: arXiv 2511.17127 (ZAYA1)."""

    kind: Literal["affine"] = "affine"

    def weights(self, width: int) -> dict[str, Shape]:
        names = ("stream_bias", "stream_scale", "output_bias", "output_scale")
        return dict.fromkeys(names, (width,))

    def saved(self, width: int) -> int:
        return 2 * width


class LayerScale(Residual):
    """x + s * out, with s a learned vector. Source: arXiv 2103.17239 (LayerScale)."""

    kind: Literal["layer_scale"] = "layer_scale"

    def weights(self, width: int) -> dict[str, Shape]:
        return {"scale": (width,)}

    def saved(self, width: int) -> int:
        return width


class GatedResidual(Residual):
    """a * x + b * out, with b = sigmoid(w / `temperature`), w learned, and a = sqrt(max(1 - b^2, `floor`)).

    So the sum of two independent vectors of one variance keeps it. Source: Muse Spark.
    """

    kind: Literal["gated"] = "gated"
    temperature: PositiveFloat = 1.0
    floor: PositiveFloat = 1e-3

    def weights(self, width: int) -> dict[str, Shape]:
        return {"gate": (width,)}

    def saved(self, width: int) -> int:
        return 2 * width


class LaurelResidual(Residual):
    """(x + out + z + norm(W_2 W_1 z)) / sqrt(2), with W_1 to `rank` numbers and W_2 back.

    Source: arXiv 2411.07501 (LAuReL-LR); as in Gemma 3n.
    """

    kind: Literal["laurel"] = "laurel"
    rank: PositiveInt
    norm: Norm = RMSNorm()

    def weights(self, width: int) -> dict[str, Shape]:
        named = linear("down_proj", self.rank, width) | linear("up_proj", width, self.rank)
        return named | within("norm", self.norm.weights(width))

    def saved(self, width: int) -> int:
        return self.rank + width


if TYPE_CHECKING:
    AnyResidual = ScaledResidual | AffineResidual | LayerScale | GatedResidual | LaurelResidual
else:
    AnyResidual = one_of(ScaledResidual, AffineResidual, LayerScale, GatedResidual, LaurelResidual)
