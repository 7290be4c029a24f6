"""Embeddings of the last few tokens together."""

from __future__ import annotations

from pydantic import PositiveInt, model_validator

from lamina.arch.base import Node
from lamina.arch.measure import Shape, linear, matrices, numbers


class NgramTables(Node):
    """Vectors of a token with those before it, found by a hash, and averaged with the token's own.

    For every length from 2 to `longest`, `tables` tables hold vectors of D / (tables (longest - 1)) numbers, each
    with a projection to D. Table i, counted over all, has `rows` + 2 i + 1 rows; the row is the number that the
    tokens are the digits of, to the base of the vocabulary and the latest last, modulo that. What the projections
    give and the token's own vector are added, and divided by how many they are. Nothing before an end of text counts.
    Source: arXiv 2601.21204 (LongCat-Flash-Lite).
    """

    longest: PositiveInt
    tables: PositiveInt
    rows: PositiveInt

    @model_validator(mode="after")
    def _consistent(self) -> NgramTables:
        if self.longest < 2:
            raise ValueError(f"longest ({self.longest}) must be 2 at least: single tokens have the token table")
        return self

    @property
    def count(self) -> int:
        """How many tables there are."""
        return self.tables * (self.longest - 1)

    def weights(self, width: int) -> dict[str, Shape]:
        each = width // self.count
        tables = {f"tables.{i}": (self.rows + 2 * i + 1, each) for i in range(self.count)}
        return tables | self._projections(width)

    def _projections(self, width: int) -> dict[str, Shape]:
        return {
            k: v for i in range(self.count) for k, v in linear(f"projections.{i}", width, width // self.count).items()
        }

    def unused(self, width: int) -> int:
        """A token reads one row of each table."""
        projections = numbers(self._projections(width).values())
        return numbers(self.weights(width).values()) - projections - self.count * (width // self.count)

    def flops(self, width: int) -> int:
        return 2 * matrices(self._projections(width))
