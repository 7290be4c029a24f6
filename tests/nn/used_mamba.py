"""Fields of Mamba and of RG-LRU that change a model."""

from __future__ import annotations

from lamina.arch import RGLRU, Mamba, RMSNorm

SCAN = Mamba(inner=14, state=5, rank=3, norms=RMSNorm(eps=1e-3))
LRU = RGLRU(inner=12, heads=3)
USED = [
    (SCAN, {"inner": 10, "state": 4, "rank": 2, "convolution": 3, "convolution_bias": False, "bias": True}),
    (SCAN, {"norms": None, "heads": 2, "interleaved": True}),
    (LRU, {"inner": 9, "heads": 4, "convolution": 3, "activation": "silu"}),
]
