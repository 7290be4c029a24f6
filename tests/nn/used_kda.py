"""What of Kimi Delta Attention changes a model."""

from __future__ import annotations

from typing import Any

from lamina.arch import KimiDeltaAttention, Node, RMSNorm

KDA = KimiDeltaAttention(heads=3, key_dim=5, value_dim=7, decay_rank=4, gate_rank=6)
USED: list[tuple[Node, dict[str, Any]]] = [
    (KDA, {"heads": 2, "key_dim": 6, "value_dim": 4, "convolution": 3, "decay_rank": None, "gate_rank": None}),
    (KDA, {"gate_bias": True, "decay_floor": -2.0, "norm": RMSNorm(eps=1.0)}),
]
