"""Fields of a shared transformer that change a model."""

from __future__ import annotations

from typing import Any

from lamina.arch import GLU, Attention, Branch, LayerNorm, RMSNorm, SharedTransformer

RMS = RMSNorm(eps=1e-3)
SELF = Attention(heads=4, kv_heads=2, head_dim=6)
ASIDE = SharedTransformer(attention=SELF, feed_forward=GLU(inner=7), norm=RMS)
BRANCH = Branch(op=SELF, before=RMS)
USED: list[tuple[Any, dict[str, Any]]] = [
    (BRANCH, {"aside": ASIDE}),
    (ASIDE, {"attention": SELF.replace(scale=0.9), "feed_forward": GLU(inner=5), "norm": LayerNorm(eps=1e-3)}),
    (ASIDE, {"attention_rank": 3, "feed_forward_rank": 3}),
]
ELSEWHERE = {(SharedTransformer, "same_as"): "reads an earlier block: tests/nn/test_shared_transformer.py"}
HOLDING = {SharedTransformer: lambda part: BRANCH.replace(aside=part)}
