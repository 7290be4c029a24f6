"""A feed-forward turned along the sequence, so that it mixes tokens."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from lamina.arch.feedforward import GLU
from lamina.arch.measure import Shape, Work, matrices, within
from lamina.arch.mixers.base import Mixer


class SequenceGLU(Mixer):
    """A GLU along the sequence instead of the width, for sequences of one fixed `length` (TRM's MLP variant).

    Source: arXiv 2510.04871; the idea is MLP-Mixer, arXiv 2105.01601.
    """

    kind: Literal["sequence_glu"] = "sequence_glu"
    length: PositiveInt
    glu: GLU

    def weights(self, width: int) -> dict[str, Shape]:
        return within("glu", self.glu.weights(self.length))

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        """Each channel is a row of products; shared out over the tokens of the fixed length, and so counted once."""
        return Work(0, once=2 * width * matrices(self.weights(width)))

    def saved(self, width: int) -> int:
        return -(-width * self.glu.saved(self.length) // self.length)
