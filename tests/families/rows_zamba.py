"""Rows of Zamba and Zamba 2."""

from __future__ import annotations

from typing import Any

from table import BASE, Row, row

MAMBA, HYBRID = "linear_attention", "hybrid"
ZAMBA2: dict[str, Any] = BASE | {"num_hidden_layers": 4, "num_key_value_heads": 6, "adapter_rank": 5}
ZAMBA2 |= {"n_mamba_heads": 6, "mamba_ngroups": 3, "mamba_d_state": 10, "chunk_size": 8, "rms_norm_eps": 15.0}
"""So large an epsilon bounds how much a norm lifts what is nearly zero: ill-conditioned without."""

FOUR = {"layers_block_type": [MAMBA, HYBRID, HYBRID, HYBRID]}
ADAPTED = {"use_shared_attention_adapter": True, "use_mem_rope": True}
THIRD = {"layers_block_type": [HYBRID, MAMBA, HYBRID, HYBRID]}
BIASES = {
    "add_bias_linear": True,
    "num_key_value_heads": 2,
    "time_step_min": 0.6,
    "mamba_d_conv": 3,
    "mamba_ngroups": 2,
}
ZAMBA: dict[str, Any] = BASE | {"num_hidden_layers": 4, "mamba_d_state": 9, "rms_norm_eps": 15.0, "n_mamba_heads": 3}
ROWS: list[Row] = [
    row("zamba2-1.2b", "Zamba2", ZAMBA2, **THIRD, **ADAPTED),
    row("zamba2-2.7b", "Zamba2", ZAMBA2, **FOUR, num_mem_blocks=2),
    row("zamba2-biases", "Zamba2", ZAMBA2, **FOUR, **BIASES),
    row("zamba", "Zamba", ZAMBA, **FOUR),
    row("zamba-biases", "Zamba", ZAMBA, **THIRD, mamba_proj_bias=True, mamba_d_conv=3, attention_head_dim=14),
    row(
        "zamba-periods", "Zamba", ZAMBA, num_hidden_layers=5, attn_layer_period=2, attn_layer_offset=1, n_mamba_heads=1
    ),
]
