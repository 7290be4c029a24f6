"""Multi-head latent attention (MLA), and the indexer that makes it sparse."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from lamina.arch.base import Node
from lamina.arch.measure import Kept, Orders, Pairs, Shape, Work, linear, matrices, within
from lamina.arch.mixers.attention import LengthTemperature
from lamina.arch.mixers.base import Mixer
from lamina.arch.norm import LayerNorm, Norm, RMSNorm
from lamina.arch.position import Rotary


class LearnedTemperature(Node):
    """Queries of head h at position p times scale_h ln(p + 1) + bias_h, both learned (Mistral Large 4)."""

    kind: Literal["learned_temperature"] = "learned_temperature"

    def weights(self, heads: int) -> dict[str, Shape]:
        return {"temperature.scale": (heads,), "temperature.bias": (heads,)}


class KeyPool(Node):
    """Keys drawn together: one for each `size` whole tokens, a mean weighted in every channel.

    The weights are a softmax over those tokens of a map of their inputs plus a learned bias of each place. With
    `tail`, the tokens after the last whole pool are always attended to; without, never. Source: GLM-5.3-Flash.
    """

    size: PositiveInt
    tail: bool = True

    @property
    def longest_tail(self) -> int:
        return self.size - 1 if self.tail else 0


class Indexer(Node):
    """A small attention without values that chooses, for each query, the `top_k` tokens it may attend to.

    Score of a key: sum over heads of w_h relu(q_h . k), with one key of `head_dim` a token; w_h is a map of the
    input. Any constant factor is left out, since only the order of the scores counts.

    Fields: the first dimensions of queries and keys are rotated, or the last (`rotated`); `norm` is that of the
    keys; queries are made from the attention's query latent, or from its input where there is none, normalised by
    `query_norm`; with a `pool`, what is chosen is pools of tokens, `top_k` tokens in all; one that is `shared` takes
    the choice of the last indexer before it, and learns and keeps nothing.
    Source: DeepSeek-V3.2 report, arXiv 2512.02556, eq. 1; arXiv 2603.12201 (choices taken over).
    """

    heads: PositiveInt
    head_dim: PositiveInt
    top_k: PositiveInt
    rotary: Rotary | None = None
    norm: Norm | None = LayerNorm(eps=1e-6)
    query_norm: Norm | None = None
    temperature: LearnedTemperature | None = None
    pool: KeyPool | None = None
    shared: bool = False
    rotated: Literal["first", "last"] = "first"

    @model_validator(mode="after")
    def _consistent(self) -> Indexer:
        if self.rotary and self.rotary.dim > self.head_dim:
            raise ValueError(f"rotary.dim ({self.rotary.dim}) must not exceed head_dim ({self.head_dim})")
        if self.pool and self.top_k % self.pool.size:
            raise ValueError(f"top_k ({self.top_k}) must be a multiple of pool.size ({self.pool.size})")
        return self

    @property
    def chosen(self) -> int:
        """Tokens that a query attends to, at most."""
        return self.top_k + (self.pool.longest_tail if self.pool else 0)

    def weights(self, width: int, query_latent: int | None) -> dict[str, Shape]:
        if self.shared:
            return {}
        queries = query_latent or width
        named = within("q_input_norm", self.query_norm.weights(queries)) if self.query_norm else {}
        named |= linear("q_proj", self.heads * self.head_dim, queries) | linear("k_proj", self.head_dim, width)
        named |= within("k_norm", self.norm.weights(self.head_dim)) if self.norm else {}
        named |= linear("head_weights", self.heads, width)
        named |= self.temperature.weights(self.heads) if self.temperature else {}
        if self.pool:
            named |= linear("pool_proj", self.head_dim, width) | {"pool_bias": (self.pool.size, self.head_dim)}
        return named

    def pairs(self) -> tuple[Pairs, ...]:
        """Scores of every key, and their sum over heads; none of a query that sees no more than it may choose."""
        if self.shared:
            return ()
        stride = self.pool.size if self.pool else 1
        return (Pairs(2 * self.heads * (self.head_dim + 1), stride=stride, after=self.chosen),)

    def keeps(self) -> tuple[Kept, ...]:
        """One key a token or a pool; room for an unfinished pool: its tokens' keys and what weighs them."""
        if self.shared:
            return ()
        if self.pool is None:
            return (Kept("index", self.head_dim),)
        unfinished = Kept("index", 2 * self.head_dim * (self.pool.size - 1), each="sequence")
        return (Kept("index", self.head_dim, stride=self.pool.size), unfinished)


class LatentAttention(Mixer):
    """Attention whose keys and values are made from one latent vector of `latent` (R) numbers a token.

    Only the latent, and one rotated key of `rotary_dim` numbers that all heads share, is kept of a token. Decoding
    absorbs the up-projection into queries and output, and attends to the latent itself.

    Fields: `query_latent` is the rank of the queries' own bottleneck, None for a plain projection; a head's query
    and key have `plain_dim` numbers without positions, then `rotary_dim` with (left unrotated where `rotary` is
    None); `value_dim` is the size of a value; `norm` normalises both latents; `scale` multiplies q.k and is
    head_dim^-0.5 when None; `query_scale` multiplies queries, `latent_scale` the normalised latent; `gate` is a
    sigmoid of the input on the heads' output; `bias` is that of the projections to latents and of the output's;
    `kv_from` is the block whose latents and shared keys are read, where a block has none of its own (it expands
    them by itself); `sinks` adds a learned score a head to the softmax, for no token.
    Source: arXiv 2405.04434, section 2.1; arXiv 2412.19437.
    """

    kind: Literal["latent_attention"] = "latent_attention"
    heads: PositiveInt
    latent: PositiveInt
    query_latent: PositiveInt | None = None
    plain_dim: PositiveInt
    rotary_dim: NonNegativeInt
    value_dim: PositiveInt
    rotary: Rotary | None = None
    norm: Norm = RMSNorm()
    scale: PositiveFloat | None = None
    query_scale: PositiveFloat = 1.0
    latent_scale: PositiveFloat = 1.0
    gate: Literal["elementwise", "head"] | None = None
    bias: bool = False
    indexer: Indexer | None = None
    temperature: LengthTemperature | LearnedTemperature | None = None
    kv_from: NonNegativeInt | None = None
    sinks: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> LatentAttention:
        if self.rotary and self.rotary.dim != self.rotary_dim:
            raise ValueError(f"rotary.dim ({self.rotary.dim}) must equal rotary_dim ({self.rotary_dim})")
        return self

    @property
    def source(self) -> int | None:
        return self.kv_from

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
        if self.kv_from is None:
            named |= linear("kv_a_proj", self.latent + self.rotary_dim, width, self.bias)
            named |= within("kv_a_norm", self.norm.weights(self.latent))
        named |= linear("kv_b_proj", self.heads * (self.plain_dim + self.value_dim), self.latent)
        named |= linear("o_proj", width, out, self.bias)
        if self.gate:
            named |= linear("gate_proj", out if self.gate == "elementwise" else self.heads, width)
        if self.sinks:
            named |= {"sinks": (self.heads,)}
        if isinstance(self.temperature, LearnedTemperature):
            named |= self.temperature.weights(self.heads)
        if self.indexer:
            named |= within("indexer", self.indexer.weights(width, self.query_latent))
        return named

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        """Keys and values are expanded, or the expansion is absorbed, whichever takes fewer FLOPs.

        Expanded, each token that is seen is multiplied by both matrices of a head (2 R (P + V) FLOPs). Absorbed, a head
        turns each new query into the latent space (2 P R), scores R + rotary_dim numbers of each key, sums latents, and
        turns the sum into a value (2 R V). A prompt is expanded; one token after others, or a few, absorb. A query
        that sees more than an indexer chooses is always absorbed: the chosen rows alone are fetched for it.
        """
        aside = ("pool_bias", "kv_b_proj.weight")
        products = {name: shape for name, shape in self.weights(width).items() if not name.endswith(aside)}
        expansion = 2 * self.heads * self.latent * (self.plain_dim + self.value_dim)
        absorbed = 2 * self.heads * (self.latent * 2 + self.rotary_dim)
        expanded = 2 * self.heads * (self.head_dim + self.value_dim)
        chosen = self.indexer.chosen if self.indexer else None
        orders = (Orders(expansion, absorbed, expansion, expanded, until=chosen),)
        pairs = (Pairs(absorbed, chosen, after=chosen), *self.indexer.pairs()) if self.indexer and chosen else ()
        return Work(2 * matrices(products), pairs, orders=orders)

    def keeps(self, width: int) -> tuple[Kept, ...]:
        """R + rotary_dim numbers a token, whatever the number of heads."""
        index = self.indexer.keeps() if self.indexer else ()
        return index if self.kv_from is not None else (self._cached(), *index)

    def borrows(self, width: int) -> tuple[Kept, ...]:
        return () if self.kv_from is None else (self._cached(),)

    def _cached(self) -> Kept:
        read = self.indexer.chosen if self.indexer else None
        return Kept("latent", self.latent + self.rotary_dim, read=read)

    def saved(self, width: int) -> int:
        """The indexer saves nothing: no gradient of the model's loss goes through a choice."""
        q, kv = self.heads * self.head_dim, self.heads * (self.head_dim + self.value_dim)
        latents = 2 * ((self.query_latent or 0) + self.latent) + self.rotary_dim
        out = self.heads * self.value_dim
        gate = 2 * out if self.gate == "elementwise" else self.heads + out if self.gate else 0
        return width + latents + q + kv + out + self.heads + gate
