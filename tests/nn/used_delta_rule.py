"""What of DeltaNet and Gated DeltaNet changes a model."""

from __future__ import annotations

from typing import Any

from lamina.arch import DeltaNet, GatedDeltaNet, Node, RMSNorm

NET = GatedDeltaNet(key_heads=2, value_heads=4, key_dim=5, value_dim=6)
PLAIN = DeltaNet(heads=3, key_dim=5, value_dim=6)
USED: list[tuple[Node, dict[str, Any]]] = [
    (NET, {"key_heads": 4, "value_heads": 6, "key_dim": 4, "value_dim": 7, "convolution": 3}),
    (NET, {"norm": RMSNorm(eps=0.1), "gate": "sigmoid", "negative_eigenvalues": True}),
    (PLAIN, {"heads": 2, "key_dim": 4, "value_dim": 7, "convolution": None, "activation": "elu", "unit": "sum"}),
    (PLAIN, {"learned_step": False, "norm": RMSNorm(eps=0.1), "gate": "silu", "negative_eigenvalues": True}),
]
