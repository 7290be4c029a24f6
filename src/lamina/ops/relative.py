"""Scores of distances: what a learned vector for each distance adds to the score of a key."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Distances:
    """Adds r . p_d to the score of a key d tokens before a query with the state r, for d from 0 to E - 1.

    Shapes: states [B H T R]; vectors [R E]; queries [Q T] and keys [Q S] are positions, Q being 1 or B
    Source: arXiv 1803.02155, section 3.2 (the idea); as in Inkling.
    """

    states: Float[Tensor, "B H T R"]
    vectors: Float[Tensor, "R E"]
    queries: Int[Tensor, "Q T"]
    keys: Int[Tensor, "Q S"]

    def scores(self, rows: slice, columns: slice) -> Float[Tensor, "B H t s"]:
        """Those of some queries and keys; every distance is scored once a query, whatever keys there are."""
        scores = self.states[:, :, rows] @ self.vectors
        far = self.queries[:, rows, None] - self.keys[:, None, columns]
        within = ((far >= 0) & (far < scores.shape[-1]))[:, None]
        places = far.clamp(0, scores.shape[-1] - 1)[:, None].expand(*scores.shape[:2], -1, -1)
        return scores.gather(-1, places).masked_fill(~within, 0.0)

    def scores_reference(self) -> Float[Tensor, "B H T S"]:
        """The obvious twin of `scores`, of all queries and keys: one by one."""
        batch, heads, tokens, _ = self.states.shape
        out = torch.zeros(batch, heads, tokens, self.keys.shape[1], dtype=self.states.dtype)
        for b in range(batch):
            queries, keys = (part[b if len(part) > 1 else 0].tolist() for part in (self.queries, self.keys))
            for t, query in enumerate(queries):
                for s, key in enumerate(keys):
                    if 0 <= query - key < self.vectors.shape[1]:
                        out[b, :, t, s] = self.states[b, :, t] @ self.vectors[:, query - key]
        return out
