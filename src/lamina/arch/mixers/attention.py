"""Softmax attention over keys and values of its own tokens."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from lamina.arch.base import Node
from lamina.arch.measure import Kept, Pairs, Shape, Work, linear, matrices, within
from lamina.arch.mixers.base import Mixer
from lamina.arch.mixers.block_indexer import BlockIndexer
from lamina.arch.mixers.pooled_indexer import PooledIndexer
from lamina.arch.norm import Norm, RMSNorm
from lamina.arch.position import Rotary


class QKNorm(Node):
    """A norm of queries and keys: of each head alone, or of all heads at once; before or after they are rotated.

    With `own` each head has weights of its own. Source: arXiv 2302.05442 (the idea); over "width" in OLMo 2, over
    "head" in Qwen3 and Gemma 3, with weights of their own in Command R+.
    """

    norm: Norm = RMSNorm()
    over: Literal["head", "width"] = "head"
    after_rotary: bool = False
    own: bool = False

    def weights(self, heads: int, kv_heads: int, head_dim: int) -> dict[str, Shape]:
        """Those of queries and keys; there is none of keys where there are no key heads."""
        one = self.over == "head" and not self.own
        q, k = (head_dim, head_dim) if one else (heads * head_dim, kv_heads * head_dim)
        of_keys = within("k_norm", self.norm.weights(k)) if kv_heads else {}
        return within("q_norm", self.norm.weights(q)) | of_keys

    def saved(self, heads: int, kv_heads: int, head_dim: int) -> int:
        """Numbers of each token that the backward pass needs, besides what attention saves."""
        if self.over == "head":
            return (heads + kv_heads) * self.norm.saved(head_dim)
        return sum(self.norm.saved(count * head_dim) for count in (heads, kv_heads) if count)


def check_groups(heads: int, kv_heads: int) -> None:
    if heads % kv_heads:
        raise ValueError(f"heads ({heads}) must be a multiple of kv_heads ({kv_heads})")


class LengthTemperature(Node):
    """Queries at position p times 1 + `scale` * ln(1 + floor((p + `first`) / `floor`)): sharper with length.

    `first` is what the first position counts as: 1 in Llama 4, 0 in Ministral 3 and Mistral 4. Without `steps` the
    factor is 1 + `scale` * ln(max(1, (p + `first`) / `floor`)) (Inkling). With `of` "scores", what is multiplied is
    a score after it was soft-capped (Grok 2).
    """

    floor: PositiveInt
    scale: PositiveFloat
    first: NonNegativeInt = 1
    steps: bool = True
    of: Literal["queries", "scores"] = "queries"


class Attention(Mixer):
    """Softmax attention with H query heads that share G key/value heads (MHA when G = H, MQA when G = 1).

    Fields: `window` is how many tokens a query sees, itself included; `chunk` lets it see those of its own chunk
    only; `softcap` squashes scores to cap * tanh(score / cap); `scale` multiplies q.k and is head_dim^-0.5 when
    None; `bias` is that of the q, k and v projections, `output_bias` that of the output projection; `value_dim`
    is the size of a value where it is not head_dim; `gate` multiplies the heads' output by a sigmoid (or another
    `gate_activation`) of the input, each number or each head, after an `output_norm` of each head's output; `sinks`
    adds a learned score a head to the softmax, for no token; `value_norm` is a norm of values and `value_scale`
    multiplies them; with `keys_as_values` there is no value projection; `kv_from` is the block whose keys and values
    are read, where a block has none of its own; `blocks` lets a query read the blocks (or pools) of keys that an
    indexer chooses for it.
    Source: arXiv 1706.03762, 2305.13245 (groups), 2004.05150 (windows), 2309.17453 (sinks), 2505.06708 (gate).
    """

    kind: Literal["attention"] = "attention"
    heads: PositiveInt
    kv_heads: PositiveInt
    head_dim: PositiveInt
    rotary: Rotary | None = None
    qk_norm: QKNorm | None = None
    window: PositiveInt | None = None
    softcap: PositiveFloat | None = None
    scale: PositiveFloat | None = None
    bias: bool = False
    output_bias: bool = False
    chunk: PositiveInt | None = None
    value_dim: PositiveInt | None = None
    gate: Literal["elementwise", "head"] | None = None
    sinks: bool = False
    temperature: LengthTemperature | None = None
    value_norm: Norm | None = None
    keys_as_values: bool = False
    kv_from: NonNegativeInt | None = None
    value_scale: PositiveFloat = 1.0
    blocks: BlockIndexer | PooledIndexer | None = None
    gate_activation: Literal["sigmoid", "softplus"] = "sigmoid"
    output_norm: Norm | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Attention:
        check_groups(self.heads, self.kv_heads)
        if self.rotary and self.rotary.dim > self.head_dim:
            raise ValueError(f"rotary.dim ({self.rotary.dim}) must not exceed head_dim ({self.head_dim})")
        if self.window and self.chunk:
            raise ValueError(f"a window ({self.window}) and a chunk ({self.chunk}) exclude each other")
        if self.keys_as_values and self.values != self.head_dim:
            raise ValueError(f"keys of {self.head_dim} numbers cannot be values of {self.values}")
        if self.blocks:
            self._check_blocks(self.blocks)
        return self

    def _check_blocks(self, blocks: BlockIndexer | PooledIndexer) -> None:
        if isinstance(blocks, BlockIndexer) and self.heads % blocks.heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of blocks.heads ({blocks.heads})")
        if self.window or self.chunk:
            raise ValueError("blocks exclude a window and a chunk")

    @property
    def source(self) -> int | None:
        return self.kv_from

    @property
    def values(self) -> int:
        """The size of a value."""
        return self.value_dim or self.head_dim

    def weights(self, width: int) -> dict[str, Shape]:
        q, out = self.heads * self.head_dim, self.heads * self.values
        own = self.kv_heads if self.kv_from is None else 0
        named = linear("q_proj", q, width, self.bias)
        if own:
            named |= linear("k_proj", own * self.head_dim, width, self.bias)
        if own and not self.keys_as_values:
            named |= linear("v_proj", own * self.values, width, self.bias)
        named |= linear("o_proj", width, out, self.output_bias)
        if self.gate:
            named |= linear("gate_proj", out if self.gate == "elementwise" else self.heads, width)
        if self.sinks:
            named |= {"sinks": (self.heads,)}
        if self.value_norm and own:
            named |= within("v_norm", self.value_norm.weights(self.values))
        if self.output_norm:
            named |= within("o_norm", self.output_norm.weights(self.values))
        if self.blocks:
            named |= within("indexer", self.blocks.weights(width))
        return named | (self.qk_norm.weights(self.heads, own, self.head_dim) if self.qk_norm else {})

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        token, scores = 2 * matrices(self.weights(width)), 2 * self.heads * (self.head_dim + self.values)
        if self.blocks is None:
            return Work(token, (Pairs(scores, self.window, self.chunk),))
        return Work(token, (Pairs(scores, self.blocks.reach), self.blocks.pairs()))

    def keeps(self, width: int) -> tuple[Kept, ...]:
        """Keys and values, of G (K + V) numbers a token, for as many tokens as a query can see."""
        index = self.blocks.keeps() if self.blocks else ()
        return (self._cached(), *index) if self.kv_from is None else index

    def borrows(self, width: int) -> tuple[Kept, ...]:
        return () if self.kv_from is None else (self._cached(),)

    def _cached(self) -> Kept:
        a_token = self.kv_heads * (self.head_dim + (0 if self.keys_as_values else self.values))
        kind = "window" if self.window else "chunk" if self.chunk else "full"
        return Kept(kind, a_token, window=self.window or self.chunk, read=self.blocks.reach if self.blocks else None)

    def saved(self, width: int) -> int:
        own = self.kv_heads if self.kv_from is None else 0
        q, k, v, out = self.heads * self.head_dim, own * self.head_dim, own * self.values, self.heads * self.values
        normed = self.qk_norm.saved(self.heads, own, self.head_dim) if self.qk_norm else 0
        normed += own * self.value_norm.saved(self.values) if self.value_norm else 0
        normed += self.heads * self.output_norm.saved(self.values) if self.output_norm else 0
        gate = 2 * out if self.gate == "elementwise" else self.heads + out if self.gate else 0
        return width + q + k + v + normed + out + self.heads + gate
