"""Fields of lightning attention, and of linear attention in other kinds, that change a model."""

from __future__ import annotations

from typing import Any

from lamina.arch import (
    Architecture,
    Block,
    Branch,
    Embedding,
    GatedLinearAttention,
    LightningAttention,
    LinearAttention,
    Retention,
    RMSNorm,
    Rotary,
)

EPS = RMSNorm(eps=1e-3)
LIGHTNING = LightningAttention(heads=6, head_dim=6, norm=RMSNorm(eps=3.0))
SUMMED = LinearAttention(heads=3, key_dim=6, value_dim=5)
RETENTION = Retention(heads=3, key_dim=6, value_dim=5, rotary=Rotary(dim=4, base=100.0))
GATED = GatedLinearAttention(heads=3, key_dim=6, value_dim=5, decay_rank=4)


def _deep(op: Any) -> Architecture:
    """Three blocks of it, so that depth counts."""
    block = Block(branches=(Branch(op=op, before=EPS),))
    return Architecture(family="minimax", embedding=Embedding(vocab=31, width=12), blocks=(block,) * 3, norm=EPS)


USED: list[tuple[Any, dict[str, Any]]] = [
    (LIGHTNING, {"heads": 3, "head_dim": 4, "activation": None, "rates": "powers", "scale": 0.5, "qk_norm": EPS}),
    (LIGHTNING, {"rotary": Rotary(dim=4, base=100.0), "norm": RMSNorm(eps=1.0), "norm_groups": 2}),
    (LIGHTNING, {"by_depth": False, "first": 1}),
    (SUMMED, {"heads": 2, "key_dim": 4, "value_dim": 6, "features": "relu", "normalise": False, "eps": 2.0}),
    (SUMMED, {"norm": EPS, "gate": "silu"}),
    (RETENTION, {"heads": 2, "key_dim": 4, "value_dim": 6, "rotary": None, "norm": None, "gate": "gelu"}),
    (GATED, {"heads": 2, "key_dim": 4, "value_dim": 6, "decay_rank": 3, "damping": 2.0, "norm": None}),
    (GATED, {"gate": None}),
]
HOLDING = {LightningAttention: _deep}
