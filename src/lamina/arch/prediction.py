"""Heads that predict tokens after the next."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lamina.arch.base import Node
from lamina.arch.block import Block
from lamina.arch.measure import Shape, linear, within
from lamina.arch.norm import Norm, RMSNorm


class Prediction(Node):
    """One head for each further token: a block that reads what came before it, and a token that came later.

    Head d (from 1) makes, of what the head before gave at a place (the first: what the model's last norm gave) and of
    the embedding of the token d places later, h = block(W [norm(embedding); norm(before)]), and predicts the token
    d + 1 places later with the model's own head, after a norm of its own. Embedding and head are the model's. With
    `first` "hidden", what came before is the first half of what W reads. No total of the model counts the heads.
    Source: arXiv 2412.19437, section 2.2 (DeepSeek-V3).
    """

    blocks: Annotated[tuple[Block, ...], Field(min_length=1)]
    norm: Norm = RMSNorm()
    first: Literal["embedding", "hidden"] = "embedding"

    def head_weights(self, width: int) -> dict[str, Shape]:
        """Of one head, without its block."""
        named = linear("joining", width, 2 * width)
        for place in ("embedding_norm", "hidden_norm", "norm"):
            named |= within(place, self.norm.weights(width))
        return named
