"""Fields of Mamba-2 that change a model."""

from __future__ import annotations

from lamina.arch import LayerNorm, Mamba2, RMSNorm

MAMBA2 = Mamba2(heads=4, head_dim=6, groups=2, state=5, norm=RMSNorm(eps=1e-3))
HALVED = (0.5, 0.5, 0.5, 0.5, 0.5)
USED = [
    (MAMBA2, {"heads": 6, "head_dim": 4, "groups": 1, "state": 3, "convolution": 3, "convolution_bias": False}),
    (MAMBA2, {"bias": True, "output_bias": True, "norm": LayerNorm(), "norm_groups": 3, "norm_first": True}),
    (MAMBA2, {"step_min": 1.0, "step_max": 0.5, "multipliers": HALVED}),
    (MAMBA2.replace(norm_groups=2), {"norm": None}),
]
