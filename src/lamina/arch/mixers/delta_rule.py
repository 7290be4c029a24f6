"""Linear attention with a delta rule: the state is a matrix that is corrected towards each new value."""

from __future__ import annotations

from typing import Literal

from pydantic import NegativeFloat, PositiveInt, model_validator

from lamina.arch.measure import CHUNK, Kept, Shape, Work, linear, matrices, within
from lamina.arch.mixers.base import Mixer
from lamina.arch.norm import Norm, RMSNorm


def delta_rule(key_heads: int, value_heads: int, key_dim: int, value_dim: int) -> Work:
    """Of the rule alone, with a state of K x V a value head.

    A token reads the state twice and writes it once, 6 K V. Of a chunk of n tokens there are also scores of keys
    with keys and of queries with keys (4 K n^2 a key head), a triangular system solved for values (V n^2), and scores
    times those (2 V n^2).
    Source: arXiv 2406.06484, section 3 (the chunked form), 2412.06464, eq. 10.
    """
    chunked = 4 * key_heads * key_dim + 3 * value_heads * value_dim
    return Work(6 * value_heads * key_dim * value_dim, chunked=chunked)


class DeltaNet(Mixer):
    """S <- S + b k (v - S^T k)^T; o = S^T q, with a step `b` a head and token: nothing fades.

    A short convolution runs over q, k and v, and a SiLU over v and, as its `activation` says, over q and k; then q and
    k are made of one length and q is times K^-0.5. b is the sigmoid of a projection of the input. The output is
    normalised a head, then times `gate` of a projection.

    Fields: `convolution` None is none; `activation` "elu" is elu + 1, None the identity; `unit` says what of q and of k
    is one, the "length" or the "sum" of its sizes; without a `learned_step` b is 1; with `negative_eigenvalues` it is
    doubled (arXiv 2411.12537).
    Source: arXiv 2406.06484; 2102.11174, eq. 24.
    """

    kind: Literal["deltanet"] = "deltanet"
    heads: PositiveInt
    key_dim: PositiveInt
    value_dim: PositiveInt
    convolution: PositiveInt | None = 4
    activation: Literal["silu", "relu", "elu"] | None = "silu"
    unit: Literal["length", "sum"] = "length"
    learned_step: bool = True
    norm: Norm = RMSNorm()
    gate: Literal["silu", "sigmoid"] | None = None
    negative_eigenvalues: bool = False

    @property
    def channels(self) -> int:
        """Of queries, keys and values together."""
        return self.heads * (2 * self.key_dim + self.value_dim)

    def weights(self, width: int) -> dict[str, Shape]:
        keys, values = self.heads * self.key_dim, self.heads * self.value_dim
        named = linear("q_proj", keys, width) | linear("k_proj", keys, width) | linear("v_proj", values, width)
        named |= {"convolution.weight": (self.channels, 1, self.convolution)} if self.convolution else {}
        named |= linear("step_proj", self.heads, width) if self.learned_step else {}
        named |= linear("gate_proj", values, width) if self.gate else {}
        return named | within("norm", self.norm.weights(self.value_dim)) | linear("o_proj", width, values)

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        rule = delta_rule(self.heads, self.heads, self.key_dim, self.value_dim)
        others = 2 * matrices(self.weights(width)) + 2 * self.channels * (self.convolution or 0)
        return rule._replace(token=rule.token + others)

    def keeps(self, width: int) -> tuple[Kept, ...]:
        """A K x V matrix a head in float32, and the convolution's last inputs; the same at any length."""
        matrix = Kept("recurrent", self.heads * self.key_dim * self.value_dim, each="sequence", dtype="float32")
        if self.convolution is None:
            return (matrix,)
        return (matrix, Kept("convolution", self.channels * (self.convolution - 1), each="sequence"))

    def saved(self, width: int) -> int:
        values = self.heads * self.value_dim
        states = self.heads * self.key_dim * self.value_dim // CHUNK  # one for every chunk
        gates, steps = 2 * values if self.gate else 0, 2 * self.heads if self.learned_step else 0
        return width + 3 * self.channels + 2 * values + gates + steps + states


class GatedDeltaNet(Mixer):
    """S <- a S + b k (v - (a S)^T k)^T; o = S^T q, with a decay `a` and a step `b` a value head and token.

    H key heads serve a multiple of them in value heads. A short convolution and a SiLU run over q, k and v, then q
    and k are made unit vectors and q is times K^-0.5. b is the sigmoid of a projection of the input, a is
    exp(-rate softplus(projection + bias)). The output is normalised a head, then times `gate` of a projection.

    Fields: with `negative_eigenvalues` the step is doubled, so that it reaches 2 (arXiv 2411.12537).
    Source: arXiv 2412.06464, eq. 10; as in Qwen3-Next.
    """

    kind: Literal["gated_deltanet"] = "gated_deltanet"
    key_heads: PositiveInt
    value_heads: PositiveInt
    key_dim: PositiveInt
    value_dim: PositiveInt
    convolution: PositiveInt = 4
    norm: Norm = RMSNorm()
    gate: Literal["silu", "sigmoid"] | None = "silu"
    negative_eigenvalues: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> GatedDeltaNet:
        if self.value_heads % self.key_heads:
            raise ValueError(f"value_heads ({self.value_heads}) must be a multiple of key_heads ({self.key_heads})")
        return self

    @property
    def channels(self) -> int:
        """Of queries, keys and values together, which the convolution runs over."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim

    def weights(self, width: int) -> dict[str, Shape]:
        keys, values = self.key_heads * self.key_dim, self.value_heads * self.value_dim
        named = linear("q_proj", keys, width) | linear("k_proj", keys, width) | linear("v_proj", values, width)
        named |= {"convolution.weight": (self.channels, 1, self.convolution)}
        named |= linear("step_proj", self.value_heads, width) | linear("decay_proj", self.value_heads, width)
        named |= {"decay_log_rate": (self.value_heads,), "decay_bias": (self.value_heads,)}
        named |= linear("gate_proj", values, width) if self.gate else {}
        return named | within("norm", self.norm.weights(self.value_dim)) | linear("o_proj", width, values)

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        rule = delta_rule(self.key_heads, self.value_heads, self.key_dim, self.value_dim)
        others = 2 * matrices(self.weights(width)) + 2 * self.channels * self.convolution
        return rule._replace(token=rule.token + others)

    def keeps(self, width: int) -> tuple[Kept, ...]:
        """A K x V matrix a value head in float32, and the convolution's last inputs; the same at any length."""
        matrix = self.value_heads * self.key_dim * self.value_dim
        tail = self.channels * (self.convolution - 1)
        return (
            Kept("recurrent", matrix, each="sequence", dtype="float32"),
            Kept("convolution", tail, each="sequence"),
        )

    def saved(self, width: int) -> int:
        values = self.value_heads * self.value_dim
        states = self.value_heads * self.key_dim * self.value_dim // CHUNK  # one for every chunk
        gates = 2 * values if self.gate else 0
        return width + 3 * self.channels + 4 * self.value_heads + 2 * values + gates + states


class KimiDeltaAttention(Mixer):
    """A gated delta rule whose decay is a vector: each of the K rows of a head's state has its own.

    As Gated DeltaNet otherwise, with as many key as value heads. The decay's logarithm is -rate softplus(x + bias)
    with one rate a head and one bias a row, or with a `decay_floor` that times sigmoid(rate (x + bias)), which never
    falls below it. The output, normalised a head, is times a sigmoid of the gate.

    Fields: x and the gate are projections of the input, through bottlenecks of `decay_rank` and `gate_rank`; None is
    a full matrix; `gate_bias` is that of the gate.
    Source: arXiv 2510.26692 (Kimi Linear), eq. 1; arXiv 2607.24653 (Kimi K3; the floor).
    """

    kind: Literal["kimi_delta_attention"] = "kimi_delta_attention"
    heads: PositiveInt
    key_dim: PositiveInt
    value_dim: PositiveInt
    convolution: PositiveInt = 4
    decay_rank: PositiveInt | None
    gate_rank: PositiveInt | None
    gate_bias: bool = False
    decay_floor: NegativeFloat | None = None
    norm: Norm = RMSNorm()

    @property
    def channels(self) -> int:
        return self.heads * (2 * self.key_dim + self.value_dim)

    def weights(self, width: int) -> dict[str, Shape]:
        keys, values = self.heads * self.key_dim, self.heads * self.value_dim
        named = linear("q_proj", keys, width) | linear("k_proj", keys, width) | linear("v_proj", values, width)
        named |= {"convolution.weight": (self.channels, 1, self.convolution)}
        named |= linear("step_proj", self.heads, width)
        named |= _bottleneck("decay", keys, width, self.decay_rank)
        named |= {"decay_log_rate": (self.heads,), "decay_bias": (keys,)}
        named |= _bottleneck("gate", values, width, self.gate_rank, self.gate_bias)
        return named | within("norm", self.norm.weights(self.value_dim)) | linear("o_proj", width, values)

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        """Scores are of each two tokens once (2 K n^2 a head, where one decay a head makes them of full squares)."""
        rule = delta_rule(self.heads, self.heads, self.key_dim, self.value_dim)
        rule = rule._replace(chunked=rule.chunked - 2 * self.heads * self.key_dim)
        others = 2 * matrices(self.weights(width)) + 2 * self.channels * self.convolution
        return rule._replace(token=rule.token + others)

    def keeps(self, width: int) -> tuple[Kept, ...]:
        """As Gated DeltaNet: a K x V matrix a head in float32, and the convolution's last inputs."""
        tail = self.channels * (self.convolution - 1)
        return (
            Kept("recurrent", self.heads * self.key_dim * self.value_dim, each="sequence", dtype="float32"),
            Kept("convolution", tail, each="sequence"),
        )

    def saved(self, width: int) -> int:
        keys, values = self.heads * self.key_dim, self.heads * self.value_dim
        states = self.heads * self.key_dim * self.value_dim // CHUNK
        ranks = (self.decay_rank or 0) + (self.gate_rank or 0)
        return width + 3 * self.channels + 2 * keys + ranks + 2 * self.heads + 4 * values + states


def _bottleneck(name: str, rows: int, width: int, rank: int | None, bias: bool = False) -> dict[str, Shape]:
    """A map to `rows` numbers through `rank` ones, or straight."""
    if rank is None:
        return linear(f"{name}_proj", rows, width, bias)
    return linear(f"{name}_a_proj", rank, width) | linear(f"{name}_b_proj", rows, rank, bias)
