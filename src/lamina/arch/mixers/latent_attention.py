"""Multi-head latent attention (MLA), and the indexer that makes it sparse."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat, PositiveInt, model_validator

from lamina.arch.base import Node
from lamina.arch.measure import Kept, Pairs, Shape, Work, linear, matrices, within
from lamina.arch.mixers.base import Mixer
from lamina.arch.norm import LayerNorm, Norm, RMSNorm
from lamina.arch.position import Rotary


class Indexer(Node):
    """A small attention without values that chooses, for each query, the `top_k` keys it may attend to.

    Score of a key: sum over heads of w_h relu(q_h . k), with one key of `head_dim` a token.
    `shared` indexers have no weights and take the choice of the block before (GLM-5.2).
    Source: DeepSeek-V3.2 report, arXiv 2512.02556, eq. 1 (lightning indexer).
    """

    heads: PositiveInt
    head_dim: PositiveInt
    top_k: PositiveInt
    rotary: Rotary | None = None
    norm: Norm | None = LayerNorm()

    def weights(self, width: int, queries: int) -> dict[str, Shape]:
        """`queries` is the width of what its queries are made from."""
        made = linear("q_proj", self.heads * self.head_dim, queries) | linear("k_proj", self.head_dim, width)
        norms = within("k_norm", self.norm.weights(self.head_dim)) if self.norm else {}
        return made | norms | linear("head_weights", self.heads, width)


class LatentAttention(Mixer):
    """Attention whose keys and values are made from one latent vector of `latent` (R) numbers a token.

    Only the latent, and one rotated key of `rotary_dim` numbers that all heads share, is kept of a token. Decoding
    absorbs the up-projection into queries and output, and attends to the latent itself.

    Fields: `query_latent` is the rank of the queries' own bottleneck, None for a plain projection; a head's key
    has `plain_dim` numbers without positions and `rotary_dim` with; `value_dim` is the size of a value; `norm`
    normalises both latents; `gate` is a sigmoid of the input on the heads' output.
    Source: arXiv 2405.04434, section 2.1; arXiv 2412.19437.
    """

    kind: Literal["latent_attention"] = "latent_attention"
    heads: PositiveInt
    latent: PositiveInt
    query_latent: PositiveInt | None = None
    plain_dim: PositiveInt
    rotary_dim: PositiveInt
    value_dim: PositiveInt
    rotary: Rotary | None = None
    norm: Norm = RMSNorm()
    scale: PositiveFloat | None = None
    query_scale: PositiveFloat = 1.0
    latent_scale: PositiveFloat = 1.0
    gate: Literal["elementwise", "head"] | None = None
    bias: bool = False
    indexer: Indexer | None = None

    @model_validator(mode="after")
    def _consistent(self) -> LatentAttention:
        if self.rotary and self.rotary.dim != self.rotary_dim:
            raise ValueError(f"rotary.dim ({self.rotary.dim}) must equal rotary_dim ({self.rotary_dim})")
        return self

    @property
    def head_dim(self) -> int:
        """The size of a query or a key."""
        return self.plain_dim + self.rotary_dim

    def weights(self, width: int) -> dict[str, Shape]:
        q, out = self.heads * self.head_dim, self.heads * self.value_dim
        if self.query_latent:
            named = linear("q_a_proj", self.query_latent, width, self.bias)
            named |= within("q_a_norm", self.norm.weights(self.query_latent))
            named |= linear("q_b_proj", q, self.query_latent)
        else:
            named = linear("q_proj", q, width)
        named |= linear("kv_a_proj", self.latent + self.rotary_dim, width, self.bias)
        named |= within("kv_a_norm", self.norm.weights(self.latent))
        named |= linear("kv_b_proj", self.heads * (self.plain_dim + self.value_dim), self.latent)
        named |= linear("o_proj", width, out, self.bias)
        if self.gate:
            named |= linear("gate_proj", out if self.gate == "elementwise" else self.heads, width)
        if self.indexer:
            named |= within("indexer", self.indexer.weights(width, self.query_latent or width))
        return named

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        """A prompt expands the latent into keys and values; one more token absorbs the expansion instead.

        Absorbed, a head turns its query into the latent space (2 P R FLOPs), scores R + rotary_dim numbers of each
        key, sums latents, and turns the sum into a value (2 R V): together what expanding one token costs.
        """
        token = 2 * matrices(self.weights(width))
        a_pair = self.latent * 2 + self.rotary_dim if decoding else self.head_dim + self.value_dim
        chosen = Pairs(2 * self.heads * a_pair, self.indexer.top_k if self.indexer else None)
        if self.indexer is None:
            return Work(token, (chosen,))
        return Work(token, (chosen, Pairs(2 * self.indexer.heads * self.indexer.head_dim)))

    def keeps(self, width: int) -> tuple[Kept, ...]:
        """R + rotary_dim numbers a token, whatever the number of heads."""
        top_k = self.indexer.top_k if self.indexer else None
        latent = Kept("latent", self.latent + self.rotary_dim, read=top_k)
        return (latent, Kept("index", self.indexer.head_dim)) if self.indexer else (latent,)

    def saved(self, width: int) -> int:
        q, kv = self.heads * self.head_dim, self.heads * (self.head_dim + self.value_dim)
        latents = 2 * ((self.query_latent or 0) + self.latent) + self.rotary_dim
        out = self.heads * self.value_dim
        gate = 2 * out if self.gate == "elementwise" else self.heads + out if self.gate else 0
        return width + latents + q + kv + out + self.heads + gate
