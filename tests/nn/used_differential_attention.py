"""Fields of differential attention that change a model."""

from __future__ import annotations

from lamina.arch import DifferentialAttention, RMSNorm, Rotary

OP = DifferentialAttention(heads=4, kv_heads=2, head_dim=6)
USED = [
    (OP, {"heads": 2, "kv_heads": 1, "head_dim": 4, "rotary": Rotary(base=100.0, dim=6), "initial": 0.5}),
    (OP, {"norm": RMSNorm(), "bias": True, "output_bias": True}),
]
