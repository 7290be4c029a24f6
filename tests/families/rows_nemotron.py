"""Rows of Nemotron-H and Nemotron 3."""

from __future__ import annotations

from typing import Any

from table import WIDE, Row, row

NEMOTRON: dict[str, Any] = {key: value for key, value in WIDE.items() if key != "num_hidden_layers"}
NEMOTRON |= {"mamba_num_heads": 6, "mamba_head_dim": 10, "n_groups": 3, "ssm_state_size": 7, "chunk_size": 8}
NEMOTRON |= {"n_routed_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 20}
NEMOTRON |= {"moe_shared_expert_intermediate_size": 28, "routed_scaling_factor": 2.5}
MAMBA, ATTENTION = "linear_attention", "full_attention"
BIASES = {"use_bias": True, "use_conv_bias": False, "conv_kernel": 3, "time_step_min": 0.6, "norm_topk_prob": False}
NANO = [MAMBA, "moe", ATTENTION, MAMBA, "moe"]
ROWS: list[Row] = [
    row("nemotron-3-nano", "NemotronH", NEMOTRON, layers_block_type=NANO),
    row("nemotron-3-super", "NemotronH", NEMOTRON, layers_block_type=NANO, moe_latent_size=16, n_group=2, topk_group=1),
    row("nemotron-h", "NemotronH", NEMOTRON, layers_block_type=[MAMBA, "mlp", ATTENTION, MAMBA]),
    row("nemotron-h-biases", "NemotronH", NEMOTRON | BIASES, layers_block_type=[ATTENTION, MAMBA, "moe", "mlp"]),
]
