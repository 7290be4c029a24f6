"""Mixers: what moves information from token to token."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat, PositiveInt, model_validator

from lamina.arch.base import Node, Op
from lamina.arch.feedforward import GLU
from lamina.arch.norm import Norm, RMSNorm
from lamina.arch.position import Rotary


class Mixer(Op):
    @property
    def role(self) -> str:
        return "mixer"


class QKNorm(Node):
    """A norm of queries and keys before they are rotated: of each head alone, or of all heads at once.

    Source: arXiv 2302.05442 (the idea); over "width" in OLMo 2, over "head" in Qwen3 and Gemma 3.
    """

    norm: Norm = RMSNorm()
    over: Literal["head", "width"] = "head"

    def parameters(self, heads: int, kv_heads: int, head_dim: int) -> int:
        if self.over == "head":
            return 2 * self.norm.parameters(head_dim)
        return self.norm.parameters(heads * head_dim) + self.norm.parameters(kv_heads * head_dim)


def _check_groups(heads: int, kv_heads: int) -> None:
    if heads % kv_heads:
        raise ValueError(f"heads ({heads}) must be a multiple of kv_heads ({kv_heads})")


class Attention(Mixer):
    """Softmax attention with H query heads that share G key/value heads (MHA when G = H, MQA when G = 1).

    Fields: `window` is how many tokens a query sees, itself included; `softcap` squashes scores to
    cap * tanh(score / cap); `scale` multiplies q.k and is head_dim^-0.5 when None; `bias` is that of the
    q, k and v projections, `output_bias` that of the output projection.
    Source: arXiv 1706.03762, 2305.13245 (groups), 2004.05150 (windows).
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

    @model_validator(mode="after")
    def _consistent(self) -> Attention:
        _check_groups(self.heads, self.kv_heads)
        if self.rotary and self.rotary.dim > self.head_dim:
            raise ValueError(f"rotary.dim ({self.rotary.dim}) must not exceed head_dim ({self.head_dim})")
        return self

    def parameters(self, width: int) -> int:
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        weights = width * (q + 2 * kv) + q * width
        biases = (q + 2 * kv if self.bias else 0) + (width if self.output_bias else 0)
        norms = self.qk_norm.parameters(self.heads, self.kv_heads, self.head_dim) if self.qk_norm else 0
        return weights + biases + norms

    def state_bytes(self, context: int, itemsize: int, memory: int = 0) -> int:
        """Keys and values, of 2 G K numbers a token, for as many tokens as a query can see."""
        kept = min(context, self.window) if self.window else context
        return kept * 2 * self.kv_heads * self.head_dim * itemsize

    def flops(self, width: int, tokens: int, context: int, memory: int = 0, causal: bool = True) -> int:
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        projections = tokens * 2 * (width * (q + 2 * kv) + q * width)
        pairs = seen(tokens, context, self.window) if causal else tokens * (context + tokens)
        return projections + 4 * q * pairs


class CrossAttention(Op):
    """Softmax attention whose keys and values come from a memory (image states) of width `memory_width`.

    No positions and no causal order: a token sees the whole memory, or what a mask allows.
    Source: arXiv 2204.14198 (Flamingo), 2407.21783 section 7 (Llama 3 vision).
    """

    kind: Literal["cross_attention"] = "cross_attention"
    heads: PositiveInt
    kv_heads: PositiveInt
    head_dim: PositiveInt
    memory_width: PositiveInt
    qk_norm: QKNorm | None = None

    @model_validator(mode="after")
    def _consistent(self) -> CrossAttention:
        _check_groups(self.heads, self.kv_heads)
        return self

    @property
    def role(self) -> str:
        return "cross_attention"

    def parameters(self, width: int) -> int:
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        norms = self.qk_norm.parameters(self.heads, self.kv_heads, self.head_dim) if self.qk_norm else 0
        return 2 * width * q + 2 * self.memory_width * kv + norms

    def state_bytes(self, context: int, itemsize: int, memory: int = 0) -> int:
        """Keys and values of the memory, computed once."""
        return memory * 2 * self.kv_heads * self.head_dim * itemsize

    def flops(self, width: int, tokens: int, context: int, memory: int = 0, causal: bool = True) -> int:
        """The memory's keys and values are counted with the first tokens (no context yet)."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        fill = 0 if context else memory * 4 * self.memory_width * kv
        return fill + tokens * (4 * width * q + 4 * q * memory)


class SequenceGLU(Mixer):
    """A GLU along the sequence instead of the width, for sequences of one fixed `length` (TRM's MLP variant).

    Source: arXiv 2510.04871; the idea is MLP-Mixer, arXiv 2105.01601.
    """

    kind: Literal["sequence_glu"] = "sequence_glu"
    length: PositiveInt
    glu: GLU

    def parameters(self, width: int) -> int:
        return self.glu.parameters(self.length)

    def flops(self, width: int, tokens: int, context: int, memory: int = 0, causal: bool = True) -> int:
        return self.glu.flops(self.length, width, 0)


def seen(tokens: int, context: int, window: int | None) -> int:
    """Pairs of a query and a key it sees: `tokens` causal queries after `context` earlier tokens.

    The query at position p sees min(p + 1, window) keys.
    """
    if window is None:
        return tokens * context + tokens * (tokens + 1) // 2
    growing = max(0, min(tokens, window - context))  # queries that still see everything before them
    return growing * context + growing * (growing + 1) // 2 + (tokens - growing) * window
