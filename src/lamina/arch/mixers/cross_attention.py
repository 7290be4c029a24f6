"""Softmax attention over a memory: image states that stand beside the text."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt, model_validator

from lamina.arch.base import Op
from lamina.arch.measure import Kept, Shape, Work, linear
from lamina.arch.mixers.attention import QKNorm, check_groups


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
        check_groups(self.heads, self.kv_heads)
        return self

    @property
    def role(self) -> str:
        return "cross_attention"

    def weights(self, width: int) -> dict[str, Shape]:
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        keys = linear("k_proj", kv, self.memory_width) | linear("v_proj", kv, self.memory_width)
        norms = self.qk_norm.weights(self.heads, self.kv_heads, self.head_dim) if self.qk_norm else {}
        return linear("q_proj", q, width) | keys | linear("o_proj", width, q) | norms

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        """The memory's keys and values are counted with the first tokens (no context yet)."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return Work(4 * width * q + 4 * q * memory, once=memory * 4 * self.memory_width * kv)

    def keeps(self, width: int) -> tuple[Kept, ...]:
        """Keys and values of the memory, computed once."""
        return (Kept("cross", 2 * self.kv_heads * self.head_dim, each="memory"),)

    def saved(self, width: int) -> int:
        q = self.heads * self.head_dim
        normed = self.qk_norm.saved(self.heads, 0, self.head_dim) if self.qk_norm else 0
        return width + 2 * q + self.heads + normed
