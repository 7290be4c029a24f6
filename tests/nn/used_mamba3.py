"""Fields of Mamba-3 that change a model."""

from __future__ import annotations

from lamina.arch import LayerNorm, Mamba3, RMSNorm

MAMBA3 = Mamba3(heads=4, head_dim=6, groups=2, state=9, turning=3, norm=RMSNorm(eps=1e-3))
USED = [
    (MAMBA3, {"heads": 6, "head_dim": 4, "groups": 1, "state": 7, "rank": 2, "turning": 2, "norm": LayerNorm()}),
    (MAMBA3, {"output_norm": RMSNorm(), "rate": "softplus", "rate_floor": 2.0, "bias": True}),
]
