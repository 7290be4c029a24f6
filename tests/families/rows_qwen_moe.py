"""Rows of the Qwen mixtures of experts."""

from __future__ import annotations

from table import BASE, WIDE, Row, row

MOE = {"moe_intermediate_size": 20, "num_experts": 10, "num_experts_per_tok": 3}
QWEN2 = BASE | MOE | {"shared_expert_intermediate_size": 28, "use_sliding_window": False}
ROWS: list[Row] = [
    row("qwen2-moe", "Qwen2Moe", QWEN2, mlp_only_layers=[1]),
    row("qwen2-moe-windows", "Qwen2Moe", QWEN2, use_sliding_window=True, sliding_window=7, max_window_layers=2),
    row("qwen3-moe", "Qwen3Moe", WIDE | MOE, norm_topk_prob=True),
    row("qwen3-moe-dense-first", "Qwen3Moe", WIDE | MOE, decoder_sparse_step=2, attention_bias=True),
]
