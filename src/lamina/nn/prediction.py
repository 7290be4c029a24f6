"""Heads for later tokens: each a block that reads what came before it, and a token that came later."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.block import Block as BlockValue
from lamina.arch.prediction import Prediction as PredictionValue
from lamina.nn.basic import Linear, norm
from lamina.nn.block import Block
from lamina.nn.registry import Place, reads
from lamina.nn.step import Step

reads(PredictionValue, "blocks norm first")


class PredictionHead(nn.Module):
    """block(W [norm(embedding); norm(before)]), and the norm of what the model's head reads of it.

    Shapes: before, embedded [B T D] -> [B T D]
    """

    def __init__(self, value: PredictionValue, block: BlockValue, width: int, place: Place) -> None:
        super().__init__()
        self.embedding_first = value.first == "embedding"
        self.embedding_norm, self.hidden_norm = norm(value.norm, width), norm(value.norm, width)
        self.joining = Linear(2 * width, width)
        self.block = Block(block, width, place)
        self.norm = norm(value.norm, width)

    def forward(
        self, before: Float[Tensor, "B T D"], embedded: Float[Tensor, "B T D"], step: Step
    ) -> Float[Tensor, "B T D"]:
        assert self.embedding_norm is not None
        assert self.hidden_norm is not None
        parts = self.embedding_norm(embedded), self.hidden_norm(before)
        return self.block(self.joining(torch.cat(parts if self.embedding_first else parts[::-1], -1)), step)


def heads(value: PredictionValue, width: int) -> nn.ModuleList:
    """The modules of all heads; each numbers its states from zero, for it keeps a state of its own."""
    return nn.ModuleList(PredictionHead(value, block, width, Place()) for block in value.blocks)
