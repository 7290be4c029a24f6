"""Attention over a window of tokens and over entries that each stand for many tokens (DeepSeek-V4)."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt, model_validator

from lamina.arch.base import Node
from lamina.arch.measure import Kept, Pairs, Shape, Work, linear, matrices, within
from lamina.arch.mixers.base import Mixer
from lamina.arch.norm import Norm, RMSNorm
from lamina.arch.position import Rotary


class Compressor(Node):
    """One entry for every `stride` tokens: for each number, a mean of theirs, weighed by a softmax over the tokens.

    What is weighed and the weights' logits are two projections of each token; a learned bias of the logits says where
    in its run of `stride` tokens it stands. With `overlap` a token has two of each: one for the entry of its own run,
    one for the next, so that an entry is of 2 `stride` tokens. An entry is normalised, and rotated as the first token
    of its run; a query sees those of whole runs.
    Source: DeepSeek-V4 report, section 2.3.1 (overlapping) and 2.3.2, eq. 20 to 23.
    """

    stride: PositiveInt
    overlap: bool = False

    @property
    def series(self) -> int:
        """How many entries a token goes into."""
        return 2 if self.overlap else 1

    def weights(self, width: int, size: int, norm: Norm) -> dict[str, Shape]:
        """`size` is that of an entry."""
        rows = self.series * size
        made = linear("kv_proj", rows, width) | linear("weight_proj", rows, width)
        return made | {"position_bias": (self.stride, rows)} | within("kv_norm", norm.weights(size))

    def pending(self, size: int) -> int:
        """Numbers kept of entries still open: largest logit, sum of weights and weighed sum, of each of theirs."""
        return 3 * self.series * size


class EntryIndexer(Node):
    """Chooses for each query the `top_k` entries it may attend to, by a small attention without values.

    Its keys are entries of `head_dim` numbers from a compressor of its own; its queries come from the attention's
    query latent, and are rotated as the attention's are. Score of an entry: sum over heads of w_h relu(q_h . k), with
    w_h a map of the input. Source: DeepSeek-V4 report, section 2.3.1, eq. 13 to 17.
    """

    heads: PositiveInt
    head_dim: PositiveInt
    top_k: PositiveInt

    def weights(self, width: int, queries: int, compressor: Compressor, norm: Norm) -> dict[str, Shape]:
        """`queries` is the width of what its queries are made from."""
        made = linear("q_proj", self.heads * self.head_dim, queries) | linear("head_weights", self.heads, width)
        return made | within("compressor", compressor.weights(width, self.head_dim, norm))


class CompressedAttention(Mixer):
    """Softmax attention of H heads to one key that is the value too: of the last `window` tokens, and of entries.

    Queries pass a bottleneck of `query_latent` numbers, and each is normalised without a weight; keys are normalised
    with one. The last `rotary.dim` numbers of queries, keys and entries are rotated, and those of the output are
    turned back by the query's angle. A learned score a head stands for no token. The output of each of `output_groups`
    of heads goes to `output_rank` numbers, and all of those together to the width.

    Fields: `compressor` makes the entries, None for a window alone; `indexer` chooses among them.
    Source: DeepSeek-V4 report, section 2.3; arXiv 2309.17453 (the learned score).
    """

    kind: Literal["compressed_attention"] = "compressed_attention"
    heads: PositiveInt
    head_dim: PositiveInt
    query_latent: PositiveInt
    window: PositiveInt
    output_groups: PositiveInt
    output_rank: PositiveInt
    rotary: Rotary
    norm: Norm = RMSNorm()
    compressor: Compressor | None = None
    indexer: EntryIndexer | None = None

    @model_validator(mode="after")
    def _consistent(self) -> CompressedAttention:
        if self.heads % self.output_groups:
            raise ValueError(f"heads ({self.heads}) must be a multiple of output_groups ({self.output_groups})")
        least = min(self.head_dim, self.indexer.head_dim if self.indexer else self.head_dim)
        if self.rotary.dim > least:
            raise ValueError(f"rotary.dim ({self.rotary.dim}) must not exceed the size of a head ({least})")
        if self.indexer and not self.compressor:
            raise ValueError("an indexer chooses among the entries of a compressor, which is missing")
        return self

    def weights(self, width: int) -> dict[str, Shape]:
        out = self.heads * self.head_dim
        named = linear("q_a_proj", self.query_latent, width)
        named |= within("q_a_norm", self.norm.weights(self.query_latent)) | linear("q_b_proj", out, self.query_latent)
        named |= linear("kv_proj", self.head_dim, width) | within("kv_norm", self.norm.weights(self.head_dim))
        named |= linear("o_a_proj", self.output_groups * self.output_rank, out // self.output_groups)
        named |= linear("o_b_proj", width, self.output_groups * self.output_rank) | {"sinks": (self.heads,)}
        if self.compressor:
            named |= within("compressor", self.compressor.weights(width, self.head_dim, self.norm))
            if self.indexer:
                made = self.indexer.weights(width, self.query_latent, self.compressor, self.norm)
                named |= within("indexer", made)
        return named

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        """Each group of heads multiplies its own rows of o_a_proj. Scoring all entries costs an indexer's heads."""
        products = {name: shape for name, shape in self.weights(width).items() if "position_bias" not in name}
        pair = 4 * self.heads * self.head_dim
        pairs = (Pairs(pair, self.window),)
        if self.compressor:
            top_k = self.indexer.top_k if self.indexer else None
            pairs += (Pairs(pair, top_k, stride=self.compressor.stride),)
            if self.indexer:
                scores = 2 * self.indexer.heads * (self.indexer.head_dim + 1)  # weighing the heads is a product too
                pairs += (Pairs(scores, stride=self.compressor.stride),)
        return Work(2 * matrices(products), pairs)

    def keeps(self, width: int) -> tuple[Kept, ...]:
        """A key a token of the window, an entry every `stride` tokens, and the entries still open."""
        kept = (Kept("window", self.head_dim, window=self.window),)
        if not self.compressor:
            return kept
        stride, top_k = self.compressor.stride, self.indexer.top_k if self.indexer else None
        kept += (Kept("compressed", self.head_dim, stride=stride, read=top_k),)
        pending = self.compressor.pending(self.head_dim)
        if self.indexer:
            kept += (Kept("index", self.indexer.head_dim, stride=stride),)
            pending += self.compressor.pending(self.indexer.head_dim)
        return (*kept, Kept("compressed", pending, each="sequence", dtype="float32"))

    def saved(self, width: int) -> int:
        """Queries and keys before and after their norms, what the compressor weighs, and the output's way back."""
        out = self.heads * self.head_dim
        entries = 2 * self.compressor.series * self.head_dim if self.compressor else 0
        grouped = self.output_groups * self.output_rank
        return width + 2 * (self.query_latent + out + self.head_dim) + entries + out + self.heads + grouped
