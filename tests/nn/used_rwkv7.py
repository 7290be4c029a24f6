"""Fields of RWKV-7's parts that change a model."""

from __future__ import annotations

from typing import Any

from lamina.arch import RWKV7, Block, Branch, ChannelMix, LayerNorm

MIX = RWKV7(heads=2, key_dim=3, value_dim=5, decay_rank=4, step_rank=6, gate_rank=7, norm=LayerNorm(eps=1e-3))
SIZES: dict[str, Any] = {"heads": 3, "key_dim": 4, "value_dim": 6, "decay_rank": 5, "step_rank": 5, "gate_rank": 5}
LATER = Block(branches=(Branch(op=MIX), Branch(op=MIX.replace(value_rank=2))))
USED = [
    (MIX, SIZES | {"norm": LayerNorm(eps=1.0)}),
    (LATER, {"branches": (Branch(op=MIX), Branch(op=MIX))}),
    (ChannelMix(inner=7), {"inner": 5, "activation": "silu"}),
]
ELSEWHERE = {(RWKV7, "value_rank"): "reads an earlier block: in the block above"}
