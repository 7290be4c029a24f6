"""Fields of mLSTM and sLSTM that change a model."""

from __future__ import annotations

from lamina.arch import MLSTM, SLSTM, RMSNorm

CELL = MLSTM(heads=2, key_dim=3, value_dim=5, softcap=5.0)
NUMBERS = SLSTM(heads=2, head_dim=3)
USED = [
    (CELL, {"heads": 3, "key_dim": 4, "value_dim": 6, "softcap": 0.5, "eps": 0.5, "norm": RMSNorm(eps=1e-3)}),
    (NUMBERS, {"heads": 3, "head_dim": 4, "forget": "exponential", "norm": RMSNorm(eps=1e-3)}),
]
